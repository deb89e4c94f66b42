"""Real servers for the tests: Azurite, started once; each test finds its containers and queues empty."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from hypothesis import settings as hypothesis_settings

from local.azurite import Azurite, running_azurite
from local.provisioning import provision
from local.simulator import Simulator, identity_settings, running_simulator
from shared import clock
from shared.bridge import Bridge, new_clients
from shared.config import jobs, settings
from shared.config.environments import ONLY, Environment
from shared.config.settings import Settings, Storage
from shared.imports import advance, schedule
from shared.observability.events import listeners
from shared.operations import journal
from shared.storage import files
from shared.storage.account import (
    CONTAINERS,
    FAILED,
    IMPORTS,
    POISON_QUEUES,
    PROCESSING,
    QUEUES,
    STATUS_QUEUE,
    DataAccount,
    connect,
)
from shared.storage.records import File

D365_STORAGE = "d365storage"
"""The account in which D365 keeps the packages of the package API."""

# How long an example takes is the machine's affair.
hypothesis_settings.register_profile("no deadline", deadline=None)
hypothesis_settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """The storage emulator, with containers and queue."""
    with running_azurite(more_accounts=[D365_STORAGE]) as running:
        provision(running.connection_string)
        yield running


@pytest.fixture
def account(azurite: Azurite) -> DataAccount:
    """The data account, empty."""
    account = connect(Storage(azurite.connection_string, None, None, None))
    empty(account)
    return account


def empty(account: DataAccount) -> None:
    """Delete every blob and message."""
    for name in CONTAINERS:
        container = account.blobs.get_container_client(name)
        for found in container.list_blobs():
            container.delete_blob(found.name, delete_snapshots="include")
    for queue in (*QUEUES, *POISON_QUEUES):
        try:
            account.queue(queue).clear_messages()
        except ResourceNotFoundError:
            continue


EXPORT_ID = "11111111-1111-4111-8111-111111111111"
IMPORT_ID = "22222222-2222-4222-8222-222222222222"
ORDERED_ID = "33333333-3333-4333-8333-333333333333"
PACKAGE_ID = "44444444-4444-4444-8444-444444444444"

JOBS = {
    "exports": [{"name": "vendors", "activityId": EXPORT_ID}],
    "imports": [
        {"name": "journals", "activityId": IMPORT_ID, "entity": "General journal"},
        {"name": "steps", "activityId": ORDERED_ID, "entity": "Steps", "ordered": True},
        {"name": "packages", "activityId": PACKAGE_ID},
        {"name": "projects", "api": "package", "dataProject": "Vendors in", "company": "USMF"},
    ],
}


@pytest.fixture(scope="session")
def served(azurite: Azurite) -> Iterator[Simulator]:
    """The simulator, served once."""
    with running_simulator() as simulator:
        simulator.use_storage(azurite.connection_string_of(D365_STORAGE))
        yield simulator


@pytest.fixture
def d365(served: Simulator) -> Simulator:
    """A D365 environment with the jobs of `JOBS`, otherwise as new."""
    served.reset()
    served.add_export_job(EXPORT_ID)
    for activity_id in (IMPORT_ID, ORDERED_ID, PACKAGE_ID):
        served.add_import_job(activity_id)
    return served


@pytest.fixture
def bridge(d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch) -> Bridge:
    """The product between the simulator and Azurite. It never sleeps: its waits are counted as past."""
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(clock, "sleep", lambda _: None)
    # Messages are visible at once, so that a test need not wait for them.
    look_again = schedule.check_file
    monkeypatch.setattr(
        schedule, "check_file", lambda bridge, file, _: look_again(bridge, file, timedelta(0))
    )
    return make_bridge(d365, account)


def make_bridge(d365: Simulator, account: DataAccount, **changes: object) -> Bridge:
    """A bridge with `JOBS`, in which `changes` replace fields of the import job `journals`."""
    return make_bridge_of("journals", d365, account, **changes)


def make_bridge_of(job: str, d365: Simulator, account: DataAccount, **changes: object) -> Bridge:
    """The same with fields of another import job."""
    raw = json.loads(json.dumps(JOBS))
    next(each for each in raw["imports"] if each["name"] == job).update(changes)
    found = Settings(
        (Environment(ONLY, d365.base_url),),
        Storage("", None, None, None),
        jobs.parse(json.dumps(raw).encode()),
        settings.EXPORT_PARALLELISM,
        timedelta(minutes=30),
    )
    return Bridge(found, new_clients(found), account)


@pytest.fixture
def noted(account: DataAccount, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataAccount]:
    """A data account that keeps a journal of `JOBS`, each line at once, and has none yet."""
    monkeypatch.setattr(journal, "EVERY", 0.0)
    container = account.blobs.get_container_client(journal.JOURNAL)
    if container.exists():
        for found in container.list_blobs():
            container.delete_blob(found.name)
    journal.keep(account, jobs.parse(json.dumps(JOBS).encode()))
    yield account
    listeners.clear()


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[dict[str, Any]]]:
    """The fields of every event of a name that was reported so far."""
    caplog.set_level(logging.INFO, "bridge")

    def of(name: str) -> list[dict[str, Any]]:
        lines = [
            record.getMessage().split(" ", 1)
            for record in caplog.records
            if record.name == "bridge"
        ]
        return [json.loads(rest) for event, rest in lines if event == name]

    return of


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Lets time pass."""
    passed = timedelta(0)

    def wait(more: timedelta) -> None:
        nonlocal passed
        passed += more

    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + passed)
    return wait


def drop(account: DataAccount, name: str, data: bytes = b"1;2;3") -> str:
    """Drop a file into `imports`."""
    account.blobs.get_blob_client(IMPORTS, name).upload_blob(data, overwrite=True)
    return name


def contents(account: DataAccount, container: str) -> dict[str, bytes]:
    """Every blob of a container with its bytes; not what goes away meanwhile."""
    client = account.blobs.get_container_client(container)
    blobs_by_name = {}
    for name in client.list_blob_names():
        with contextlib.suppress(ResourceNotFoundError):
            blobs_by_name[name] = client.download_blob(name).readall()
    return blobs_by_name


def work_queue(bridge: Bridge, rounds: int = 20) -> None:
    """Play the queue trigger until the status queue is empty, waiting for no visibility timeout."""
    for _ in range(rounds):
        queue = bridge.account.queue(STATUS_QUEUE)
        messages = list(queue.receive_messages(visibility_timeout=30))
        for message in messages:
            advance.check_status(bridge, json.loads(message.content))
            queue.delete_message(message)
        if not messages and not queue.get_queue_properties().approximate_message_count:
            return


def try_on(
    bridge: Bridge,
    later: Callable[[timedelta], None],
    time: timedelta,
    step: timedelta,
) -> None:
    """Let so much time pass, in steps, and have each file in processing looked at after each of them."""
    for _ in range(int(time / step)):
        later(step)
        for file in list(files.listed(bridge.account, PROCESSING)):
            advance.check_status(bridge, {"file": file.name, "etag": file.etag})


def only(account: DataAccount, container: str) -> File:
    """The one file of a container."""
    (file,) = files.listed(account, container)
    return file


def report(account: DataAccount) -> dict[str, Any]:
    """The one report of an error."""
    found = contents(account, FAILED)
    (text,) = (data for name, data in found.items() if name.endswith(".error.json"))
    return dict(json.loads(text))
