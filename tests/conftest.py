"""Real servers for the tests: Azurite, started once; each test finds its containers and queues empty."""

from collections.abc import Iterator

import pytest
from azure.core.exceptions import ResourceNotFoundError

from local.azurite import Azurite, running_azurite
from local.provisioning import provision
from shared import blobs
from shared.blobs import DataAccount
from shared.settings import Storage


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """The storage emulator, with containers and queue."""
    with running_azurite() as running:
        provision(running.connection_string)
        yield running


@pytest.fixture
def account(azurite: Azurite) -> DataAccount:
    """The data account, empty."""
    account = blobs.connect(Storage(azurite.connection_string, None, None, None))
    empty(account)
    return account


def empty(account: DataAccount) -> None:
    """Delete every blob and message."""
    for name in blobs.CONTAINERS:
        container = account.blobs.get_container_client(name)
        for found in container.list_blobs():
            container.delete_blob(found.name, delete_snapshots="include")
    for queue in (blobs.STATUS_QUEUE, *blobs.POISON_QUEUES):
        try:
            account.queue(queue).clear_messages()
        except ResourceNotFoundError:
            continue
