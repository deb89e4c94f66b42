"""What the app does to Azure, what that needs, and what each role lets it do.

Sources: the actions of each storage operation are those of Microsoft Learn, "Authorize with Microsoft Entra ID"
(Storage Services REST API reference), sections on permissions for blob and queue service operations; the
roles are those of "Azure built-in roles"; what the Functions host needs is in "Azure Functions reference for
hosts", "Connecting to host storage with an identity", and in the extensions' own source.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from azure.storage.blob import BlobClient, BlobServiceClient, ContainerClient
from azure.storage.queue import QueueClient, QueueServiceClient

BLOB_READ, BLOB_WRITE, BLOB_DELETE = "blobs/read", "blobs/write", "blobs/delete"
DELEGATION_KEY = "generateUserDelegationKey/action"
MESSAGE_ADD, MESSAGE_PROCESS, MESSAGE_WRITE, MESSAGE_READ = (
    "messages/add/action",
    "messages/process/action",
    "messages/write",
    "messages/read",
)

CALLS: Final[dict[str, frozenset[str]]] = {
    name: frozenset(actions)
    for name, actions in {
        # blobs
        "list_blobs": {BLOB_READ},
        "walk_blobs": {BLOB_READ},
        "get_blob_properties": {BLOB_READ},
        "exists": {BLOB_READ},
        "download_blob": {BLOB_READ},
        "upload_blob": {BLOB_WRITE},
        "create_append_blob": {BLOB_WRITE},
        "append_block": {BLOB_WRITE},
        "stage_block": {BLOB_WRITE},
        "stage_block_from_url": {BLOB_WRITE},  # the source is read by what its URL allows
        "commit_block_list": {BLOB_WRITE},
        "get_block_list": {BLOB_READ},
        "set_blob_metadata": {BLOB_WRITE},
        "start_copy_from_url": {BLOB_READ, BLOB_WRITE},
        # They want Owner; where they are refused, a file goes on without its tags.
        "get_blob_tags": set(),
        "set_blob_tags": set(),
        "delete_blob": {BLOB_DELETE},
        "acquire_lease": {BLOB_WRITE},
        "get_user_delegation_key": {DELEGATION_KEY},
        "create_container": {"containers/write"},
        # queues
        "create_queue": {"queues/write"},
        "send_message": {MESSAGE_ADD},
        "receive_messages": {MESSAGE_PROCESS},
        "delete_message": {MESSAGE_PROCESS},
        "peek_messages": {MESSAGE_READ},
        "get_queue_properties": {"queues/read"},
        # no request
        "close": set(),
        "from_blob_url": set(),
        "from_connection_string": set(),
        "get_blob_client": set(),
        "get_container_client": set(),
        "get_queue_client": set(),
    }.items()
}
"""What each call of the storage SDKs needs; a call that the code makes and that is not here is reported."""

HOST_NEEDS: Final = {
    # The host prolongs the message that is worked on (Update Message), and makes the poison queue.
    "queueTrigger": {MESSAGE_PROCESS, MESSAGE_WRITE, MESSAGE_ADD, "queues/read", "queues/write"},
    # It reads the blob of the event, and puts an event that failed five times into the poison queue.
    "blobTrigger": {BLOB_READ, MESSAGE_ADD, "queues/write"},
    "timerTrigger": set[str](),
    "httpTrigger": set[str](),
}
"""What the host does with a trigger's own connection."""

HOST_STORAGE: Final = {
    # "Storage Blob Data Owner" is what the page asks for; locks are leases, keys and the package are blobs.
    BLOB_READ,
    BLOB_WRITE,
    BLOB_DELETE,
    "blobs/manageOwnership/action",
    "containers/read",
    "containers/write",
    # The blob trigger's own queue.
    MESSAGE_PROCESS,
    MESSAGE_WRITE,
    MESSAGE_ADD,
    "queues/read",
    "queues/write",
    # Diagnostic events.
    "tables/read",
    "tables/write",
    "entities/read",
    "entities/write",
    "entities/add/action",
}
"""What the host does with AzureWebJobsStorage."""

DEAD_LETTERS: Final = {BLOB_WRITE}
TELEMETRY: Final = {"Insights/Telemetry/Write"}


@dataclass(frozen=True)
class Role:
    """A built-in role, as far as it bears on what is used here."""

    name: str
    actions: frozenset[str]


def _role(name: str, *actions: str) -> Role:
    return Role(name, frozenset(actions))


_CONTAINERS = ("containers/read", "containers/write", "containers/delete", DELEGATION_KEY)
_BLOBS = (BLOB_READ, BLOB_WRITE, BLOB_DELETE, "blobs/add/action", "blobs/move/action")
_QUEUES = ("queues/read", "queues/write", "queues/delete")
_MESSAGES = (MESSAGE_READ, MESSAGE_WRITE, MESSAGE_ADD, MESSAGE_PROCESS, "messages/delete")
_TABLES = ("tables/read", "tables/write", "tables/delete")
_ENTITIES = ("read", "write", "delete", "add/action", "update/action")
_OWNER = (*_CONTAINERS, *_BLOBS, "blobs/manageOwnership/action", "blobs/tags/write")

ROLES: Final = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": _role("Storage Blob Data Owner", *_OWNER),
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": _role(
        "Storage Blob Data Contributor", *_CONTAINERS, *_BLOBS
    ),
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": _role(
        "Storage Blob Data Reader", "containers/read", BLOB_READ, DELEGATION_KEY
    ),
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": _role(
        "Storage Queue Data Contributor", *_QUEUES, *_MESSAGES
    ),
    "8a0f0c08-91a1-4084-bc3d-661d67233fed": _role(
        "Storage Queue Data Message Processor", MESSAGE_READ, MESSAGE_PROCESS
    ),
    "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a": _role("Storage Queue Data Message Sender", MESSAGE_ADD),
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": _role(
        "Storage Table Data Contributor", *_TABLES, *(f"entities/{each}" for each in _ENTITIES)
    ),
    "3913510d-42f4-4e42-8a64-420c390055eb": _role("Monitoring Metrics Publisher", *TELEMETRY),
}
"""The roles that may be assigned, and the narrower ones that might do in their place."""


@cache
def needs_of(files: tuple[Path, ...]) -> tuple[set[str], list[str]]:
    """What the storage calls in these files need, and the calls of which nothing is known here."""
    clients = (BlobClient, ContainerClient, BlobServiceClient, QueueClient, QueueServiceClient)
    methods = {name for client in clients for name in dir(client) if not name.startswith("_")}
    needs: set[str] = set()
    unknown: list[str] = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = node.func.attr
                if name in CALLS:
                    needs |= CALLS[name]
                elif name in methods:
                    unknown.append(
                        f"{path.name}:{node.lineno}: {name}: say in roles.py what it needs"
                    )
    return needs, unknown


def compare(where: str, needs: set[str], assigned: Iterable[str]) -> list[str]:
    """What of the needs no role covers, and each role that is not needed or broader than need be."""
    wrong: list[str] = []
    known = [ROLES[each] for each in assigned if each in ROLES]
    wrong += [
        f"{where}: {each} is no role that these checks know"
        for each in assigned
        if each not in ROLES
    ]
    granted = frozenset[str]().union(*(role.actions for role in known))
    if missing := needs - granted:
        wrong.append(f"{where}: no role allows {', '.join(sorted(missing))}")
    for role in known:
        others = frozenset[str]().union(*(each.actions for each in known if each is not role))
        due = (needs & role.actions) - others
        if not due:
            wrong.append(f"{where}: {role.name} is not needed")
        for other in ROLES.values():
            if due <= other.actions < role.actions:
                wrong.append(f"{where}: {role.name} is broader than needed: {other.name} does")
    return wrong
