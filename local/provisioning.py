"""Makes the containers and the queues in an emulator; in Azure, infra/ does that."""

import contextlib

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from shared.blobs import CONTAINERS, QUEUES


def provision(connection_string: str) -> None:
    """Makes what is missing of the containers and the queues."""
    with BlobServiceClient.from_connection_string(connection_string) as blobs:
        for name in CONTAINERS:
            with contextlib.suppress(ResourceExistsError):
                blobs.create_container(name)
    with QueueServiceClient.from_connection_string(connection_string) as queues:
        for name in QUEUES:
            with contextlib.suppress(ResourceExistsError):
                queues.create_queue(name)
