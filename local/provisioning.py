"""Makes the containers and the queue in an emulator; in Azure, infra/ does that."""

import contextlib

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

CONTAINERS = ("exports", "imports", "imports-processing", "imports-succeeded", "imports-failed")
QUEUES = ("import-status",)


def provision(connection_string: str) -> None:
    """Makes what is missing of the five containers and the queue."""
    with BlobServiceClient.from_connection_string(connection_string) as blobs:
        for name in CONTAINERS:
            with contextlib.suppress(ResourceExistsError):
                blobs.create_container(name)
    with QueueServiceClient.from_connection_string(connection_string) as queues:
        for name in QUEUES:
            with contextlib.suppress(ResourceExistsError):
                queues.create_queue(name)
