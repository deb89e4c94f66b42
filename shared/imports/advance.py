"""Status: asks D365 how a sent file fares, until it ends; then files it where it belongs."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from shared import clock
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.d365 import MessageId
from shared.d365.errors import D365Error
from shared.d365.statuses import JobStatus, meaning
from shared.imports import claim, diagnosis, intake, outcome, schedule, send, turns
from shared.observability.events import emit
from shared.observability.tracing import span
from shared.storage import files, moves, names
from shared.storage.account import PROCESSING
from shared.storage.records import File, Record

GIVE_UP: Final = timedelta(days=3)
"""For so long D365 may take over one file: long enough for a batch that rests over a weekend (S3)."""


def check_status(bridge: Bridge, message: Mapping[str, Any]) -> None:
    """Look at one file in processing, as a message of the status queue asks: {"file", "etag"}.

    A message for a file that has changed since, or that is gone, changes nothing (S2).
    """
    if dropped := message.get("dropped"):
        intake.import_file(bridge, str(dropped))
        return
    name = str(message.get("file", ""))
    file = files.find(bridge.account, PROCESSING, name) if name else None
    if file is None or file.etag != message.get("etag"):
        job = names.job_folder(name)
        emit("message.ignored", job=job, file=name, reason="the file has gone on since")
        return
    ids = {"job": file.record.job, "file": file.name, "messageId": file.record.messageid}
    with span("check file", file.record.traceparent, **ids):
        _look_at(bridge, file)


def _look_at(bridge: Bridge, file: File) -> None:
    job = bridge.settings.jobs.import_job(file.record.job)
    if file.record.state == "sent":
        if file.record.resolution:
            moves.end_receipt(bridge.account, file)
        _check(bridge, job, file)
    elif file.record.state == "sending":
        # Its time is up (the message came late enough), so its worker is no more.
        if clock.parse(file.record.due) <= clock.now():
            why = "the worker that sent the file ended before D365's answer was recorded"
            send.uncertain(bridge, job, file, why)
            turns.enqueue_next(bridge, job)
    elif file.record.state in outcome.ENDS:  # and a crash kept it from being filed there
        said = diagnosis.what_d365_says(bridge, job, file)[1] if _failed_in_d365(file) else None
        outcome.finish(bridge.account, file, d365=said)
        turns.enqueue_next(bridge, job)
    else:
        _resume(bridge, file)


def _resume(bridge: Bridge, file: File) -> None:
    """Go on with a claimed file that was not sent: its worker died, or D365 did not take it then."""
    if not moves.release_source(bridge.account, file):
        return
    routed = claim.route(bridge, file)
    job = routed[0] if routed else _job_of(bridge, file)
    if job and job.ordered:
        send.send_next(bridge, job)
    elif routed and job and job.enabled:
        send.send(bridge, job, routed[1])


def _job_of(bridge: Bridge, file: File) -> ImportJob | None:
    return bridge.settings.jobs.import_job(names.job_folder(file.record.source))


def _failed_in_d365(file: File) -> bool:
    return file.record.state == "failed" and bool(file.record.messageid)


def _check(bridge: Bridge, job: ImportJob | None, file: File) -> None:
    record = file.record
    message_id = MessageId(record.messageid)
    try:
        status, trouble = bridge.d365_of(file).message_status(message_id), ""
    except D365Error as error:
        # The file is with D365 whatever becomes of this question; it is asked again.
        status, trouble = record.status, str(error)
    kind = "running" if trouble else meaning(status)
    if kind == "unknown":
        ids = {"file": file.name, "messageId": message_id}
        emit("status.unknown", logging.WARNING, job=record.job, status=status, **ids)
    now = clock.now()
    record = replace(
        record,
        status=status,
        checks=record.checks + 1,
        checked=clock.text(now),
        spent=record.spent + schedule.time_spent(bridge, record.checked or record.sent, record.due),
        reason=trouble,
    )
    emit(
        "status.checked",
        job=record.job,
        file=file.name,
        messageId=message_id,
        status=status,
        checks=record.checks,
        error=trouble,
    )
    if kind == "succeeded":
        _succeed(bridge, job, file, record)
    elif kind == "failed":
        job_status, said = diagnosis.what_d365_says(bridge, job, file)
        record = _counted(record, job_status)
        counts = f" ({record.entities} records are in)" if job_status.imported else ""
        text = f"D365 ended the import as {status}{counts}{diagnosis.first_error(said)}"
        outcome.fail(bridge.account, file, record, diagnosis.reason(job_status, said), text, said)
    elif record.spent > GIVE_UP.total_seconds():
        text = f"no final status after {GIVE_UP.days} days; the last one is {status or 'none'}"
        if trouble:
            text += f" ({trouble})"
        outcome.fail(bridge.account, file, record, "no-final-status", text)
    else:
        delay = schedule.check_delay(record.checks)
        record = replace(record, due=clock.text(now + delay))
        schedule.check_file(bridge, files.update(bridge.account, file, record), delay)
        return
    turns.enqueue_next(bridge, job)


def _succeed(bridge: Bridge, job: ImportJob | None, file: File, record: Record) -> None:
    """D365 says Processed also where no record got in, or into another company: so it is asked for that."""
    if job:
        try:
            message_id = MessageId(record.messageid)
            record = _counted(record, bridge.d365_of(file).job_status(job.activity_id, message_id))
        except D365Error:
            pass  # what is not known is not zero
    if job and job.when_no_records == "fail" and record.records == "0":
        text = f"D365 ended the import as {record.status}, and imported no record of it"
        outcome.fail(bridge.account, file, record, "no-records", text)
        return
    outcome.succeed(bridge.account, file, record)


def _counted(record: Record, status: JobStatus) -> Record:
    return replace(
        record,
        records="" if status.imported is None else str(status.imported),
        entities=status.counts,
        d365company=", ".join(status.companies),
    )
