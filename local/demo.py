"""`dev.py demo [--keep]`: the main job end to end on this machine, on loopback only.

D365 (the simulator) offers packages, people drop files, and the app runs in the trigger host on
Azurite, unaware that none of it is the cloud. At the end everything that was moved is compared, byte
for byte, with what D365 sent and received; the exit code is 0 only if all is as it should be.
"""

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local import scenario
from local.audit import AUDITED, REPORT, Findings, Package, Received, audit
from local.azurite import AzuriteFailed, running_azurite
from local.progress import Progress, size
from local.provisioning import provision
from local.registry import noted
from local.simulator import Simulator, identity_settings, running_simulator
from shared import clock
from shared.config.settings import Storage as StorageSettings
from shared.exports import execution
from shared.storage.account import (
    FAILED,
    IMPORTS,
    POISON_QUEUES,
    PROCESSING,
    STATUS_QUEUE,
    SUCCEEDED,
    connect,
)

ROOT = Path(__file__).resolve().parent.parent
D365_STORAGE = "d365storage"
"""The account in which D365 keeps the packages of the package API."""

SETTLE_SECONDS = 180
AFTERWARDS_SECONDS = 3
"""When all has settled: time for what should not come, such as a second copy."""


class DemoFailed(RuntimeError):
    """The demo could not go on: the text says why."""


class Storage:
    """The demo's storage as a person looks at it."""

    def __init__(self, connection_string: str) -> None:
        self._account = connect(StorageSettings(connection_string, None, None, None))
        self._blobs = BlobServiceClient.from_connection_string(connection_string)
        self._queues = QueueServiceClient.from_connection_string(connection_string)

    def drop(self, name: str, content: bytes) -> None:
        self._blobs.get_blob_client(IMPORTS, name).upload_blob(content)

    def count(self, container: str) -> int:
        """The files in a container, reports not counted."""
        names = self._blobs.get_container_client(container).list_blob_names()
        return sum(not name.endswith(REPORT) for name in names)

    def messages(self, queue: str) -> int:
        """The messages in a queue, those included that are not visible yet."""
        with contextlib.suppress(ResourceNotFoundError):
            count = self._queues.get_queue_client(queue).get_queue_properties()
            return count.approximate_message_count or 0
        return 0

    def let_be_due(self) -> None:
        """Let a due time of the data project have passed while the app was down: that of the last day."""
        since = clock.now() - timedelta(days=1)
        execution.begin_to_count(self._account, scenario.PROJECT_EXPORT, since)

    def has_exported_project(self) -> bool:
        """Whether it has, and nothing is under way any more."""
        known = execution.read(self._account, scenario.PROJECT_EXPORT)
        return bool(known and known[0].executionid and not known[0].under_way)

    def close(self) -> None:
        self._blobs.close()
        self._queues.close()


def _settled(storage: Storage, files: int, unacknowledged: int) -> bool:
    ended = storage.count(SUCCEEDED) + storage.count(FAILED)
    if not storage.has_exported_project():
        return False
    waiting = storage.count(IMPORTS) + storage.count(PROCESSING) + storage.messages(STATUS_QUEUE)
    return ended >= files and waiting == 0 and unacknowledged == 0


def print_tables(findings: Findings, storage: Storage, requests: dict[str, int]) -> None:
    """What went where."""
    print()
    for container in AUDITED:
        blobs = [blob for blob in findings.blobs if blob.container == container]
        total = size(sum(blob.size for blob in blobs))
        print(f"{container}: {f'{len(blobs)} blobs, {total}' if blobs else 'empty'}")
        for blob in blobs:
            print(f"  {blob.sha256[:12]}  {size(blob.size):>10}  {blob.state:<10}{blob.name}")
    queues = (STATUS_QUEUE, *POISON_QUEUES)
    print("queues: " + ", ".join(f"{name} {storage.messages(name)}" for name in queues))
    counts = ", ".join(f"{operation} {count}" for operation, count in sorted(requests.items()))
    print(f"requests to D365: {counts}")


def print_result(findings: Findings, expected_failures: int, expected_files: int) -> bool:
    """The last lines, and before them what is wrong; True if all is as it should be."""
    problems = list(findings.problems)
    if (findings.succeeded, findings.failed) != (
        expected_files - expected_failures,
        expected_failures,
    ):
        problems.append(
            f"{expected_files - expected_failures} files should succeed and "
            f"{expected_failures} fail"
        )
    print()
    for problem in problems:
        print(f"WRONG: {problem}")
    print(
        f"packages: {findings.exported} exported, {findings.acknowledged} acknowledged; "
        f"of data projects: {findings.projects} exported"
    )
    print(
        f"files: {findings.succeeded} succeeded, {findings.failed} failed "
        f"(as expected: {expected_failures})"
    )
    print(f"sha-256: {findings.compared} compared, {findings.equal} equal")
    print(f"lost: {findings.lost}, twice: {findings.twice}", flush=True)
    return not problems


class Host:
    """The app in the trigger host, as a process of its own, its log retold line by line."""

    def __init__(self, settings: Path, log: Path, progress: Progress) -> None:
        self._log = log
        self._progress = progress
        self.page = ""
        """The address of the operating page, with its key, once the host is up."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.host", "--settings", str(settings), "--with-parent"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._log.open("w", encoding="utf-8") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                if line.startswith('{"url"'):
                    ready = json.loads(line)
                    self.page = f"{ready['url']}/api/operate?code={ready['keys']['function']}"
                    continue
                self._progress.hear(line)

    def check(self) -> None:
        """Raises `DemoFailed` with the end of its log if it has ended by itself."""
        code = self._process.poll()
        if code is not None:
            self._listener.join(5)
            last = self._log.read_text(encoding="utf-8").splitlines()[-15:]
            raise DemoFailed("\n".join([f"the trigger host ended with code {code}:", *last]))

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(5)


def _write_settings(directory: Path, connection_string: str, simulator: Simulator) -> Path:
    """The app settings, in the file that `func start` reads too."""
    jobs = directory / "jobs.json"
    jobs.write_text(json.dumps(scenario.JOBS, indent=2), encoding="utf-8")
    values = {
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "AzureWebJobsStorage": connection_string,
        "DataStorage": connection_string,
        "D365_URL": simulator.base_url,
        "JOBS_FILE": str(jobs),
        "EXPORT_SCHEDULE": "*/2 * * * * *",
        "RECONCILE_SCHEDULE": "*/10 * * * * *",
        **identity_settings(simulator),
    }
    settings = directory / "local.settings.json"
    content = {"IsEncrypted": False, "Values": values}
    settings.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return settings


def _begin(simulator: Simulator, storage: Storage, offers: list[scenario.Offer]) -> None:
    """D365 offers its packages, and people drop their files."""
    simulator.reject_text = scenario.REJECTED
    simulator.reject_errors = list(scenario.COMPLAINTS)
    simulator.statuses = (
        "Processing",
        "Processed",
    )  # D365 itself takes minutes; nobody should wait here
    simulator.package_api.statuses = ("Executing", "Succeeded")
    simulator.projects[scenario.PROJECT] = "plain"
    storage.let_be_due()
    for activity_id in scenario.EXPORT_IDS:
        simulator.add_export_job(activity_id)
    for activity_id in scenario.IMPORT_IDS:
        simulator.add_import_job(activity_id)
    for offer in offers:
        simulator.add_package(offer.activity_id, offer.path)
    for file in scenario.files():
        storage.drop(file.expected.path, file.content)


def _wait(simulator: Simulator, storage: Storage, host: Host, progress: Progress) -> None:
    """Returns when nothing is left to do, or when the time is up."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        host.check()
        unacknowledged = sum(package.acknowledged == 0 for package in simulator.packages)
        if _settled(storage, len(scenario.files()), unacknowledged):
            progress.say("all has settled; waiting for what should not come")
            time.sleep(AFTERWARDS_SECONDS)
            return
        time.sleep(0.5)
    progress.say(f"not settled after {SETTLE_SECONDS} s")


def _audit(simulator: Simulator, connection_string: str, offers: list[scenario.Offer]) -> Findings:
    packages = [
        Package(
            offer.job,
            package.correlation_id,
            package.sha256,
            package.acknowledged,
            offer.members(),
        )
        for offer, package in zip(offers, simulator.packages, strict=True)
    ]
    packages += [
        Package(scenario.PROJECT_EXPORT, each.execution_id, each.sha256, None)
        for each in simulator.executions
        if each.project == scenario.PROJECT
    ]
    received = [Received(r.sha256, r.entity, r.company) for r in simulator.received]
    drops = [file.expected for file in scenario.files()]
    return audit(connection_string, packages, drops, received)


def _keep(directory: Path, connection_string: str, host: Host) -> None:
    jobs = ", ".join(job["name"] for job in scenario.JOBS["imports"])
    print(
        f"""
It goes on running. Drop a file into a job ({jobs}):
  python3 dev.py drop FILE JOB
  or, with Azure Storage Explorer, into imports/JOB/ of
  {connection_string}
A file that holds {scenario.REJECTED.decode()} is rejected by D365. Watch the lines here.
See it fail, mend it, send it again (docs/operations.md goes through it):
  the page      {host.page}
  commands      python3 dev.py operate --help, python3 dev.py d365 --help
  app settings  {directory / "local.settings.json"}
  host's log    {directory / "host.log"}
Ctrl-C stops everything and removes it.
""",
        flush=True,
    )
    while True:
        host.check()
        time.sleep(0.5)


@contextlib.contextmanager
def _temporary_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="d365-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(*, keep: bool) -> bool:
    """Runs the demo; True if all was as it should be."""
    progress = Progress()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(_temporary_directory())
        progress.say("starting storage (Azurite) and D365 (the simulator)")
        (directory / "storage").mkdir()
        azurite = stack.enter_context(
            running_azurite(directory=directory / "storage", more_accounts=[D365_STORAGE])
        )
        provision(azurite.connection_string)
        storage = Storage(azurite.connection_string)
        stack.callback(storage.close)
        simulator = stack.enter_context(running_simulator())
        simulator.use_storage(azurite.connection_string_of(D365_STORAGE))
        offers = scenario.write_packages(directory)
        _begin(simulator, storage, offers)
        progress.say(
            f"D365 offers {len(offers)} packages, a data project is due, and "
            f"{len(scenario.files())} files are dropped"
        )
        settings = _write_settings(directory, azurite.connection_string, simulator)
        host = Host(settings, directory / "host.log", progress)
        stack.callback(host.stop)
        _wait(simulator, storage, host, progress)
        progress.say("reading everything again and comparing")
        findings = _audit(simulator, azurite.connection_string, offers)
        print_tables(findings, storage, Counter(r.operation for r in simulator.requests))
        failures = sum(file.expected.outcome == "failed" for file in scenario.files())
        good = print_result(findings, failures, len(scenario.files()))
        if keep:
            jobs = [str(job["name"]) for job in scenario.JOBS["imports"]]
            note = noted(azurite.connection_string, jobs, settings, simulator.base_url)
            stack.enter_context(note)
            with contextlib.suppress(KeyboardInterrupt):
                _keep(directory, azurite.connection_string, host)
        return good


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser("dev.py demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(0 if run(keep=arguments.keep) else 1)
    except KeyboardInterrupt:
        sys.exit("stopped")
    except (DemoFailed, AzuriteFailed) as error:
        sys.exit(f"demo: {error}")


if __name__ == "__main__":
    main()
