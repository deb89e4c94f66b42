"""What storage knows of a file: one version of a blob, and its metadata as a typed record."""

import logging
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote

from shared.observability.events import emit

_METADATA_LIMIT: Final = 7 * 1024
_VALUE_LIMIT: Final = 1024


class State(StrEnum):
    """What is known of a file's import. Of a file in processing, the last three say how it ends."""

    NONE = ""
    """Dropped, and not claimed yet; or what another program wrote there."""
    CLAIMED = "claimed"
    """D365 has surely nothing of it."""
    SENDING = "sending"
    """It is being sent; when its worker has ended, nobody can know whether D365 has it."""
    SENT = "sent"
    """D365 has it, under a message id."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    HELD = "held"
    """Nobody can know whether D365 has it, so a person must look."""

    @property
    def is_end(self) -> bool:
        """Whether nothing more happens to the file by itself."""
        return self in (State.SUCCEEDED, State.FAILED, State.HELD)


@dataclass(frozen=True)
class Record:
    """What a file's metadata says of its import. Times are ISO 8601 in UTC, "" where there is none."""

    job: str = ""
    environment: str = ""
    """The D365 that it is sent to. Its status is asked for there, even if the job changes."""
    company: str = ""
    state: State = State.NONE
    source: str = ""
    """Where the file was dropped: its name in `imports`."""
    sourceetag: str = ""
    """Which version of it this is: until that one is deleted, nothing is sent."""
    api: str = ""
    """Not empty: it goes by the package API."""
    externalid: str = ""
    """What we call it in D365: its `x-ms-dyn-externalidentifier`, or the id that we chose for its execution."""
    messageid: str = ""
    """What D365 calls it, since it has it: the id of its message, or of its execution."""
    claimed: str = ""
    traceparent: str = ""
    """The W3C context of its trace, from the claim to the end."""
    stopsjob: str = ""
    """Not empty: once failed, it holds up its job for as long as it lies in `imports-failed`."""
    sender: str = ""
    """Who intends to send it: a random id, so that a worker knows its own intent again."""
    sent: str = ""
    attempts: int = 0
    checks: int = 0
    checked: str = ""
    due: str = ""
    """When the next look at it is due; long past means that its queue message was lost."""
    status: str = ""
    records: str = ""
    """How many of its records D365 has imported, "" where it does not say."""
    entities: str = ""
    """The same of each entity, in words."""
    d365company: str = ""
    """The company, or companies, into which D365 imported it."""
    ended: str = ""
    reason: str = ""
    error: str = ""
    """Of a file that failed or is held: what happened, in a sentence; its report has all of it."""
    tried: str = ""
    """When it was last tried to send it, in vain."""
    spent: int = 0
    """Seconds for which it was tried in vain to send it or, once it is sent, D365 was asked after it."""
    unknown: int = 0
    """Seconds for which D365 was asked for its execution and did not know it."""
    sha256: str = ""
    """Of the file as it was dropped; "" where storage carried it by itself."""
    moved: str = ""
    """Who carried a package into D365's storage: `app`, or `storage` by itself."""
    resolution: str = ""
    """What a person did about it (`actions.Resolution`), with who, when and why."""
    resolvedby: str = ""
    resolved: str = ""
    resolvedwhy: str = ""


@dataclass(frozen=True)
class File:
    """One version of a blob in an imports container."""

    container: str
    name: str
    etag: str
    size: int
    modified: datetime
    record: Record = Record()
    copy_status: str = "success"
    """Of the copy that made this blob; until it is a success, its bytes are not whole."""
    user_metadata: dict[str, str] = field(default_factory=dict)
    """The metadata that came with the dropped file; it stays with it."""
    grows: bool = False
    """An append or a page blob: it is there before its content is, and nobody can see when that is whole."""
    archived: bool = False
    """It lies in the archive tier, where nothing can be read or copied until it is rehydrated."""
    tags: int = 0
    """How many blob index tags it has, as far as the app may know."""


def to_metadata(record: Record, user_metadata: dict[str, str]) -> dict[str, str]:
    """Metadata for a blob: values in ASCII (the rest percent-encoded), empty ones left out.

    Storage takes 8 KiB of it: of `user_metadata`, what has room beside ours is kept, the smallest first.
    """
    ours = {
        item.name: _encode(item.name, value)
        for item in fields(Record)
        if (value := getattr(record, item.name)) not in ("", 0)
    }
    room = _METADATA_LIMIT - sum(len(key) + len(value) for key, value in ours.items())
    kept = {}
    for key, value in sorted(user_metadata.items(), key=lambda item: len(item[0]) + len(item[1])):
        room -= len(key) + len(value)
        if room >= 0 and key.lower() not in _OURS:
            kept[key] = value
    return {**kept, **ours}


def metadata_of(file: File, record: Record) -> dict[str, str]:
    """The metadata to write with a file. What has no room is left out and logged."""
    metadata = to_metadata(record, file.user_metadata)
    lost = sorted(
        key for key in file.user_metadata if key not in metadata and key.lower() not in _OURS
    )
    if lost:
        emit("metadata.dropped", logging.WARNING, job=record.job, file=file.name, keys=lost)
    return metadata


_OURS: Final = frozenset(item.name for item in fields(Record))
_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def header_text(text: str, limit: int = _VALUE_LIMIT) -> str:
    """Text as a header can carry it: percent-encoded, and cut at `limit` characters, but in no escape."""
    encoded = quote(text.strip(), safe=_PRINTABLE, errors="replace")
    if len(encoded) <= limit:
        return encoded
    return re.sub(r"%.?$", "", encoded[: limit - 3]) + "..."


def _encode(name: str, value: object) -> str:
    """A value as a header can carry it. A long path is in base64, so that 8 KiB suffice."""
    if name != "source":
        return header_text(str(value))
    # A path keeps its outer spaces, which a header would lose.
    text = quote(str(value), safe=_PRINTABLE.replace(" ", ""), errors="replace")
    return text if len(text) <= _VALUE_LIMIT else _BASE64 + b64encode(str(value).encode()).decode()


def _decode(value: str) -> str:
    if value.startswith(_BASE64):
        try:
            return b64decode(value.removeprefix(_BASE64), validate=True).decode()
        except ValueError:  # not of our writing
            return value
    return unquote(value)


_BASE64: Final = "base64:"


def from_metadata(metadata: dict[str, str] | None) -> tuple[Record, dict[str, str]]:
    """Our record, and the metadata that is not ours."""
    values = {key.lower(): value for key, value in (metadata or {}).items()}
    ours: dict[str, str | int] = {key: _decode(values[key]) for key in _OURS & values.keys()}
    for name in ("attempts", "checks", "spent", "unknown"):
        text = str(ours.get(name, "0"))
        ours[name] = int(text) if text.isdecimal() else 0
    user_metadata = {k: v for k, v in (metadata or {}).items() if k.lower() not in _OURS}
    state = str(ours.pop("state", ""))
    known = State(state) if state in State else State.NONE
    return Record(**ours, state=known), user_metadata  # type: ignore[arg-type]  # the ints are ints now
