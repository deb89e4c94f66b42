"""Makes the containers and queues on this machine; in Azure, `infra/` makes them."""

import contextlib

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from shared.storage.account import CONTAINERS, QUEUES


def provision(connection_string: str) -> None:
    """Makes the missing containers and queues in an emulator."""
    with (
        BlobServiceClient.from_connection_string(connection_string) as blobs,
        QueueServiceClient.from_connection_string(connection_string) as queues,
    ):
        make_missing(blobs, queues)


def make_missing(blobs: BlobServiceClient, queues: QueueServiceClient) -> None:
    """Makes the missing containers and queues. Raises `AzureError`."""
    for name in CONTAINERS:
        with contextlib.suppress(ResourceExistsError):
            blobs.create_container(name)
    for name in QUEUES:
        with contextlib.suppress(ResourceExistsError):
            queues.create_queue(name)
