"""The record of a job's export of a data project: the export that is under way, or the last one.

The container `state` has an empty blob `executions/{job}` for each job, with an `Execution` in its metadata.
It is written under the blob's lease, and only if nobody wrote before: of all workers one goes on with a job. An
export that has ended is noted in `exports-delivered`, as `{job}/executions/{execution id}`: what the page shows
of the last weeks. `infra/` deletes these notes as it does the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient

from shared import clock
from shared.observability.events import redact
from shared.storage import leases
from shared.storage.account import DELIVERED, STATE, DataAccount
from shared.storage.errors import Conflict
from shared.storage.records import header_text

TEXT_LIMIT: Final = 900
"""Characters of a value, percent-encoded: storage takes 8 KiB of metadata in all."""


class State(StrEnum):
    """How far an export has come."""

    PLANNED = "planned"
    """It is due. D365 was surely not asked for it."""
    ASKING = "asking"
    """D365 is being asked, or was asked and its answer lost: the execution's status shows which."""
    RUNNING = "running"
    """D365 has it; at its end the package is fetched."""
    ENDING = "ending"
    """How it ended is written down, and has yet to be told."""
    ENDED = "ended"
    """Nothing is under way."""


class Outcome(StrEnum):
    """How an export ended."""

    STORED = "stored"
    PARTIAL = "partial"
    """Stored, and D365 says that it lacks records."""
    FAILED = "failed"


@dataclass(frozen=True)
class Execution:
    """One export of a data project. Times are ISO 8601 in UTC, "" where there is none."""

    state: str = State.ENDED
    executionid: str = ""
    due: str = ""
    """The time of the schedule that it is for, or when a person asked for it. The next one is after that."""
    by: str = ""
    """Who asked for it, where it was a person, and why."""
    why: str = ""
    began: str = ""
    requested: str = ""
    """When D365 was asked for it last, before the request went out."""
    requests: int = 0
    """So often it was."""
    running: str = ""
    """Since when it is known that D365 has it."""
    checks: int = 0
    look: str = ""
    """When to look at it next; long past means that its queue message was lost."""
    status: str = ""
    """D365's last word."""
    overdue: str = ""
    """When it was reported that D365 takes long."""
    ended: str = ""
    outcome: str = ""
    blob: str = ""
    size: int = 0
    moved: str = ""
    """Who carried the package's bytes: `app` or `storage`."""
    error: str = ""

    @property
    def under_way(self) -> bool:
        """Whether something is left to do for it."""
        return self.state != State.ENDED


class Held:
    """A job's execution, of which the lease is held: nobody else writes it meanwhile."""

    def __init__(self, blob: BlobClient, lease: str) -> None:
        self._blob, self._lease = blob, lease
        properties = blob.get_blob_properties()
        self.etag = str(properties.etag)
        self.execution = _decode(properties.metadata)

    def write(self, execution: Execution) -> None:
        """Write the execution down as it is now. Raises `Conflict` where the lease was lost to another."""
        try:
            answer = self._blob.set_blob_metadata(
                _encode(execution),
                lease=self._lease,
                etag=self.etag,
                match_condition=MatchConditions.IfNotModified,
            )
        except HttpResponseError as error:
            if error.status_code not in (404, 409, 412):
                raise
            # A write whose answer was lost is tried again by the SDK, and then meets its own first try.
            properties = self._blob.get_blob_properties()
            if _decode(properties.metadata) != _decode(_encode(execution)):
                raise Conflict(self._blob.blob_name) from error
            answer = {"etag": properties.etag}
        self.etag, self.execution = str(answer["etag"]), execution


def read(account: DataAccount, job: str) -> tuple[Execution, str] | None:
    """A job's execution and the ETag of what was read; None where the job is new."""
    try:
        properties = _state_blob(account, job).get_blob_properties()
    except ResourceNotFoundError:
        return None
    return _decode(properties.metadata), str(properties.etag)


def begin_to_count(account: DataAccount, job: str, now: datetime) -> None:
    """Let a new job's due times count from now on."""
    with suppress(ResourceExistsError, ResourceModifiedError):
        _state_blob(account, job).upload_blob(
            b"", overwrite=False, metadata=_encode(Execution(due=clock.text(now)))
        )


@contextmanager
def held(account: DataAccount, job: str) -> Iterator[Held]:
    """Hold a job's execution. Raises `leases.Taken` while another worker goes on with it."""
    blob = _state_blob(account, job)
    with leases.held(blob) as lease:
        yield Held(blob, lease)


def note(account: DataAccount, job: str, execution: Execution) -> None:
    """Note an execution that has ended."""
    blob = account.blobs.get_blob_client(DELIVERED, f"{_notes(job)}{execution.executionid}")
    blob.upload_blob(b"", overwrite=True, metadata=_encode(execution))


def last(account: DataAccount, job: str, number: int) -> list[Execution]:
    """The last executions of a job that ended, the newest first."""
    container = account.blobs.get_container_client(DELIVERED)
    notes = container.list_blobs(name_starts_with=_notes(job), include=["metadata"])
    executions = [_decode(each.metadata) for each in notes]
    return sorted(executions, key=lambda each: each.due, reverse=True)[:number]


def _notes(job: str) -> str:
    return f"{job}/executions/"


def _state_blob(account: DataAccount, job: str) -> BlobClient:
    return account.blobs.get_blob_client(STATE, f"executions/{job}")


_NUMBERS: Final = ("requests", "checks", "size")


def _encode(execution: Execution) -> dict[str, str]:
    """Metadata in ASCII; empty values are left out."""
    return {
        name: header_text(redact(str(value)), TEXT_LIMIT)
        for name, value in asdict(execution).items()
        if value not in ("", 0)
    }


def _decode(metadata: dict[str, str] | None) -> Execution:
    texts = {name.lower(): unquote(value) for name, value in (metadata or {}).items()}
    values: dict[str, Any] = {
        each.name: texts[each.name] for each in fields(Execution) if each.name in texts
    }
    for name in _NUMBERS:
        text = values.get(name, "0")
        values[name] = int(text) if text.isdecimal() else 0
    return Execution(**values)
