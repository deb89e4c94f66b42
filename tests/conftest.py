"""Real servers for the tests: Azurite, started once; each test finds its containers and queues empty."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings as hypothesis_settings

from local.azurite import Azurite, running_azurite
from local.containers import provision
from local.simulator import Simulator, identity_settings, running_simulator
from shared import clock
from shared.bridge import Bridge
from shared.config import jobs
from shared.config.settings import Storage
from shared.imports import schedule
from shared.observability.events import listeners
from shared.operations import journal
from shared.storage.account import (
    DataAccount,
    connect,
)
from tests.helpers import (
    D365_STORAGE,
    EXPORT_ID,
    IMPORT_ID,
    JOBS,
    ORDERED_ID,
    PACKAGE_ID,
    Events,
    Later,
    empty,
    make_bridge,
)

# How long an example takes is the machine's affair.
hypothesis_settings.register_profile("no deadline", deadline=None)
hypothesis_settings.load_profile("no deadline")


SLOW: Final = ("e2e", "faults", "infra", "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`dev.py test --quick` leaves out what starts the app or the storage emulator, or compiles."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in SLOW or "azurite" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


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


@pytest.fixture
def noted(account: DataAccount, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataAccount]:
    """A data account that keeps a journal of `JOBS`, each line at once, and has none yet."""
    monkeypatch.setattr(journal, "EVERY", 0.0)
    container = account.blobs.get_container_client(journal.JOURNAL)
    if container.exists():
        for blob in container.list_blobs():
            container.delete_blob(blob.name)
    journal.keep(account, jobs.parse(json.dumps(JOBS).encode()))
    yield account
    listeners.clear()


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Events:
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
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Lets time pass."""
    passed = timedelta(0)

    def wait(more: timedelta) -> None:
        nonlocal passed
        passed += more

    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + passed)
    return wait
