"""One attempt to send a file: reads its bytes, writes the intent before, and the result after."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from io import SEEK_END
from typing import IO, Any, Final
from uuid import uuid4

from shared import clock, deadline
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.d365.errors import D365Error, Uncertain
from shared.imports import outcome, schedule
from shared.imports.routing import is_package
from shared.imports.templates import InvalidTemplate
from shared.observability.events import emit
from shared.storage import files, transfer
from shared.storage.records import File, State

GIVE_UP: Final = timedelta(days=1)
"""For so long a file that D365 does not take (busy, not reached, not accepting the app) is retried."""

KEPT_BACK: Final = 60.0
"""Seconds at the end of an invocation in which what came of a file is written down, and nothing waited for."""

LONGEST_DELAY: Final = timedelta(minutes=15)
"""Between two tries, unless D365 asks for longer."""


class NotItsTurn(Exception):
    """Of an ordered job another file goes first, or has failed and stops the job."""


@dataclass
class Content:
    """What is sent of a file: its own bytes, or the package that a template made of it."""

    length: int
    package: IO[bytes] | None = None
    file_sha256: str = ""
    """The file's own SHA-256, where it is sent in a package."""
    moved: str = ""
    """Who carried the bytes of a package into D365's storage: `app`, or `storage` by itself."""
    _digest: Any = None

    @property
    def sha256(self) -> str:
        """The file's own, once all of it was read; "" where storage carried it by itself."""
        return self.file_sha256 or (str(self._digest.hexdigest()) if self._digest else "")

    def read(self, bridge: Bridge, file: File) -> Iterator[bytes]:
        """The bytes, anew at each call, of the present version of the file."""
        if self.package:
            self.package.seek(0)
            yield from iter(lambda: self.package.read(transfer.BLOCK), b"")  # type: ignore[union-attr]
            return
        self._digest = hashlib.sha256()
        blob = bridge.account.blobs.get_blob_client(file.container, file.name)
        yield from transfer.load(blob, file.etag, file.size, self._digest.update)

    def is_package(self, file: File) -> bool:
        """Whether a data package is sent, which names its entities itself."""
        return self.package is not None or is_package(file.name)


def of_package(package: IO[bytes], sha256: str) -> Content:
    """The content of a file that is sent in a package; `sha256` is the file's."""
    return Content(package.seek(0, SEEK_END), package, sha256)


def in_time() -> AbstractContextManager[None]:
    """The time of an attempt: what is left of the invocation, less what is kept back."""
    return deadline.within(deadline.left() - min(KEPT_BACK, deadline.left() / 2))


def intend(bridge: Bridge, file: File) -> File:
    """Write down that a file is being sent, by one worker alone. Raises `Conflict` at all others."""
    due = clock.text(clock.now() + bridge.settings.function_timeout)
    intent = replace(file.record, state=State.SENDING, sender=uuid4().hex, due=due)
    return files.update(bridge.account, file, intent)


def note_sent(bridge: Bridge, job: ImportJob, file: File, id_: str, content: Content) -> None:
    """Write down that D365 has the file, under its message id or execution id, and have it asked after."""
    emit(
        "file.sent",
        job=job.name,
        file=file.name,
        messageId=id_,
        externalId=file.record.externalid,
        bytes=content.length,
    )
    record = replace(
        file.record,
        state=State.SENT,
        messageid=id_,
        sent=clock.text(clock.now()),
        sha256=content.sha256,
        moved=content.moved,
        reason="",
        tried="",
        spent=0,
        unknown=0,
    )
    schedule.check_later(bridge, file, record, schedule.check_delay(0))


def retry_later(
    bridge: Bridge, job: ImportJob, file: File, error: D365Error | InvalidTemplate | OSError
) -> None:
    """The file could not be sent now: try again later, or give it up after too long."""
    record = file.record
    if record.spent > GIVE_UP.total_seconds():
        doubt = "vanished" if record.api else "uncertain"
        reasons = {Uncertain: doubt, InvalidTemplate: "no-template"}
        reason = reasons.get(type(error), "unavailable")
        outcome.fail(bridge.account, file, record, reason, str(error))
        return
    retry_after = error.retry_after if isinstance(error, D365Error) else None
    delay = next_delay(file) if retry_after is None else timedelta(seconds=max(1.0, retry_after))
    tried = clock.text(clock.now())
    reschedule(bridge, replace(file, record=replace(record, tried=tried)), delay, str(error))
    emit(
        "file.waiting",
        level=logging.WARNING,
        job=job.name,
        file=file.name,
        reason=str(error),
        retryInSeconds=round(delay.total_seconds()),
    )


def next_delay(file: File) -> timedelta:
    """How long to wait before the next try: seconds at first, minutes later."""
    return min(timedelta(seconds=2 * 2 ** min(file.record.attempts, 10)), LONGEST_DELAY)


def reschedule(bridge: Bridge, file: File, delay: timedelta, reason: str) -> None:
    """Have a file that was surely not taken sent after `delay`."""
    record = replace(file.record, state=State.CLAIMED, reason=reason)
    schedule.check_later(bridge, file, record, delay)
