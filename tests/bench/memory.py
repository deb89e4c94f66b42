"""Peak memory of the processes that run the app: a large export, a large import, four large imports at once.

`python3 dev.py bench memory [--mib N]`: by default 1 GiB each, through the worker library, between the
simulator and Azurite. Each is in worker processes as on Flex Consumption, one for each group of functions,
that get their settings by a reload; what is measured is the largest of them, alone in a fresh host.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
from azure.storage.blob import BlobServiceClient

from local.azurite import running_azurite
from local.containers import provision
from local.host_process import RunningHost, running_host
from local.samples import write_large_package
from local.simulator import Simulator, identity_settings, running_simulator
from shared.storage.account import EXPORTS, IMPORTS, SUCCEEDED

AT_ONCE = 4
"""Imports that one instance may have at once (host.json, `maxDegreeOfParallelism`)."""
LIMIT_MIB = {1: 160, AT_ONCE: 400}
"""By how many are moved at once."""
MIB = 1 << 20
EXPORT_ID = "11111111-1111-4111-8111-111111111111"
IMPORT_ID = "22222222-2222-4222-8222-222222222222"
JOBS = {
    "exports": [{"name": "ledger", "activityId": EXPORT_ID}],
    "imports": [{"name": "packages", "activityId": IMPORT_ID}],
}


class Peak:
    """The largest resident set of any worker of a host while it is watched, in MiB."""

    def __init__(self, host_pid: int) -> None:
        self._host = psutil.Process(host_pid)
        self.mib = self.before = self._now()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _now(self) -> float:
        sizes = [0.0]
        for worker in self._host.children():
            with suppress(psutil.NoSuchProcess):
                sizes.append(float(worker.memory_info().rss) / MIB)
        return max(sizes)

    def _watch(self) -> None:
        while not self._stopping.wait(0.01):
            self.mib = max(self.mib, self._now())

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


@contextmanager
def app(connection_string: str, simulator: Simulator, folder: Path) -> Iterator[RunningHost]:
    """A fresh process with the app."""
    jobs = folder / "jobs.json"
    jobs.write_text(json.dumps(JOBS), encoding="utf-8")
    settings = {
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "AzureWebJobsStorage": connection_string,
        "DataStorage": connection_string,
        "D365_URL": simulator.base_url,
        "JOBS_FILE": str(jobs),
        "EXPORT_SCHEDULE": "0 0 0 1 1 *",
        "RECONCILE_SCHEDULE": "0 0 0 1 1 *",
        **identity_settings(simulator),
    }
    with running_host(settings) as host:
        yield host


def measured(host: RunningHost, run: Callable[[], None]) -> tuple[Peak, float]:
    """The peak while `run` runs, and its seconds."""
    peak, started = Peak(host.pid), time.monotonic()
    run()
    seconds = time.monotonic() - started
    peak.stop()
    return peak, seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        "dev.py bench memory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--mib", type=int, default=1024, help="size of the package (default 1024)")
    mib = parser.parse_args().mib
    with (
        tempfile.TemporaryDirectory(prefix="bridge-memory-") as name,
        running_azurite(directory=Path(name)) as azurite,
        running_simulator() as simulator,
        BlobServiceClient.from_connection_string(azurite.connection_string) as blobs,
    ):
        folder = Path(name)
        provision(azurite.connection_string)
        package = folder / "large.zip"
        print(f"writing a package of {mib} MiB", flush=True)
        write_large_package(package, mib * MIB)
        offered = simulator.add_package(EXPORT_ID, package)
        simulator.add_import_job(IMPORT_ID)
        simulator.statuses = ("Processed",)

        def export() -> None:
            host.invoke("export_packages")
            assert offered.acknowledged == 1, host.output()
            stored = blobs.get_blob_client(EXPORTS, f"ledger/{offered.correlation_id}.zip")
            assert stored.get_blob_properties().metadata["sha256"] == offered.sha256

        def drop(count: int) -> None:
            for number in range(count):
                with package.open("rb") as content:
                    target = blobs.get_blob_client(IMPORTS, f"packages/{count}-{number}.zip")
                    target.upload_blob(content, max_concurrency=2)

        def import_(count: int) -> None:
            done = blobs.get_container_client(SUCCEEDED)
            while len(list(done.list_blobs(f"packages/{count}-"))) < count:
                assert host.alive(), host.output()
                time.sleep(0.2)
            received = [each.sha256 for each in simulator.received]
            assert received[-count:] == [offered.sha256] * count, host.output()

        results: list[tuple[str, int, Peak, float]] = []
        with app(azurite.connection_string, simulator, folder) as host:
            results.append(("export", 1, *measured(host, export)))
        for count in (1, AT_ONCE):
            drop(count)
            with app(azurite.connection_string, simulator, folder) as host:
                run = partial(import_, count)
                results.append(
                    (f"{count} at once" if count > 1 else "import", count, *measured(host, run))
                )
    print(f"{'':<12}{'peak RSS':>12}{'idle before':>14}{'seconds':>10}{'limit':>12}")
    good = True
    for what, count, peak, seconds in results:
        limit = LIMIT_MIB[count]
        good = good and peak.mib < limit
        print(
            f"{what:<12}{peak.mib:>8.0f} MiB{peak.before:>10.0f} MiB{seconds:>10.1f}{limit:>8} MiB"
        )
    print(f"within the limits: {'yes' if good else 'NO'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
