"""Imports by the package API: a file becomes an execution of a data project, whose id we choose.

    claimed --id, lease of the environment, upload--> --intent--> sending --ImportFromPackage--> sent

The id is written down before D365 gets it. So what a crash or a lost answer leaves as `sending` does not stay
in doubt: D365 is asked for the execution until it knows it, or has not known it for long (I6).
"""

import random
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import uuid4

from azure.core.exceptions import AzureError, ResourceModifiedError

from shared import clock
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.d365.errors import D365Error, Rejected, Unavailable, Uncertain
from shared.d365.package_api import PackageApi, new_execution_id
from shared.imports import attempt, outcome, schedule, turns
from shared.imports.attempt import Content, NotItsTurn
from shared.observability.events import emit
from shared.storage import block_copy, files, leases, signed
from shared.storage.account import PROCESSING, STATE
from shared.storage.block_copy import NotCopied
from shared.storage.errors import Conflict
from shared.storage.records import File, Record, State

PACKAGE_API: Final = "package"

BY_STORAGE: Final = block_copy.BLOCK
"""Bytes. A smaller package is carried by the app, which costs less than to ask whether storage can."""


def is_chosen(bridge: Bridge, job: ImportJob, file: File, content: Content) -> bool:
    """Whether a file goes by the package API: its job says so, or it is a package that is too large for a
    recurring data job, as one of its length was."""
    if job.api == PACKAGE_API:
        return True
    too_large = file.record.api or content.length >= bridge.d365_for(job).rejected_length
    return can_be_chosen(job, file, content) and bool(too_large)


def can_be_chosen(job: ImportJob, file: File, content: Content) -> bool:
    """Whether a file of a recurring data job can go by the package API: a package, for a known company."""
    return bool(job.data_project and file.record.company and content.is_package(file))


def send(bridge: Bridge, job: ImportJob, file: File, content: Content) -> None:
    """Send a claimed file as a package, if no other is being sent to the environment. Raises `Conflict`."""
    file = replace(file, record=_with_id(job, file.record))
    if file.record.state == State.SENDING:
        # Too large for enqueue, as D365 has just said: from here on nothing about the file is in doubt.
        file = files.update(bridge.account, file, replace(file.record, state=State.CLAIMED))
    lock = f"leases/{bridge.settings.environment_of(job).name}"
    try:
        with leases.held(bridge.account.blobs.get_blob_client(STATE, lock)):
            if why := _why_not_now(bridge, job, file):
                attempt.reschedule(bridge, file, attempt.next_delay(file), why)
                return
            _send(bridge, job, file, content)
    except leases.Taken:
        delay = attempt.next_delay(file) * random.uniform(0.5, 1.0)
        attempt.reschedule(bridge, file, delay, "another package is being sent to D365")


def _with_id(job: ImportJob, record: Record) -> Record:
    """The record of a file that goes by the package API; an id that was chosen before stays."""
    if record.api:
        return record
    return replace(record, api=PACKAGE_API, externalid=new_execution_id(job.name, clock.now()))


def _why_not_now(bridge: Bridge, job: ImportJob, file: File) -> str:
    """What keeps D365 from beginning this import; "" for nothing. A running import keeps D365 from beginning
    another one of its data project. One whose answer was lost may still be unpacked, and two at once fail: so
    other jobs of the environment wait, until D365 has not known it for a while."""
    environment = bridge.settings.environment_of(job).name
    for other in files.listed(bridge.account, PROCESSING):
        record = other.record
        if not record.api or other.name == file.name:
            continue
        if record.job == job.name and record.state in (State.SENDING, State.SENT):
            return "the data project runs another import"
        is_recent = record.unknown < bridge.patience.total_seconds()
        if record.state == State.SENDING and record.environment == environment and is_recent:
            return "D365 may still unpack another package"
    return ""


def _send(bridge: Bridge, job: ImportJob, file: File, content: Content) -> None:
    packages = bridge.d365_for(job).packages
    # So long nobody else takes it up, however long its upload takes; and its id is written down.
    due = clock.text(clock.now() + bridge.settings.function_timeout)
    record = replace(file.record, state=State.CLAIMED, sender=uuid4().hex, due=due)
    file = files.update(bridge.account, file, record)
    url = ""
    try:
        with attempt.in_time():
            url = packages.write_url(f"{uuid4()}.zip")
            content.moved = _upload(bridge, file, content, url)
            now = clock.text(clock.now())
            record = replace(
                file.record,
                sha256=content.sha256,
                moved=content.moved,
                checks=0,
                checked=now,
                unknown=0,
                status="",
            )
            file = attempt.intend(bridge, replace(file, record=record))
            if job.one_at_a_time and not turns.is_turn_of(bridge, job, file):
                raise NotItsTurn("another file is under way, or has failed and stops the job")
            id_ = packages.import_package(
                url,
                str(job.data_project),
                file.record.externalid,
                execute=job.execute,
                overwrite=job.overwrite,
                company=file.record.company,
            )
    except NotItsTurn as error:
        attempt.reschedule(bridge, file, timedelta(seconds=random.uniform(2, 4)), str(error))
    except Rejected as error:
        _settle_rejection(bridge, job, file, content, url, error)
    except Uncertain as error:
        doubt(bridge, file, str(error))
    except D365Error as error:
        attempt.retry_later(bridge, job, file, error)
    else:
        attempt.note_sent(bridge, job, file, id_, content)


def _upload(bridge: Bridge, file: File, content: Content, url: str) -> str:
    """Write the package to D365's storage: who carried its bytes, `storage` or `app`.

    Raises `Unavailable` and `Conflict`.
    """
    target = signed.client(url)
    try:
        if content.package is None and content.length >= BY_STORAGE:
            try:
                source = bridge.account.blobs.get_blob_client(file.container, file.name)
                new_url = partial(signed.read_url, bridge.account, source)
                block_copy.copy(new_url, file.etag, file.size, target)
            except NotCopied as error:
                emit(
                    "execution.carried",
                    job=file.record.job,
                    executionId=file.record.externalid,
                    reason=str(error),
                )
            else:
                return "storage"
        signed.upload(target, content.read(bridge, file))
    except ResourceModifiedError as error:
        raise Conflict(file.name) from error
    except AzureError as error:
        why = f"not sent, D365's storage did not take the package: {' '.join(str(error).split())}"
        raise Unavailable("upload", why) from error
    return "app"


def _settle_rejection(
    bridge: Bridge, job: ImportJob, file: File, content: Content, url: str, error: Rejected
) -> None:
    """D365 turned the request down. It may have the package from an earlier try under the same id; and where
    the address has expired, it never saw it."""
    packages = bridge.d365_for(job).packages
    try:
        if file.record.state == State.SENDING and is_known(packages, file.record.externalid):
            attempt.note_sent(bridge, job, file, file.record.externalid, content)
            return
    except D365Error as trouble:
        doubt(bridge, file, f"{error}; D365 can't be asked for the execution: {trouble}")
        return
    if url and not signed.is_readable(signed.client(url)):
        why = f"not sent, the address to which D365 let the package be written has expired: {error}"
        attempt.retry_later(bridge, job, file, Unavailable("ImportFromPackage", why))
        return
    # Of one that was sent before, without an answer, this proves nothing.
    reason = "vanished" if file.record.sent else "rejected"
    outcome.fail(bridge.account, file, file.record, reason, str(error))


def is_known(packages: PackageApi, execution_id: str) -> bool:
    """Whether D365 has an execution of that id, as either of two witnesses says. Raises `D365Error`."""
    return (
        packages.execution_status(execution_id) is not None
        or packages.execution_details(execution_id) is not None
    )


def doubt(bridge: Bridge, file: File, why: str) -> None:
    """D365's answer was lost, or proves nothing: it is asked for the execution."""
    record = replace(file.record, reason=why)
    emit("file.doubted", job=record.job, file=file.name, error=why, externalId=record.externalid)
    schedule.check_later(bridge, file, record, schedule.check_delay(0))


def status(bridge: Bridge, file: File) -> str | None:
    """The status of a file's execution; None where neither witness knows it. Raises `D365Error`."""
    packages = bridge.d365_of(file).packages
    execution_id = file.record.messageid or file.record.externalid
    status_ = packages.execution_status(execution_id)
    if status_ is None and packages.execution_details(execution_id) is not None:
        return "Executing"  # or it has ended; the first witness will say
    return status_


def confirmed(file: File, record: Record) -> Record:
    """The record of a file whose execution D365 knows, though its answer was lost."""
    now = clock.text(clock.now())
    emit(
        "file.sent",
        job=record.job,
        file=file.name,
        messageId=record.externalid,
        externalId=record.externalid,
        bytes=file.size,
    )
    return replace(
        record,
        state=State.SENT,
        messageid=record.externalid,
        sent=now,
        spent=0,
        unknown=0,
        tried="",
    )


def give_up(bridge: Bridge, job: ImportJob | None, file: File, record: Record) -> None:
    """D365 has not known an execution for long. One that it never said to have is resent under the same id;
    one that it had accepted or known has vanished there, and the job decides. Raises `Conflict`."""
    text = f"D365 has not known the execution {record.externalid} for {bridge.hidden_for}"
    if record.status:
        text = f"{text}; its last status was {record.status}"
        outcome.fail(bridge.account, file, record, "no-final-status", text)
        return
    accepted = record.state == State.SENT
    if job and job.data_project and (not accepted or job.when_uncertain == "resend"):
        sent = record.sent or clock.text(clock.now())
        spent = record.spent + record.unknown
        record = replace(record, messageid="", sent=sent, unknown=0, spent=spent)
        attempt.retry_later(
            bridge, job, replace(file, record=record), Uncertain("ImportFromPackage", text)
        )
        return
    text = f"{text}, though it had accepted it" if accepted else text
    outcome.fail(bridge.account, file, record, "vanished", text)
