"""Handles a message of the queue `import-status`: checks the status of a sent file, or sends a file that
waits."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from shared import clock
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.d365 import MessageId, statuses
from shared.d365.errors import D365Error
from shared.d365.statuses import JobStatus, meaning
from shared.imports import claim, diagnosis, execution, intake, outcome, schedule, send, turns
from shared.observability.events import emit
from shared.observability.tracing import span
from shared.storage import files, moves, names
from shared.storage.account import PROCESSING
from shared.storage.records import File, Record, State


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
        emit("message.ignored", job=job, file=name, reason="the file has changed since")
        return
    record, environment = file.record, bridge.environment_of(file)
    ids = {
        "job": record.job,
        "environment": environment,
        "file": name,
        "messageId": record.messageid,
    }
    with span("check file", record.traceparent, **ids):
        if not _asks_d365(file):
            _look_at(bridge, file)
            return
        with bridge.slot("files", environment) as has_slot:
            if has_slot:
                _look_at(bridge, file)
                return
        _put_off(bridge, file)


def _asks_d365(file: File) -> bool:
    """Whether it takes D365's answer to go on; to send a file asks for a slot itself."""
    record = file.record
    in_doubt = record.state == State.SENDING and bool(record.api)
    return record.state == State.SENT or in_doubt or _failed_in_d365(file)


def _put_off(bridge: Bridge, file: File) -> None:
    """Ask later: enough other requests wait for this D365 already."""
    schedule.check_later(bridge, file, file.record, schedule.slot_delay())


def _look_at(bridge: Bridge, file: File) -> None:
    job = bridge.settings.jobs.import_job(file.record.job)
    if file.record.state == State.SENT:
        if file.record.resolution:
            moves.end_receipt(bridge.account, file)
        _check(bridge, job, file)
    elif file.record.state == State.SENDING and file.record.api:
        _check(bridge, job, file)
    elif file.record.state == State.SENDING:
        # Past this time its worker can not run any more.
        if clock.parse(file.record.due) <= clock.now():
            why = "the worker that sent the file ended before D365's answer was recorded"
            send.uncertain(bridge, job, file, why)
            turns.enqueue_next(bridge, job)
    elif file.record.state.is_end:  # a worker crashed before it had filed it
        d365_account = (
            diagnosis.what_d365_says(bridge, job, file)[1] if _failed_in_d365(file) else None
        )
        outcome.finish(bridge.account, file, d365=d365_account)
        turns.enqueue_next(bridge, job)
    else:
        _resume(bridge, file)


def _resume(bridge: Bridge, file: File) -> None:
    """Go on with a claimed file that was not sent: its worker died, or D365 did not take it then."""
    if not moves.release_source(bridge.account, file):
        return
    routed = claim.route(bridge, file)
    job = routed[0] if routed else _job_of(bridge, file)
    if job and job.one_at_a_time:
        send.send_next(bridge, job)
    elif routed and job and job.enabled:
        send.send(bridge, job, routed[1])


def _job_of(bridge: Bridge, file: File) -> ImportJob | None:
    return bridge.settings.jobs.import_job(names.job_folder(file.record.source))


def _failed_in_d365(file: File) -> bool:
    return file.record.state == State.FAILED and bool(file.record.messageid)


def _check(bridge: Bridge, job: ImportJob | None, file: File) -> None:
    record = file.record
    try:
        status, trouble = _status(bridge, file), ""
    except D365Error as error:
        # D365 has the file even if it does not answer now, so it is asked again.
        status, trouble = record.status, str(error)
    now = clock.now()
    last = record.checked or record.sent
    passed = schedule.time_spent(bridge, last, record.due)
    record = replace(record, checks=record.checks + 1, checked=clock.text(now), reason=trouble)
    if status is None:
        _check_unknown(bridge, job, file, replace(record, unknown=record.unknown + passed))
        return
    if record.state == State.SENDING and not trouble:  # its answer was lost, or its worker ended
        record = execution.confirmed(file, record)
    kind = "running" if trouble else meaning(status)
    if kind == "unknown":
        ids = {"file": file.name, "messageId": record.messageid}
        emit("status.unknown", logging.WARNING, job=record.job, status=status, **ids)
    record = replace(record, status=status, spent=record.spent + passed)
    _report_check(file, record)
    if kind == "succeeded":
        _succeed(bridge, job, file, record)
    elif kind == "failed":
        job_status, d365_account = diagnosis.what_d365_says(bridge, job, file)
        record = _counted(record, job_status)
        counts = f" ({record.entities} records are in)" if job_status.imported else ""
        text = f"D365 ended the import as {status}{counts}{diagnosis.first_error(d365_account)}"
        reason = diagnosis.reason(status, job_status, d365_account)
        outcome.fail(bridge.account, file, record, reason, text, d365_account)
    elif record.spent > statuses.GIVE_UP.total_seconds():  # S3
        text = f"no final status after {statuses.GIVE_UP.days} days; the last one is {status or 'none'}"
        if trouble:
            text += f" ({trouble})"
        outcome.fail(bridge.account, file, record, "no-final-status", text)
    else:
        schedule.check_later(bridge, file, record, schedule.check_delay(record.checks))
        return
    turns.enqueue_next(bridge, job)


def _status(bridge: Bridge, file: File) -> str | None:
    """The status of a file in D365; None where D365 does not know its execution. Raises `D365Error`."""
    if file.record.api:
        return execution.status(bridge, file)
    return bridge.d365_of(file).message_status(MessageId(file.record.messageid))


def _report_check(file: File, record: Record) -> None:
    emit(
        "status.checked",
        job=record.job,
        file=file.name,
        messageId=record.messageid,
        status=record.status,
        checks=record.checks,
        error=record.reason,
    )


def _check_unknown(bridge: Bridge, job: ImportJob | None, file: File, record: Record) -> None:
    """D365 does not know the execution: it says so for a while of one that it has, too (I6)."""
    record = replace(record, reason="D365 does not know the execution")
    _report_check(file, record)
    if record.unknown <= bridge.hidden_for.total_seconds():
        schedule.check_later(bridge, file, record, schedule.check_delay(record.checks))
        return
    execution.give_up(bridge, job, file, record)
    turns.enqueue_next(bridge, job)


def _succeed(bridge: Bridge, job: ImportJob | None, file: File, record: Record) -> None:
    """D365 says Processed also where no record got in, or into another company: so it is asked for that."""
    if job:
        with suppress(D365Error):  # what is not known is not zero
            record = _counted(record, diagnosis.job_status(bridge, job, file))
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
