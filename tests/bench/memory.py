"""Peak memory of the process that runs the app, over a large export and a large import.

`python3 dev.py bench memory [--mib N]`: by default 1 GiB each way, through the worker library, between the
simulator and Azurite, each in a process of its own, so what is measured is the trigger host with the app alone.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from azure.storage.blob import BlobServiceClient

from local.azurite import running_azurite
from local.hosting import RunningHost, running_host
from local.provisioning import provision
from local.samples import write_large_package
from local.simulator import Simulator, identity_settings, running_simulator
from shared.blobs import EXPORTS, IMPORTS, SUCCEEDED

LIMIT_MIB = 200
MIB = 1 << 20
EXPORT_ID = "11111111-1111-4111-8111-111111111111"
IMPORT_ID = "22222222-2222-4222-8222-222222222222"
JOBS = {
    "exports": [{"name": "ledger", "activityId": EXPORT_ID}],
    "imports": [{"name": "packages", "activityId": IMPORT_ID}],
}


class Peak:
    """The largest resident set of a process while it is watched, in MiB."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.mib = self.before = self._now()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _now(self) -> float:
        return float(self._process.memory_info().rss) / MIB

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

        def import_() -> None:
            done = blobs.get_container_client(SUCCEEDED)
            while not list(done.list_blobs()):
                assert host.alive(), host.output()
                time.sleep(0.2)
            assert [r.sha256 for r in simulator.received] == [offered.sha256], host.output()

        with app(azurite.connection_string, simulator, folder) as host:
            exported, export_seconds = measured(host, export)
        with package.open("rb") as content:
            target = blobs.get_blob_client(IMPORTS, "packages/large.zip")
            target.upload_blob(content, max_concurrency=2)
        with app(azurite.connection_string, simulator, folder) as host:
            imported, import_seconds = measured(host, import_)
    print(f"{'':<8}{'peak RSS':>12}{'idle before':>14}{'seconds':>10}")
    for what, peak, seconds in (
        ("export", exported, export_seconds),
        ("import", imported, import_seconds),
    ):
        print(f"{what:<8}{peak.mib:>8.0f} MiB{peak.before:>10.0f} MiB{seconds:>10.1f}")
    good = max(exported.mib, imported.mib) < LIMIT_MIB
    print(f"below {LIMIT_MIB} MiB: {'yes' if good else 'NO'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
