"""The blob trigger. Event Grid starts it by a webhook.

Each event becomes a message on an internal queue of the host's account; each message becomes a call.
Events are treated as the Azure WebJobs storage extension 5.3.10 was seen to treat them. Microsoft Learn has the
contract of the webhook: "Endpoint validation with Event Grid event schema" and "Trigger Azure Functions on blob
containers using an event subscription".
"""

import contextlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient

from local.host.functions import App
from local.host.queues import Reading, read
from local.host.storage import connect, decoded, encoded, poison
from local.protocol import Function, Typed

log = logging.getLogger("host")

WEBHOOK: Final = "/runtime/webhooks/blobs"
POISON: Final = "webjobs-blobtrigger-poison"
QUEUE: Final = "azure-webjobs-blobtrigger-stand-in"
"""The internal queue; in Azure its name ends in the host's id."""
LONGEST_IDLE: Final = 60.0
"""The longest wait between two reads of an idle internal queue, in seconds. An event ends it."""


class InvalidEvent(ValueError):
    """An event has no URL of a blob. The events before it were accepted."""


class BlobTrigger:
    """The blob trigger of all functions that have one."""

    def __init__(self, app: App, functions: Sequence[Function]) -> None:
        """Raises `AppFailed`."""
        self._app = app
        self._functions = {f"Host.Functions.{each.name}": each for each in functions}
        self._queue = self._internal_queue()
        self._waker = threading.Event()

    def notify(self, function_id: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Accept Event Grid's events for a function. Raises `InvalidEvent`.

        Events for an unknown function, or of a blob that no longer exists, are ignored. The container is not
        compared with the function's path: only the event subscription's filter chooses.
        """
        for event in events:
            url = str((event.get("data") or {}).get("url") or "")
            if not url:
                raise InvalidEvent("an event has no data.url")
            function = self._functions.get(function_id)
            if function is None:
                continue
            container, name = located(url, self._blobs(function).url)
            etag = self._etag(function, container, name)
            if etag is None:
                continue
            message = {
                "Type": "BlobTrigger",
                "FunctionId": function_id,
                "BlobType": "BlockBlob",
                "ContainerName": container,
                "BlobName": name,
                "ETag": etag,
            }
            self._queue.send_message(encoded(self._app.settings, json.dumps(message)))
            self._waker.set()

    def read(self) -> None:
        """Handle the messages of the internal queue until the host stops."""
        host = self._app.settings.host
        at_once = int(host("extensions/blobs/maxDegreeOfParallelism", "8"))
        reading = Reading(
            queue=self._queue,
            call=self._call,
            give_up=self._give_up,
            batch=at_once - at_once // 2,
            threshold=at_once // 2,
            tries=int(host("extensions/blobs/poisonBlobThreshold", "5")),
            later=0.0,
            longest=LONGEST_IDLE,
            waker=self._waker,
        )
        read(reading, self._app.stopping)

    def _call(self, text: str, _: Any) -> None:
        message = json.loads(decoded(self._app.settings, text))
        function = self._functions.get(message["FunctionId"])
        container, name = message["ContainerName"], message["BlobName"]
        # The ETag is not compared: the function gets the current version, even a newer one.
        if function and self._etag(function, container, name):
            self._app.invoke(function, *reference(function, container, name))

    def _give_up(self, content: str) -> None:
        message = json.loads(decoded(self._app.settings, content))
        function = self._functions[message["FunctionId"]]
        _, queues = connect(str(function.trigger["connection"]))
        poison(queues.get_queue_client(POISON), content)

    def _internal_queue(self) -> QueueClient:
        _, queues = connect("AzureWebJobsStorage")
        queue = queues.get_queue_client(QUEUE)
        with contextlib.suppress(ResourceExistsError):
            queue.create_queue()
        return queue

    @staticmethod
    def _blobs(function: Function) -> BlobServiceClient:
        return connect(str(function.trigger["connection"]))[0]

    def _etag(self, function: Function, container: str, name: str) -> str | None:
        blob = self._blobs(function).get_blob_client(container, name)
        try:
            return str(blob.get_blob_properties().etag)
        except ResourceNotFoundError:
            return None


def located(url: str, account_url: str) -> tuple[str, str]:
    """The container and the blob name in an event's URL, unescaped.

    They follow the account, which is the host name, or for an emulator the first part of the path. Characters
    that were not escaped are lost: the name ends at a `?`, a backslash becomes a slash, a last blank goes.
    """
    path = urlsplit(url.strip().replace("\\", "/")).path
    skipped = len([part for part in urlsplit(account_url).path.split("/") if part])
    container, _, name = path.lstrip("/").split("/", skipped)[-1].partition("/")
    return unquote(container), unquote(name)


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
