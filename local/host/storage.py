"""Clients for the storage of a connection, and the form of messages on its queues."""

import base64
import contextlib
import os
from typing import Any, Final

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerClient
from azure.storage.queue import QueueClient, QueueServiceClient

from local.host.settings import Settings
from local.worker import AppFailed
from shared.identity import new_credential

HOSTS: Final = "azure-webjobs-hosts"
"""The container with the host's own data."""


def connect(connection: str) -> tuple[BlobServiceClient, QueueServiceClient]:
    """Clients for a connection: its app settings are a connection string, or service URIs and an identity."""
    options: dict[str, Any] = {"retry_total": 0}
    if text := os.environ.get(connection):
        return (
            BlobServiceClient.from_connection_string(text, **options),
            QueueServiceClient.from_connection_string(text, **options),
        )
    try:
        uris = [os.environ[f"{connection}__{kind}ServiceUri"] for kind in ("blob", "queue")]
    except KeyError as missing:
        raise AppFailed(f"the app setting {missing} is missing (or {connection})") from None
    credential = new_credential(os.environ.get(f"{connection}__clientId"))
    return (
        BlobServiceClient(uris[0], credential=credential, **options),
        QueueServiceClient(uris[1], credential=credential, **options),
    )


def host_container() -> ContainerClient:
    """The container with the host's own data. It is made if it is missing."""
    container = connect("AzureWebJobsStorage")[0].get_container_client(HOSTS)
    with contextlib.suppress(ResourceExistsError):
        container.create_container()
    return container


def encoded(settings: Settings, text: str) -> str:
    """A message's text as it stands on a queue."""
    return text if _plain(settings) else base64.b64encode(text.encode()).decode()


def decoded(settings: Settings, text: str) -> str:
    """A message's text. Raises `ValueError` where it is not base64 and should be."""
    return text if _plain(settings) else base64.b64decode(text, validate=True).decode()


def _plain(settings: Settings) -> bool:
    return settings.host("extensions/queues/messageEncoding", "base64") == "none"


def poison(queue: QueueClient, content: str) -> None:
    """Put a message on a poison queue, where it never expires."""
    with contextlib.suppress(ResourceExistsError):
        queue.create_queue()
    queue.send_message(content, time_to_live=-1)


def line(error: Exception) -> str:
    """The first line of an error's text: errors of storage have many lines."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
