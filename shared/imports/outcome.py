"""How a file's import ends: filed under succeeded, or under failed with a report that a person can act on."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from shared import clock
from shared.imports.notification import notify
from shared.imports.routing import InvalidDrop
from shared.observability.events import emit, redact
from shared.observability.tracing import trace_of
from shared.storage import files, moves, names
from shared.storage.account import FAILED, SUCCEEDED, DataAccount
from shared.storage.records import File, Record, State

TODO: Final[Mapping[str, str]] = {
    "no-job-in-path": "Drop the file into a job's folder, as imports/{job}/{file} or "
    "imports/{job}/{company}/{file}.",
    "no-such-job": "Drop the file into the right folder; or add the job to the jobs file, then resend it.",
    "bad-path": "Drop the file as imports/{job}/{file} or imports/{job}/{company}/{file}.",
    "no-match": "Name the file as the job's pattern says, or change the pattern in the jobs file; then drop "
    "the file again.",
    "no-company": "Name the file so that its company stands where the job's companyFrom says; then drop it "
    "again.",
    "no-entity": "Give the job its entity in the jobs file, or drop a data package (.zip).",
    "too-large": "Nothing was sent. Split the file, or drop it as a data package (.zip) made elsewhere.",
    "no-template": "Nothing was imported. Correct the job's template in the container templates, then drop "
    "the file again.",
    "empty-file": "Nothing was sent. Drop the file again with its content.",
    "not-whole": "Nothing was sent. Copy the file there again, and check that the copy is complete.",
    "bad-package": "Nothing was sent. Correct the data package, then drop it again.",
    "wrong-format": "Nothing was sent. Save the file in the format that the template says, then drop it again; "
    "or change the template.",
    "rejected": "Nothing was imported. Correct what D365 names, then resend the file.",
    "unavailable": "Nothing was imported. For a day D365 could not be reached, or did not accept the app. "
    "Find out why, correct it, then resend the file.",
    "uncertain": "Look in D365 under Manage messages of the recurring data job for the external "
    "identifier given here. If it is there, D365 has the file: mark the file as received, do not resend it. "
    "If it is not there, resend the file.",
    "vanished": "Look in D365 under Job history for the execution given here as the external identifier. If "
    "it is there, ask D365 again. If it is not there, D365 has lost the package: check that its records are "
    "not in D365, then resend the file.",
    "not-imported": "See D365's errors below. Correct the data in D365 and resend the file, or drop a "
    "corrected file. Where D365 gives no counts, it may have imported some records: look there first.",
    "partly-imported": "A part of the file is in D365: the counts say how many records of each entity. If you "
    "resend the file, that part is posted twice. Correct what D365's errors name, drop the failed records "
    "alone as a new file, and dismiss this one.",
    "no-records": "D365 processed the file and found no record to import. Check that the file has lines below "
    "its heading, and that the data project, or a package's manifest, maps its fields; then resend it.",
    "conflict": "Another import ran in D365 at the same time and disturbed this one. Resend the file as it is; "
    "where D365 gives no counts, check first that no record of it is in D365.",
    "no-final-status": "D365 has the file but did not say how it ended. Look the message id up under "
    "Manage messages: is the job's batch running? Then ask D365 again. Do not resend the file "
    "before you know.",
}
"""What to do, by the reason's code, which `docs/operations.md` explains. The verbs are those of `actions`."""

HELD: Final = ("uncertain", "vanished")
"""Reasons for which nobody knows whether a file is imported."""

STOPPED: Final = "The job is stopped: its other files wait until this one is resent or dismissed."


def succeed(account: DataAccount, file: File, record: Record) -> None:
    """File it under succeeded. Raises `Conflict` if another worker has changed it first."""
    ended = clock.text(clock.now())
    record = replace(record, state=State.SUCCEEDED, ended=ended, due="", reason="", stopsjob="")
    finish(account, files.update(account, file, record))


def remark(record: Record) -> str:
    """What is odd about a file that succeeded, "" for nothing."""
    remarks = ["D365 imported no record of it"] * (record.records == "0")
    if other := _other_company(record):
        remarks.append(f"D365 imported it into {other}, not into {record.company}")
    return "; ".join(remarks)


def _other_company(record: Record) -> str:
    """The company that D365 took in place of the one that it was asked for."""
    companies = record.d365company.split(", ") if record.company else []
    return ", ".join(
        company for company in companies if company and company.lower() != record.company.lower()
    )


def _tell_of_company(record: Record, name: str) -> None:
    if other := _other_company(record):
        emit(
            "company.differs",
            logging.ERROR,
            job=record.job,
            environment=record.environment,
            file=name,
            reason="other-company",
            error=f"D365 imported it into {other}, not into {record.company}",
            messageId=record.messageid,
        )


def _records(record: Record) -> int | None:
    return int(record.records) if record.records.isdecimal() else None


def fail(
    account: DataAccount,
    file: File,
    record: Record,
    reason: str,
    error: str,
    d365: Mapping[str, Any] | None = None,
) -> None:
    """File it under failed with `{file}.error.json` beside it: what happened, and what to do.

    `reason` is a key of `TODO`; `d365` is what D365 itself says. Raises `Conflict`.
    """
    record = replace(
        record,
        state=State.HELD if reason in HELD else State.FAILED,
        ended=clock.text(clock.now()),
        due="",
        reason=reason,
        error=redact(error),
    )
    finish(account, files.update(account, file, record), error, d365)


def refuse(account: DataAccount, file: File, invalid: InvalidDrop) -> None:
    """File a claimed file that no job can take under failed. Raises `Conflict`."""
    job = invalid.job
    # What does not match the pattern is none of the job's files, so it does not stop the job.
    stops = job and job.stops_on_failure and invalid.reason != "no-match"
    record = replace(file.record, job=job.name if job else "", stopsjob="yes" if stops else "")
    fail(account, file, record, invalid.reason, str(invalid))


def finish(
    account: DataAccount,
    file: File,
    error: str = "",
    d365: Mapping[str, Any] | None = None,
) -> None:
    """Move a file whose record says how it ends out of processing, and report its end.

    Nothing is told before that record is written (I7), and the file leaves processing only when all is told: so
    what a crash leaves here is done again from the record, which does no harm. `error` has more words than the
    record has room for.
    """
    record = file.record
    if record.state == State.SUCCEEDED:
        moves.copy_to(account, file, SUCCEEDED, record)
        emit(
            "file.succeeded",
            logging.WARNING if remark(record) else logging.INFO,
            job=record.job,
            environment=record.environment,
            file=file.name,
            messageId=record.messageid,
            status=record.status,
            records=_records(record),
            remark=remark(record),
            seconds=_seconds_since_drop(file.name),
        )
        _tell_of_company(record, file.name)
    else:
        error = error or record.error
        report = error_report(file, record, error, d365)
        # The report first: a failed file never stands there without its reason.
        files.write_error_report(account, file.name, _text(report))
        moves.copy_to(account, file, FAILED, record)
        notify(account, record, file.name, report)
        announce(record, file.name, error)
    files.delete(account, file)


def announce(record: Record, name: str, error: str) -> None:
    """Log that a file failed or is held."""
    fields = {
        "job": record.job,
        "environment": record.environment,
        "file": name,
        "reason": record.reason,
        "error": error,
        "messageId": record.messageid,
        "seconds": _seconds_since_drop(name),
        "traceId": trace_of(record.traceparent),
    }
    if record.state == State.HELD:
        emit("file.held", logging.ERROR, **fields, externalId=record.externalid)
    else:
        emit("file.failed", logging.ERROR, **fields, records=_records(record))
        _tell_of_company(record, name)


def error_report(
    file: File, record: Record, error: str, d365: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "file": record.source or file.name,
        "blob": f"{FAILED}/{file.name}",
        "outcome": record.state,
        "reason": record.reason,
        "error": redact(error),
        "todo": TODO[record.reason] + (f" {STOPPED}" if record.stopsjob else ""),
        "job": record.job,
        "environment": record.environment,
        "company": record.company,
        "bytes": file.size,
        "sha256": record.sha256,
        "messageId": record.messageid,
        "externalIdentifier": record.externalid,
        "status": record.status,
        "records": _records(record),
        "counts": record.entities,
        "companyInD365": record.d365company,
        "claimed": record.claimed,
        "sent": record.sent,
        "ended": record.ended,
        "attempts": record.attempts,
        **_resolved(record),
        "statusChecks": record.checks,
        "d365": d365 or {},
    }


def _resolved(record: Record) -> dict[str, Any]:
    """What a person did about the file before this end, as `actions` notes it."""
    if not record.resolution:
        return {}
    by, why = record.resolvedby, record.resolvedwhy
    done = {"did": record.resolution, "at": record.resolved, "by": by, "why": why}
    return {"resolutions": [done]}


def _text(report: Mapping[str, Any]) -> str:
    # A3: what D365 says may hold signed URLs.
    return redact(json.dumps(report, indent=2, ensure_ascii=False, default=str)) + "\n"


def _seconds_since_drop(name: str) -> float:
    dropped = names.dropped_at(name)
    return round((clock.now() - dropped).total_seconds(), 1) if dropped else 0.0
