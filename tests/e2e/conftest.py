"""The app in the trigger host, as a process of its own, between Azurite and the simulator."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueServiceClient

from local.azurite import Azurite
from local.host.blobs import QUEUE as INTERNAL_QUEUE
from local.host_process import RunningHost, running_host
from local.simulator import Simulator, identity_settings
from shared.storage.account import DataAccount
from tests.e2e.helpers import NEVER, Start
from tests.helpers import JOBS


@pytest.fixture(params=["placeholder", "direct"])
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The host's options. Workers get their settings by a reload, as on Flex Consumption, or as they start."""
    return ("--direct",) if request.param == "direct" else ()


@pytest.fixture
def start(
    azurite: Azurite,
    account: DataAccount,
    d365: Simulator,
    tmp_path: Path,
    options: tuple[str, ...],
) -> Start:
    """Starts the app; keywords replace app settings, `jobs` the jobs file (a value, or its text)."""
    d365.statuses = ("Processed",)
    forget_events(azurite.connection_string)

    @contextlib.contextmanager
    def running(jobs: object = JOBS, **changes: str) -> Iterator[RunningHost]:
        path = tmp_path / "jobs.json"
        text = jobs if isinstance(jobs, str) else json.dumps(jobs)
        path.write_text(text, encoding="utf-8")
        settings: Mapping[str, str] = {
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "AzureWebJobsStorage": azurite.connection_string,
            "DataStorage": azurite.connection_string,
            "D365_URL": d365.base_url,
            "JOBS_FILE": str(path),
            "EXPORT_SCHEDULE": NEVER,
            "RECONCILE_SCHEDULE": NEVER,
            **identity_settings(d365),
            **changes,
        }
        with running_host(settings, *options) as host:
            yield host

    return running


def forget_events(connection_string: str) -> None:
    """Clear the host's internal queue of what another test left there."""
    with (
        QueueServiceClient.from_connection_string(connection_string) as queues,
        contextlib.suppress(ResourceNotFoundError),
    ):
        queues.get_queue_client(INTERNAL_QUEUE).clear_messages()


@pytest.fixture
def app(start: Start) -> Iterator[RunningHost]:
    """The running app."""
    with start() as host:
        yield host
