"""`dev.py bench many_files [--files N]`: the time of the operator's page with very many files in one container.

Azurite is slower at this than Azure Storage: it sorts a container's names anew for each request.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from local.azurite import running_azurite
from local.containers import provision
from shared import clock
from shared.bridge import Bridge, new_clients
from shared.config import settings
from shared.operations import views
from shared.operations.views import Filter
from shared.storage import names, records
from shared.storage.account import SUCCEEDED, connect
from shared.storage.records import Record, State

JOBS = b'{"imports": [{"name": "journals", "activityId": "11111111-1111-4111-8111-111111111111"}]}'


def _fill(bridge: Bridge, files: int) -> None:
    begun = datetime(2026, 11, 1, tzinfo=UTC)
    container = bridge.account.blobs.get_container_client(SUCCEEDED)

    def upload(number: int) -> None:
        moment = begun + timedelta(seconds=number)
        name = names.stamped(f"journals/USMF/file {number:06}.csv", moment, str(number))
        record = Record(
            job="journals", state=State.SUCCEEDED, ended=clock.text(moment), messageid="x"
        )
        container.upload_blob(name, b"x", metadata=records.to_metadata(record, {}))

    with ThreadPoolExecutor(8) as pool:
        for done, _ in enumerate(pool.map(upload, range(files)), 1):
            if done % 10_000 == 0:
                print(f"{done:,} files made", flush=True)


def _views(bridge: Bridge) -> Iterator[tuple[str, Callable[[], object]]]:
    def listed(**filters: str) -> views.Listing:
        return views.listing(bridge, Filter("succeeded", **filters))  # type: ignore[arg-type]

    yield "first page", listed
    yield "second page", lambda: listed(token=listed().next_token)
    yield "by the beginning of the path", lambda: listed(name="journals/USMF/file 09")
    yield "a part of the name, not there", lambda: listed(name="nowhere")
    yield "one file", lambda: views.detail(bridge, SUCCEEDED, listed().rows[0].name)
    yield "the first page of all (jobs)", lambda: views.overview(bridge)


def main() -> None:
    """Fill a container, then time each view, best of three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    with running_azurite() as azurite, TemporaryDirectory() as folder:
        provision(azurite.connection_string)
        file = Path(folder) / "jobs.json"
        file.write_bytes(JOBS)
        environment = {
            "D365_URL": "http://127.0.0.1:1",
            "DataStorage": azurite.connection_string,
            "JOBS_FILE": str(file),
        }
        app_settings = settings.load(environment)
        bridge = Bridge(app_settings, new_clients(app_settings), connect(app_settings.storage))
        _fill(bridge, options.files)
        for name, view in _views(bridge):
            times = []
            for _ in range(3):
                started = time.perf_counter()
                view()
                times.append(time.perf_counter() - started)
            print(f"{name:<32} {min(times):6.2f} s", flush=True)


if __name__ == "__main__":
    main()
