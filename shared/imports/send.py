"""Send a claimed file to D365, or put it in line for later.

The intent is written down before D365 gets the first byte (I1), and the message id after it has answered. What
nobody can know of a file in between, the job's `whenUncertain` decides (I2).
"""

import hashlib
import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import SEEK_END
from tempfile import SpooledTemporaryFile
from typing import IO, Final
from uuid import uuid4

from azure.core.exceptions import ResourceModifiedError

from shared import clock, deadline
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.d365.errors import D365Error, Rejected, Uncertain
from shared.imports import data_package, outcome, schedule, templates, turns
from shared.imports.routing import is_package
from shared.imports.templates import InvalidTemplate, WrongFormat
from shared.observability.events import emit
from shared.observability.tracing import span
from shared.storage import files, transfer
from shared.storage.errors import Conflict
from shared.storage.records import File

GIVE_UP: Final = timedelta(days=1)
"""For so long a file that D365 does not take (busy, not reached, not accepting the app) is sent again."""

KEPT_BACK: Final = 60.0
"""Seconds at the end of an invocation in which what came of a file is written down, and nothing waited for."""

LONGEST_DELAY: Final = timedelta(minutes=15)
"""Between two tries, unless D365 asks for longer."""


class NotItsTurn(Exception):
    """Of an ordered job another file goes first, or has failed and stops the job."""


def send(bridge: Bridge, job: ImportJob, file: File) -> None:
    """Send a claimed file and record its message id. Raises `Conflict` when another worker has it."""
    record = file.record
    spent = record.spent + schedule.time_spent(bridge, record.tried, record.due)
    tried = record.tried and clock.text(clock.now())
    record = replace(record, attempts=record.attempts + 1, spent=spent, tried=tried)
    with span("send file", record.traceparent, job=job.name, file=file.name):
        _check_and_send(bridge, job, replace(file, record=record))


def _check_and_send(bridge: Bridge, job: ImportJob, file: File) -> None:
    """What can be told of a file without D365 is told before it is sent."""
    try:
        if is_package(file.name):
            blob = bridge.account.blobs.get_blob_client(file.container, file.name)
            data_package.check(transfer.reader(blob, file.size))
        elif job.template:
            with SpooledTemporaryFile(max_size=transfer.BLOCK) as package:
                # Before the intent is written: a wrong template or a full disk leaves no doubt about the file.
                sha256 = _wrap(bridge, job.template, job, file, package)
                _send(bridge, job, file, package, sha256)
            return
        _send(bridge, job, file)
    except data_package.NotAPackage as error:
        outcome.fail(bridge.account, file, file.record, "bad-package", str(error))
    except WrongFormat as error:
        outcome.fail(bridge.account, file, file.record, "wrong-format", str(error))
    except (InvalidTemplate, OSError) as error:
        retry_later(bridge, job, file, error)


def _wrap(bridge: Bridge, template: str, job: ImportJob, file: File, package: IO[bytes]) -> str:
    """Write the file's data package; the SHA-256 of the file.

    Raises `InvalidTemplate`, `WrongFormat` and `Conflict`.
    """
    found = templates.fetch(bridge.account, template, job.entity)
    digest = hashlib.sha256()

    blob = bridge.account.blobs.get_blob_client(file.container, file.name)
    content = transfer.load(blob, file.etag, file.size, digest.update)
    try:
        templates.wrap(found, templates.in_format(found.format, content), file.size, package)
    except ResourceModifiedError as error:
        raise Conflict(file.name) from error
    return digest.hexdigest()


def _send(
    bridge: Bridge,
    job: ImportJob,
    file: File,
    package: IO[bytes] | None = None,
    sha256: str = "",
) -> None:
    """Send a file, or the package in which it is; `sha256` is the file's where there is a package."""
    digest = hashlib.sha256()
    blob = bridge.account.blobs.get_blob_client(file.container, file.name)

    def body() -> Iterator[bytes]:
        nonlocal digest, file
        if file.record.state == "claimed":
            # I1: the intent is written down before D365 gets the first byte, by one worker alone; and not
            # earlier: while it waits for a token or for D365's leave, a worker may die without a doubt.
            file = _intend(bridge, file)
            if job.ordered and not turns.is_turn_of(bridge, job, file):
                raise NotItsTurn("another file is under way, or has failed and stops the job")
        if package:
            package.seek(0)
            yield from iter(lambda: package.read(transfer.BLOCK), b"")
            return
        digest = hashlib.sha256()
        yield from transfer.load(blob, file.etag, file.size, digest.update)

    length = package.seek(0, SEEK_END) if package else file.size
    try:
        with deadline.within(deadline.left() - min(KEPT_BACK, deadline.left() / 2)):
            message_id = bridge.d365_for(job).enqueue(
                job.activity_id,
                body,
                length,
                entity=None if package or is_package(file.name) else job.entity,
                company=file.record.company or None,
                external_id=file.record.externalid,
            )
    except NotItsTurn as error:
        _reschedule(bridge, file, timedelta(seconds=random.uniform(2, 4)), str(error))
        return
    except Rejected as error:
        outcome.fail(bridge.account, file, file.record, "rejected", str(error))
        return
    except Uncertain as error:
        uncertain(bridge, job, file, str(error))
        return
    except D365Error as error:
        retry_later(bridge, job, file, error)
        return
    emit(
        "file.sent",
        job=job.name,
        file=file.name,
        messageId=message_id,
        externalId=file.record.externalid,
        bytes=length,
    )
    first = schedule.check_delay(0)
    now = clock.now()
    record = replace(
        file.record,
        state="sent",
        messageid=message_id,
        sent=clock.text(now),
        sha256=sha256 or digest.hexdigest(),
        due=clock.text(now + first),
        reason="",
        tried="",
        spent=0,
    )
    schedule.check_file(bridge, files.update(bridge.account, file, record), first)


def _intend(bridge: Bridge, file: File) -> File:
    """Write down that a file is being sent, by one worker alone. Raises `Conflict` at all others."""
    due = clock.text(clock.now() + bridge.settings.function_timeout)
    intent = replace(file.record, state="sending", sender=uuid4().hex, due=due)
    return files.update(bridge.account, file, intent)


def uncertain(bridge: Bridge, job: ImportJob | None, file: File, why: str) -> None:
    """Nobody can know whether D365 has the file: hold it, or send it again, as the job says (I2)."""
    if job and job.when_uncertain == "resend":
        retry_later(bridge, job, file, Uncertain("enqueue", why))
        return
    outcome.fail(bridge.account, file, file.record, "uncertain", why)


def send_next(bridge: Bridge, job: ImportJob) -> None:
    """Send what may go now of an ordered job: the next file, and as long as time allows those after it (I5)."""
    started = clock.monotonic()
    while clock.monotonic() - started < bridge.settings.function_timeout.total_seconds() / 2:
        file = turns.next_file(bridge, job)
        if file is None:
            return
        send(bridge, job, file)


def retry_later(
    bridge: Bridge, job: ImportJob, file: File, error: D365Error | InvalidTemplate | OSError
) -> None:
    """The file could not be sent now: try again later, until that has gone on for too long."""
    record = file.record
    if record.spent > GIVE_UP.total_seconds():
        reasons = {Uncertain: "uncertain", InvalidTemplate: "no-template"}
        reason = reasons.get(type(error), "unavailable")
        outcome.fail(bridge.account, file, record, reason, str(error))
        return
    asked = error.retry_after if isinstance(error, D365Error) else None
    own = min(timedelta(seconds=2 * 2 ** min(record.attempts, 10)), LONGEST_DELAY)
    delay = own if asked is None else timedelta(seconds=max(1.0, asked))
    tried = clock.text(clock.now())
    _reschedule(bridge, replace(file, record=replace(record, tried=tried)), delay, str(error))
    emit(
        "file.waiting",
        level=logging.WARNING,
        job=job.name,
        file=file.name,
        reason=str(error),
        retryInSeconds=round(delay.total_seconds()),
    )


def _reschedule(bridge: Bridge, file: File, delay: timedelta, reason: str) -> None:
    due = clock.text(clock.now() + delay)
    record = replace(file.record, state="claimed", reason=reason, due=due)
    schedule.check_file(bridge, files.update(bridge.account, file, record), delay)
