"""Stands in for Event Grid: watches a container and posts `BlobCreated` events to the host's webhook.

Each new ETag is an event. As with Event Grid, it is delivered at least once, names the blob but not its
version, waits while the host is down, and is not sent again after the webhook has answered 202. The host's
storage keeps which versions were delivered, so that this outlives the host.
"""

import contextlib
import json
import logging
import threading
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote
from uuid import uuid4

import requests
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob import BlobProperties, ContainerClient

from local.host.blobs import WEBHOOK
from local.host.settings import resolved
from local.host.storage import connect, host_container, line
from local.protocol import Function

log = logging.getLogger("event-grid")

POLL: Final = 0.5
"""Seconds between two listings of the container."""
AT_ONCE: Final = 20
"""The most events in one request."""

type Version = tuple[str, str]
"""Name and ETag."""


class Subscription:
    """An event subscription for a function's container."""

    def __init__(self, host_url: str, key: str, function: Function) -> None:
        """Raises `AppFailed`."""
        self.delivers = True
        """False: events are lost, for tests."""
        name = resolved(str(function.trigger["path"])).partition("/")[0]
        self._container = connect(str(function.trigger["connection"]))[0].get_container_client(name)
        self._memory = host_container().get_blob_client(f"event-grid/{name}.json")
        query = f"functionName=Host.Functions.{function.name}&code={quote(key)}"
        self._webhook = f"{host_url}{WEBHOOK}?{query}"

    def deliver(self, stopping: threading.Event) -> None:
        """Deliver events until the host stops."""
        self._shake_hands()
        done = self._remembered()
        while not stopping.wait(POLL):
            try:
                done = self._look(done)
            except (AzureError, requests.RequestException) as error:
                log.warning("events can't be delivered now: %s", line(error))
                stopping.wait(2)

    def _look(self, done: set[Version]) -> set[Version]:
        """Deliver an event for each new version. Returns the delivered versions that still exist."""
        blobs = {(str(blob.name), str(blob.etag)): blob for blob in self._container.list_blobs()}
        delivered = done & blobs.keys()
        new = sorted(blobs.keys() - delivered)
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            if self.delivers:
                self._post("Notification", [event(self._container, blobs[each]) for each in part])
            delivered |= set(part)
            self._memory.upload_blob(json.dumps(sorted(delivered)), overwrite=True)
        return delivered

    def _shake_hands(self) -> None:
        code = str(uuid4())
        data = {"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent"}
        response = self._post(
            "SubscriptionValidation", [{**data, "data": {"validationCode": code}}]
        )
        if response.json() != {"validationResponse": code}:
            log.error("the webhook does not answer the handshake: there will be no events")

    def _post(self, kind: str, events: list[dict[str, object]]) -> requests.Response:
        response = requests.post(
            self._webhook, json=events, headers={"aeg-event-type": kind}, timeout=60
        )
        response.raise_for_status()
        return response

    def _remembered(self) -> set[Version]:
        with contextlib.suppress(ResourceNotFoundError):
            kept = json.loads(self._memory.download_blob().readall())
            return {(name, etag) for name, etag in kept}
        return set()


def event(container: ContainerClient, blob: BlobProperties) -> dict[str, object]:
    """A `BlobCreated` event (Microsoft Learn, "Azure Blob Storage as an Event Grid source", section
    Microsoft.Storage.BlobCreated event), its address escaped as Event Grid escapes it."""
    url = f"{container.url.partition('?')[0]}/{quote(str(blob.name), safe='/~')}"
    return {
        "topic": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/local/providers/"
        f"Microsoft.Storage/storageAccounts/{container.account_name}",
        "subject": f"/blobServices/default/containers/{container.container_name}/blobs/{blob.name}",
        "eventType": "Microsoft.Storage.BlobCreated",
        "eventTime": datetime.now(UTC).isoformat(),
        "id": str(uuid4()),
        "data": {
            "api": "PutBlob",
            "requestId": str(uuid4()),
            "eTag": str(blob.etag).strip('"'),
            "contentType": blob.content_settings.content_type,
            "contentLength": blob.size,
            "blobType": "BlockBlob",
            "url": url,
        },
        "dataVersion": "",
        "metadataVersion": "1",
    }
