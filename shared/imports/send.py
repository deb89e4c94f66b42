"""Sends a claimed file to D365, or schedules another attempt.

The intent is written before D365 gets the first byte (I1), and the message id after D365 has answered. If the
worker ends in between, nobody can know whether D365 has the file: then `whenUncertain` decides (I2).
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from azure.core.exceptions import ResourceModifiedError

from shared import clock
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.d365.client import TOO_LARGE
from shared.d365.errors import D365Error, Rejected, Uncertain
from shared.imports import attempt, data_package, execution, outcome, schedule, templates, turns
from shared.imports.attempt import Content, NotItsTurn
from shared.imports.routing import is_package
from shared.imports.templates import InvalidTemplate, WrongFormat
from shared.observability.tracing import span
from shared.storage import transfer
from shared.storage.errors import Conflict
from shared.storage.records import File, State

DIRECTORY: Final = 256 * 1024
"""Bytes that are read at once of a package's directory and manifest: of a large one, hardly any of it."""


def send(bridge: Bridge, job: ImportJob, file: File) -> None:
    """Send a claimed file and record its message id. Raises `Conflict` when another worker has it."""
    environment = bridge.settings.environment_of(job).name
    with bridge.slot("files", environment) as has_slot:
        if has_slot:
            _try_to_send(bridge, job, file)
            return
    delay = schedule.slot_delay()
    attempt.reschedule(
        bridge, file, delay, f"other files wait for {environment}, which takes its time"
    )


def _try_to_send(bridge: Bridge, job: ImportJob, file: File) -> None:
    record = file.record
    spent = record.spent + schedule.time_spent(bridge, record.tried, record.due)
    tried = record.tried and clock.text(clock.now())
    record = replace(record, attempts=record.attempts + 1, spent=spent, tried=tried)
    ids = {"job": job.name, "environment": record.environment, "file": file.name}
    with span("send file", record.traceparent, **ids):
        _check_and_send(bridge, job, replace(file, record=record))


def _check_and_send(bridge: Bridge, job: ImportJob, file: File) -> None:
    """Check what can be checked without D365, then send the file."""
    try:
        if is_package(file.name):
            blob = bridge.account.blobs.get_blob_client(file.container, file.name)
            data_package.check(transfer.reader(blob, file.size, DIRECTORY))
        elif job.template:
            with SpooledTemporaryFile(max_size=transfer.BLOCK) as package:
                # Before the intent is written: a wrong template or a full disk leaves no doubt about the file.
                sha256 = _wrap(bridge, job.template, job, file, package)
                _send(bridge, job, file, attempt.of_package(package, sha256))
            return
        _send(bridge, job, file, Content(file.size))
    except data_package.NotAPackage as error:
        outcome.fail(bridge.account, file, file.record, "bad-package", str(error))
    except WrongFormat as error:
        outcome.fail(bridge.account, file, file.record, "wrong-format", str(error))
    except (InvalidTemplate, OSError) as error:
        attempt.retry_later(bridge, job, file, error)


def _wrap(bridge: Bridge, template: str, job: ImportJob, file: File, package: IO[bytes]) -> str:
    """Write the file's data package; the SHA-256 of the file.

    Raises `InvalidTemplate`, `WrongFormat` and `Conflict`.
    """
    content_template = templates.fetch(bridge.account, template, job.entity)
    digest = hashlib.sha256()

    blob = bridge.account.blobs.get_blob_client(file.container, file.name)
    content = transfer.load(blob, file.etag, file.size, digest.update)
    try:
        templates.wrap(
            content_template,
            templates.in_format(content_template.format, content),
            file.size,
            package,
        )
    except ResourceModifiedError as error:
        raise Conflict(file.name) from error
    return digest.hexdigest()


def _send(bridge: Bridge, job: ImportJob, file: File, content: Content) -> None:
    if execution.is_chosen(bridge, job, file, content):
        execution.send(bridge, job, file, content)
    else:
        _enqueue(bridge, job, file, content)


def _enqueue(bridge: Bridge, job: ImportJob, file: File, content: Content) -> None:
    """Send a file to a recurring data job."""

    def body() -> Iterator[bytes]:
        nonlocal file
        if file.record.state == State.CLAIMED:
            # I1: the intent is written down before D365 gets the first byte, by one worker alone; and not
            # earlier: a worker that dies while it waits for a token or a throttle has surely sent nothing.
            file = attempt.intend(bridge, file)
            if job.ordered and not turns.is_turn_of(bridge, job, file):
                raise NotItsTurn("another file is under way, or has failed and stops the job")
        yield from content.read(bridge, file)

    try:
        with attempt.in_time():
            message_id = bridge.d365_for(job).enqueue(
                job.activity_id,
                body,
                content.length,
                entity=None if content.is_package(file) else job.entity,
                company=file.record.company or None,
                external_id=file.record.externalid,
            )
    except NotItsTurn as error:
        attempt.reschedule(bridge, file, timedelta(seconds=random.uniform(2, 4)), str(error))
    except Rejected as error:
        if error.status == TOO_LARGE and execution.can_be_chosen(job, file, content):
            execution.send(bridge, job, file, content)
        else:
            outcome.fail(bridge.account, file, file.record, "rejected", str(error))
    except Uncertain as error:
        uncertain(bridge, job, file, str(error))
    except D365Error as error:
        attempt.retry_later(bridge, job, file, error)
    else:
        attempt.note_sent(bridge, job, file, message_id, content)


def uncertain(bridge: Bridge, job: ImportJob | None, file: File, why: str) -> None:
    """Nobody can know whether D365 has the file: hold it, or resend it, as the job says (I2)."""
    if job and job.when_uncertain == "resend":
        attempt.retry_later(bridge, job, file, Uncertain("enqueue", why))
        return
    outcome.fail(bridge.account, file, file.record, "uncertain", why)


def send_next(bridge: Bridge, job: ImportJob) -> None:
    """Send the next file of an ordered job, and those after it while there is time (I5)."""
    started = clock.monotonic()
    while clock.monotonic() - started < bridge.settings.function_timeout.total_seconds() / 2:
        file = turns.next_file(bridge, job)
        if file is None:
            return
        send(bridge, job, file)
