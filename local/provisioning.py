"""Makes the containers and the queue in an emulator; in Azure, infra/ does that."""

import contextlib

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from shared.blobs import CONTAINERS, STATUS_QUEUE


def provision(connection_string: str) -> None:
    """Makes what is missing of the containers and the queue."""
    with BlobServiceClient.from_connection_string(connection_string) as blobs:
        for name in CONTAINERS:
            with contextlib.suppress(ResourceExistsError):
                blobs.create_container(name)
    with (
        QueueServiceClient.from_connection_string(connection_string) as queues,
        contextlib.suppress(ResourceExistsError),
    ):
        queues.create_queue(STATUS_QUEUE)
