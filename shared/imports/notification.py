"""Notifications: a queue message for each file that failed for good or is held, for programs that notify
people.

The form is that of CloudEvents 1.0 (JSON), so that what takes it up need not know us. A crash at the wrong
moment can repeat one; its `id` is then the same. The JSON Schema (`docs/notification.schema.json`) is made from
these types: `python3 dev.py generate`.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import msgspec
from azure.core.exceptions import ResourceNotFoundError
from msgspec import Meta

from shared import clock
from shared.storage import names
from shared.storage.account import FAILED, NOTIFICATIONS_QUEUE, DataAccount
from shared.storage.records import Record, State

KEPT_SECONDS: Final = 7 * 24 * 3600
"""Where nobody takes them, they go by themselves."""


class File(msgspec.Struct, frozen=True, rename="camel"):
    """What the notification is about."""

    job: str
    environment: Annotated[str, Meta(description="The D365 that it was for, by its name.")]
    company: str
    file: Annotated[str, Meta(description="As it was dropped, below imports/.")]
    blob: Annotated[str, Meta(description="Where it lies now.")]
    report: Annotated[str, Meta(description="The report beside it, with all that D365 said.")]
    reason: Annotated[str, Meta(description="A code; docs/operations.md says what to do for each.")]
    error: str
    todo: str
    message_id: Annotated[str, Meta(description="D365's, empty where it has none.")]
    external_identifier: Annotated[str, Meta(description="What to look for in D365.")]


class Notification(msgspec.Struct, frozen=True):
    """One message."""

    id: Annotated[str, Meta(description="The same where a notification is repeated.")]
    type: Literal["d365-blob-bridge.file.failed", "d365-blob-bridge.file.held"]
    subject: Annotated[str, Meta(description="The file's blob.")]
    time: Annotated[str, Meta(description="ISO 8601, UTC.")]
    data: File
    specversion: Literal["1.0"] = "1.0"
    source: Literal["/d365-blob-bridge"] = "/d365-blob-bridge"
    datacontenttype: Literal["application/json"] = "application/json"


def notify(
    account: DataAccount, record: Record, name: str, error_report: Mapping[str, Any]
) -> None:
    """Put one on the queue. `error_report` is the report of the file, which will lie as `name` under failed."""
    blob = f"{FAILED}/{name}"
    about = File(
        job=record.job,
        environment=record.environment,
        company=record.company,
        file=str(error_report["file"]),
        blob=blob,
        report=names.error_report_name(blob),
        reason=record.reason,
        error=str(error_report["error"]),
        todo=str(error_report["todo"]),
        message_id=record.messageid,
        external_identifier=record.externalid,
    )
    held = record.state == State.HELD
    notification = Notification(
        id=sha256(f"{name}\n{record.state}".encode()).hexdigest()[:32],
        type="d365-blob-bridge.file.held" if held else "d365-blob-bridge.file.failed",
        subject=blob,
        time=clock.text(clock.now()),
        data=about,
    )
    text = _fitting(notification)
    queue = account.queue(NOTIFICATIONS_QUEUE)
    try:
        queue.send_message(text, time_to_live=KEPT_SECONDS)
    except ResourceNotFoundError:
        # A missing queue must not keep the file from being filed.
        queue.create_queue()
        queue.send_message(text, time_to_live=KEPT_SECONDS)


def _fitting(notification: Notification) -> str:
    """Cut to what a queue message holds (64 KiB, 48 KiB before base64). The error report has the whole text."""
    text = msgspec.json.encode(notification).decode()
    if len(text.encode()) > 40_000:
        cut = msgspec.structs.replace(notification.data, error=notification.data.error[:2000] + "…")
        text = msgspec.json.encode(msgspec.structs.replace(notification, data=cut)).decode()
    return text


def schema() -> dict[str, Any]:
    """The JSON Schema of a notification."""
    json_schema = msgspec.json.schema(Notification)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json_schema}
