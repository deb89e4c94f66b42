"""`dev.py demo [--keep]`: move packages and files end to end on this machine, on loopback only.

Two D365 environments (simulators) offer packages, and the demo drops files for them. The app runs in the
trigger host, on Azurite, with the same code as in the cloud. One environment refuses the app until all work of
the other one is done. At the end the SHA-256 of everything that was moved is compared with what D365 sent and
received. The exit code is 0 only if everything is right.
"""

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local import scenario
from local.audit import AUDITED, REPORT, Findings, Package, Received, audit
from local.azurite import AzuriteFailed, running_azurite
from local.containers import provision
from local.host_process import HostFailed, RunningHost, running_host
from local.progress import Progress, size
from local.registry import demo_note
from local.simulator import Package as OfferedPackage
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
from shared.storage.names import job_folder

D365_STORAGE = "d365storage"
"""The account in which D365 keeps the packages of the package API."""

SETTLE_SECONDS = 180
NOT_DONE = "not done in time"
AFTERWARDS_SECONDS = 3
"""Seconds to wait after everything is done: a second copy, which must not come, would come then."""


class DemoFailed(RuntimeError):
    """The demo could not continue. The text says why."""


class Storage:
    """The demo's storage, used as a person uses it."""

    def __init__(self, connection_string: str) -> None:
        self._account = connect(StorageSettings(connection_string, None, None, None))
        self._blobs = BlobServiceClient.from_connection_string(connection_string)
        self._queues = QueueServiceClient.from_connection_string(connection_string)

    def drop(self, name: str, content: bytes) -> None:
        self._blobs.get_blob_client(IMPORTS, name).upload_blob(content)

    def count(self, container: str, environment: str = "") -> int:
        """How many files a container has, without error reports; with an environment, those of its jobs."""
        names = self._blobs.get_container_client(container).list_blob_names()
        return sum(
            not name.endswith(REPORT)
            and environment in ("", scenario.environment_of(job_folder(name)))
            for name in names
        )

    def messages(self, queue: str) -> int:
        """How many messages a queue has, including those that are not visible yet."""
        with contextlib.suppress(ResourceNotFoundError):
            properties = self._queues.get_queue_client(queue).get_queue_properties()
            return properties.approximate_message_count or 0
        return 0

    def make_export_due(self) -> None:
        """Make the data project's export due, as if the app had been down for the last day."""
        since = clock.now() - timedelta(days=1)
        execution.begin_to_count(self._account, scenario.PROJECT_EXPORT, since)

    def has_exported_project(self) -> bool:
        """Whether the data project was exported, and no export of it is under way."""
        known = execution.read(self._account, scenario.PROJECT_EXPORT)
        return bool(known and known[0].executionid and not known[0].under_way)

    def close(self) -> None:
        self._blobs.close()
        self._queues.close()


@dataclass(frozen=True)
class Environment:
    """A D365 environment, and the files that are dropped for it."""

    name: str
    simulator: Simulator
    files: Sequence[scenario.DroppedFile]

    @classmethod
    def of(cls, name: str, simulator: Simulator) -> "Environment":
        """An environment with the scenario's files for its jobs."""
        files = [
            file
            for file in scenario.files()
            if scenario.environment_of(job_folder(file.expected.path)) == name
        ]
        return cls(name, simulator, files)

    def is_done(self, storage: Storage) -> bool:
        """Whether its packages are acknowledged, its data project is exported, and its files have ended."""
        ended = storage.count(SUCCEEDED, self.name) + storage.count(FAILED, self.name)
        waiting = storage.count(IMPORTS, self.name) + storage.count(PROCESSING, self.name)
        acknowledged = all(package.acknowledged for package in self.simulator.packages)
        exported = scenario.PROJECT not in self.simulator.projects or storage.has_exported_project()
        return ended >= len(self.files) and waiting == 0 and acknowledged and exported

    def problems(self) -> Iterator[str]:
        """A sentence for each kind of request that it did not get exactly once for each file or package."""
        requests = Counter(request.operation for request in self.simulator.requests)
        sent = [file.expected for file in self.files if file.expected.sent]
        packages = self.simulator.packages
        for what, count, expected in (
            ("sent files", requests["enqueue"] + requests["import_package"], len(sent)),
            ("downloads", requests["download"], len(packages)),
            ("acknowledgements", requests["acknowledge"], len(packages)),
            ("exports of data projects", requests["export_package"], 1),
        ):
            if count != expected:
                yield f"{self.name}: {count} {what} instead of {expected}"


def print_tables(findings: Findings, storage: Storage, environments: Sequence[Environment]) -> None:
    """Print the files in each container, the messages in each queue, and how many requests D365 got."""
    print()
    for container in AUDITED:
        blobs = [blob for blob in findings.blobs if blob.container == container]
        total = size(sum(blob.size for blob in blobs))
        print(f"{container}: {f'{len(blobs)} blobs, {total}' if blobs else 'empty'}")
        for blob in blobs:
            print(f"  {blob.sha256[:12]}  {size(blob.size):>10}  {blob.state:<10}{blob.name}")
    queues = (STATUS_QUEUE, *POISON_QUEUES)
    print("queues: " + ", ".join(f"{name} {storage.messages(name)}" for name in queues))
    for each in environments:
        requests = Counter(request.operation for request in each.simulator.requests)
        counts = ", ".join(f"{operation} {count}" for operation, count in sorted(requests.items()))
        print(f"requests to {each.name}: {counts}")


def print_result(
    findings: Findings, environments: Sequence[Environment], done: Mapping[str, str]
) -> bool:
    """Print the problems and the summary. Returns whether everything is right.

    `done` says when the work of each environment was done.
    """
    problems = list(findings.problems)
    problems += environments[0].problems()  # the other one also got requests that it refused
    problems += [f"{name}: {when}" for name, when in done.items() if when.startswith(NOT_DONE)]
    expected_files = len(scenario.files())
    expected_failures = sum(file.expected.outcome == "failed" for file in scenario.files())
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
    for each in environments:
        succeeded, failed = (
            sum(
                blob.container == container
                and not blob.name.endswith(REPORT)
                and scenario.environment_of(job_folder(blob.name)) == each.name
                for blob in findings.blobs
            )
            for container in (SUCCEEDED, FAILED)
        )
        print(
            f"{each.name:<10}  packages {len(each.simulator.packages)}, files {succeeded + failed} "
            f"(failed {failed})  {done[each.name]}"
        )
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


def _app_settings(
    directory: Path, connection_string: str, environments: Sequence[Environment]
) -> dict[str, str]:
    """The app settings. Writes the jobs file that they name."""
    jobs = directory / "jobs.json"
    urls = {each.name: each.simulator.base_url for each in environments}
    jobs.write_text(json.dumps(scenario.jobs(urls), indent=2), encoding="utf-8")
    return {
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "AzureWebJobsStorage": connection_string,
        "DataStorage": connection_string,
        "JOBS_FILE": str(jobs),
        "EXPORT_SCHEDULE": "*/2 * * * * *",
        "RECONCILE_SCHEDULE": "*/10 * * * * *",
        **identity_settings(environments[0].simulator),
    }


def _prepare(simulator: Simulator) -> None:
    """Give a simulator its jobs, and set how it answers."""
    simulator.reject_text = scenario.REJECTED
    simulator.reject_errors = list(scenario.COMPLAINTS)
    # A real D365 takes minutes. The demo should not.
    simulator.statuses = ("Processing", "Processed")
    simulator.package_api.statuses = ("Executing", "Succeeded")
    for activity_id in scenario.EXPORT_IDS:
        simulator.add_export_job(activity_id)
    for activity_id in scenario.IMPORT_IDS:
        simulator.add_import_job(activity_id)


@contextlib.contextmanager
def _host(
    directory: Path, app_settings: Mapping[str, str], progress: Progress
) -> Iterator[RunningHost]:
    """The app in the trigger host. `Progress` shows its log, which is also written to a file."""
    with (directory / "host.log").open("w", encoding="utf-8") as log:

        def hear(line: str) -> None:
            log.write(line)
            log.flush()
            progress.retell(line)

        with running_host(app_settings, hear=hear) as host:
            yield host


def _check(host: RunningHost) -> None:
    """Raises `DemoFailed`, with the end of the log, if the host has ended by itself."""
    if not host.alive():
        raise DemoFailed("".join(["the trigger host ended:\n", *host.everything()[-15:]]))


def _wait(name: str, is_done: Callable[[], bool], host: RunningHost, progress: Progress) -> str:
    """Wait until an environment is done. Returns when that was, or that it took too long."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        _check(host)
        if is_done():
            return f"done at {progress.seconds:.1f} s"
        time.sleep(0.5)
    progress.say(f"{name} is not done after {SETTLE_SECONDS} s")
    return NOT_DONE


def _all_done(last: Environment, storage: Storage) -> bool:
    """Whether the last environment is done, and no file and no message of any job is left."""
    files = storage.count(IMPORTS) + storage.count(PROCESSING)
    return last.is_done(storage) and not files and not storage.messages(STATUS_QUEUE)


def _audit(
    environments: Sequence[Environment],
    connection_string: str,
    offers: Sequence[tuple[scenario.Offer, OfferedPackage]],
) -> Findings:
    packages = [
        Package(
            offer.job,
            package.correlation_id,
            package.sha256,
            package.acknowledged,
            offer.members(),
        )
        for offer, package in offers
    ]
    received = [
        Received(r.sha256, r.entity, r.company)
        for each in environments
        for r in each.simulator.received
    ]
    packages += [
        Package(scenario.PROJECT_EXPORT, each.execution_id, each.sha256, None)
        for environment in environments
        for each in environment.simulator.executions
        if each.project == scenario.PROJECT
    ]
    drops = [file.expected for file in scenario.files()]
    return audit(connection_string, packages, drops, received)


def _keep(directory: Path, connection_string: str, settings: Path, host: RunningHost) -> None:
    jobs = ", ".join(job["name"] for job in scenario.JOBS["imports"])
    print(
        f"""
The demo continues to run. Drop a file into a job ({jobs}):
  python3 dev.py drop FILE JOB
  or, with Azure Storage Explorer, into imports/JOB/ of
  {connection_string}
D365 rejects a file that contains {scenario.REJECTED.decode()}. The lines here show what happens.
To see a file fail, correct it and resend it (docs/operations.md shows each step):
  the page      {host.url}/api/operate?code={host.key}
  commands      python3 dev.py operate --help, python3 dev.py d365 --help
  app settings  {settings}
  host's log    {directory / "host.log"}
Ctrl-C stops everything and removes it.
""",
        flush=True,
    )
    while True:
        _check(host)
        time.sleep(0.5)


@contextlib.contextmanager
def _temporary_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="d365-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(*, keep: bool) -> bool:
    """Runs the demo. Returns whether everything was right."""
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
        environments = [
            Environment.of(name, stack.enter_context(running_simulator()))
            for name in (scenario.PRODUCTION, scenario.TEST)
        ]
        production, test = environments
        for each in environments:
            each.simulator.issuer = production.simulator
            _prepare(each.simulator)
        production.simulator.use_storage(azurite.connection_string_of(D365_STORAGE))
        production.simulator.projects[scenario.PROJECT] = "plain"
        storage.make_export_due()
        test.simulator.registered = False
        test.simulator.statuses = ("Processed",)
        simulators = {each.name: each.simulator for each in environments}
        offers = [
            (
                offer,
                simulators[scenario.environment_of(offer.job)].add_package(
                    offer.activity_id, offer.path
                ),
            )
            for offer in scenario.write_packages(directory)
        ]
        for file in scenario.files():
            storage.drop(file.expected.path, file.content)
        progress.say(
            f"D365 offers {len(offers)} packages, a data project is due, and "
            f"{len(scenario.files())} files are dropped"
        )
        progress.say(f"the environment {test.name} refuses the app for now")
        app_settings = _app_settings(directory, azurite.connection_string, environments)
        host = stack.enter_context(_host(directory, app_settings, progress))
        done = {
            production.name: _wait(
                production.name, lambda: production.is_done(storage), host, progress
            )
        }
        done[production.name] += f", while {test.name} refused the app"
        progress.say(f"{production.name} is done; {test.name} lets the app in")
        test.simulator.registered = True
        done[test.name] = _wait(test.name, lambda: _all_done(test, storage), host, progress)
        progress.say("everything is done; waiting to see that no second copy comes")
        time.sleep(AFTERWARDS_SECONDS)
        progress.say("reading everything again and comparing it")
        findings = _audit(environments, azurite.connection_string, offers)
        print_tables(findings, storage, environments)
        right = print_result(findings, environments, done)
        if keep:
            jobs = [str(job["name"]) for job in scenario.JOBS["imports"]]
            d365 = production.simulator.base_url
            settings = directory / "local.settings.json"  # in the form that `func start` reads too
            content = {"IsEncrypted": False, "Values": app_settings}
            settings.write_text(json.dumps(content, indent=2), encoding="utf-8")
            stack.enter_context(demo_note(azurite.connection_string, jobs, settings, d365))
            with contextlib.suppress(KeyboardInterrupt):
                _keep(directory, azurite.connection_string, settings, host)
        return right


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
    except (DemoFailed, HostFailed, AzuriteFailed) as error:
        sys.exit(f"demo: {error}")


if __name__ == "__main__":
    main()
