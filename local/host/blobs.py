"""The blob trigger: polls a container, as Azurite has no Event Grid."""

import contextlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Final

from azure.core.exceptions import AzureError

from local.host.invoking import App
from local.host.settings import resolved
from local.host.storage import connect, encoded, line, poison
from local.worker import Function, InvocationFailed, Typed

log = logging.getLogger("host")

POLL: Final = 0.5
POISON: Final = "webjobs-blobtrigger-poison"


def events(app: App, function: Function) -> Callable[[], None]:
    """What runs a function for each new version of a blob. Raises `AppFailed`."""
    container_name, _, pattern = resolved(str(function.trigger["path"])).partition("/")
    blobs, queues = connect(str(function.trigger["connection"]))
    container = blobs.get_container_client(container_name)
    folder = pattern.partition("{")[0]
    tries = int(app.settings.host("extensions/blobs/poisonBlobThreshold", "5"))
    at_once = int(app.settings.host("extensions/blobs/maxDegreeOfParallelism", "8"))
    pool = ThreadPoolExecutor(at_once, thread_name_prefix=function.name)
    seen: set[tuple[str, str]] = set()

    def deliver(name: str, etag: str) -> None:
        for _ in range(tries):
            if app.stopping.is_set():
                return
            try:
                app.invoke(function, *reference(function, container_name, name))
                return
            except InvocationFailed:
                app.stopping.wait(0.2)
        given_up = {
            "FunctionId": f"Host.Functions.{function.name}",
            "BlobType": "BlockBlob",
            "ContainerName": container_name,
            "BlobName": name,
            "ETag": etag,
        }
        log.error("%s: %s goes to %s", function.name, name, POISON)
        with contextlib.suppress(AzureError):
            text = encoded(app.settings, json.dumps(given_up))
            poison(queues.get_queue_client(POISON), text)

    def poll() -> None:
        while not app.stopping.wait(POLL):
            try:
                there = {
                    (found.name, str(found.etag))
                    for found in container.list_blobs(name_starts_with=folder or None)
                }
            except AzureError as error:
                log.warning("%s can't be listed: %s", container_name, line(error))
                app.stopping.wait(2)
                continue
            new = there - seen
            seen.intersection_update(there)
            seen.update(new)
            if app.deliver_events:
                for name, etag in sorted(new):
                    pool.submit(deliver, name, etag)
        pool.shutdown(cancel_futures=True)

    return poll


def reference(function: Function, container: str, name: str) -> tuple[Typed, dict[str, Typed]]:
    """A blob as the host hands it to an SDK-type binding: a reference, never its content."""
    content = {
        "Connection": function.trigger["connection"],
        "ContainerName": container,
        "BlobName": name,
    }
    model = SimpleNamespace(
        version="1.0",
        source="AzureStorageBlobs",
        content_type="application/json",
        content=json.dumps(content).encode(),
    )
    metadata = {
        "BlobTrigger": Typed("string", f"{container}/{name}"),
        "name": Typed("string", name),
    }
    return Typed("model_binding_data", model), metadata
