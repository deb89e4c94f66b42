"""The actions of people: resend a file, mark it as received, ask D365 again, dismiss it, deliver a copy,
export now.

Each needs the ETag of the version that the person looked at, so that nothing is done to a file that has changed
since. Two clicks do it once: the first changes the ETag. Who, when and why stand in the file's metadata, in the
error report beside it, and in the log.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal
from urllib.parse import quote
from uuid import uuid4

from azure.core.exceptions import AzureError

from shared import clock, deadline
from shared.bridge import Bridge
from shared.d365 import MessageId
from shared.d365.errors import D365Error, Rejected
from shared.exports import data_project, execution, handover
from shared.exports.unzip import unzip
from shared.imports import schedule
from shared.observability.events import emit, redact
from shared.observability.tracing import trace_of
from shared.operations import views
from shared.packages import InvalidPackage
from shared.storage import files, leases, moves, names
from shared.storage.account import EXPORTS, FAILED, IMPORTS, PROCESSING, SUCCEEDED
from shared.storage.errors import Conflict, explained
from shared.storage.records import File, Record, State
from shared.storage.transfer import OtherContent

Resolution = Literal["resending", "received", "asked", "dismissed"]

_BEGINNING: Final = 200
"""Characters of a path, before its suffix, with which its stamped name is sure to begin, however long it is."""

_GUID: Final = re.compile(r"\{?([0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})\}?")


class NotDone(ValueError):
    """What was asked was not done, and nothing was changed unless the text says so; why, and what to do."""


@dataclass(frozen=True)
class Action:
    """What a person asks for: which version of which file, by whom and why."""

    name: str
    etag: str
    by: str
    why: str
    message_id: str = ""
    """Of `receive`: the message id that D365 shows."""


def resend(bridge: Bridge, action: Action) -> str:
    """Put a failed or held file back into `imports` as a new version, so that it is resent: its path there.

    Raises `NotDone`.
    """
    file = _failed(bridge, action)
    source = file.record.source
    if not source:
        raise NotDone(f"{file.name} does not say where it was dropped: drop it by hand")
    if _received(file):
        raise NotDone(
            f"{file.record.resolvedby} found it in D365: mark it as received once more, with its message id"
        )
    if file.record.resolution == "resending" and (sent := _sent_already(bridge, file)):
        raise NotDone(f"{file.record.resolvedby} has resent it: it is {sent}. Dismiss this one")
    if files.find(bridge.account, IMPORTS, source):
        raise NotDone(
            f"imports/{source} is there: a newer file of that name waits. Wait until it is taken"
        )
    # I1 for people: the intent changes the ETag first, so of two who ask, one goes on.
    marked = _mark(bridge, file, action, "resending")
    metadata = {
        **file.user_metadata,
        "resendof": _header(file.name),
        "resentby": _header(action.by),
        "resentwhy": _header(action.why),
        "resent": clock.text(clock.now()),
    }
    try:
        done = moves.put_back(bridge.account, marked, metadata)
    except Conflict as error:  # the mark stays, so another attempt finds the new version
        raise NotDone(
            f"storage did not say whether {file.name} was copied to imports: look again"
        ) from error
    if not done:
        with suppress(Conflict):
            files.update(bridge.account, marked, file.record)
        raise NotDone(f"imports/{source} came in just now: wait until it is taken, and look again")
    _note(bridge, file, action, "resent")
    emit(
        "file.resent",
        **_ids(file.record),
        file=file.name,
        source=source,
        by=redact(action.by),
        why=redact(action.why),
    )
    return source


def _sent_already(bridge: Bridge, file: File) -> str:
    """Where the new version is, when a crash kept the old one from being deleted after the copy; else ""."""
    source = file.record.source
    beginning = (source.rpartition(".")[0] or source)[:_BEGINNING]
    for container in (IMPORTS, PROCESSING, SUCCEEDED, FAILED):
        for other in files.listed(bridge.account, container, beginning):
            if other.user_metadata.get("resendof") == _header(file.name):
                return f"{container}/{other.name}"
    return ""


def receive(bridge: Bridge, action: Action) -> None:
    """Mark a held file as received by D365 under a message id, and track it to its end.

    D365 is asked first whether it knows the id, and whether it is of this file. Raises `NotDone`.
    """
    file = _failed(bridge, action)
    if file.record.state != State.HELD:
        raise NotDone(f"{file.name} is not held: D365 has surely not taken it, or has ended it")
    if file.record.api:
        raise NotDone(f"{file.name} has its execution's id already: ask D365 again")
    guid = _GUID.fullmatch(action.message_id.strip().strip("\"'"))
    if not guid:
        raise NotDone("the message id must be the GUID that D365 shows under Manage messages")
    message_id = MessageId(guid[1])
    _verify(bridge, file, message_id)
    _track_on(bridge, file, action, "received", message_id)


def ask(bridge: Bridge, action: Action) -> None:
    """Ask D365 once more after a file of which it gave no final status. Raises `NotDone`."""
    file = _failed(bridge, action)
    if not _can_be_asked(file):
        raise NotDone(f"{file.name} has an end: only what has no final status is asked after again")
    id_ = file.record.messageid or file.record.externalid
    _track_on(bridge, file, action, "asked", MessageId(id_))


def _can_be_asked(file: File) -> bool:
    return (file.record.reason == "no-final-status" and bool(file.record.messageid)) or (
        file.record.reason == "vanished"
    )


def _track_on(
    bridge: Bridge,
    file: File,
    action: Action,
    resolution: Literal["received", "asked"],
    message_id: MessageId,
) -> None:
    """Move a file back into processing, where D365 is asked after it until it ends."""
    marked = _mark(bridge, file, action, resolution)
    now = clock.text(clock.now())
    record = replace(
        marked.record,
        state=State.SENT,
        messageid=message_id,
        sent=file.record.sent or now,
        ended="",
        reason="",
        error="",
        checks=0,
        checked=now,
        spent=0,
        unknown=0,
        due=now,
    )
    moves.move(bridge.account, marked, PROCESSING, record)
    _note(bridge, file, action, resolution)
    emit(
        f"file.{resolution}",
        **_ids(record),
        file=file.name,
        by=redact(action.by),
        why=redact(action.why),
    )
    tracked = files.find(bridge.account, PROCESSING, file.name)
    if tracked:
        schedule.check_file(bridge, tracked, timedelta(0))


def _verify(bridge: Bridge, file: File, message_id: MessageId) -> None:
    """Raises `NotDone` unless D365 has the message in the file's job, under the file's external identifier."""
    record = file.record
    job = bridge.settings.jobs.import_job(record.job)
    if job is None:
        raise NotDone(
            f"the jobs file has no job {record.job!r} any more, so D365 can't be asked whose message that is: "
            "put the job back, deploy, and try again"
        )
    d365 = bridge.d365_of(file)
    try:
        d365.message_status(message_id)
    except Rejected as error:
        raise NotDone(f"D365 does not know that message id ({error})") from error
    except D365Error as error:
        raise NotDone(f"D365 can't be asked about that message id now ({error})") from error
    try:
        external_id = d365.job_status(job.activity_id, message_id).external_id
    except Rejected as error:
        raise NotDone(
            f"D365 does not have that message in this file's job {job.name!r} ({error}): take the id that "
            f"Manage messages shows there beside {record.externalid!r}"
        ) from error
    except D365Error as error:
        raise NotDone(f"D365 can't be asked now of which file that message is ({error})") from error
    if not external_id:
        raise NotDone(
            "D365 does not say of which file that message is. Where Manage messages shows it beside "
            f"{record.externalid!r}, D365 has this file: dismiss it, and see there how it ends"
        )
    if external_id != record.externalid:
        raise NotDone(
            f"that message is of another file: D365 has it as {external_id!r}, this one was sent as "
            f"{record.externalid!r}"
        )


def dismiss(bridge: Bridge, action: Action) -> None:
    """Say that a failed or held file is dealt with: it stays where it is, and stops its job no longer.

    Raises `NotDone`.
    """
    file = _failed(bridge, action)
    _mark(bridge, file, action, "dismissed")
    _note(bridge, file, action, "dismissed")
    emit(
        "file.dismissed",
        **_ids(file.record),
        file=file.name,
        by=redact(action.by),
        why=redact(action.why),
    )


def redeliver(bridge: Bridge, action: Action) -> str:
    """Copy a package that was exported before to a fresh name beside it, with its files where the job unzips:
    that name. Raises `NotDone`.

    From our own blob: D365 gives a package that was acknowledged no second time.
    """
    file = _looked_at(bridge, EXPORTS, action)
    if file.name.count("/") != 1:
        raise NotDone(f"{file.name} is no package")
    now = clock.now()
    stem, _, extension = file.name.rpartition(".")
    fresh = names.redelivered_name(file.name, now)
    metadata = {
        **file.user_metadata,
        "redeliveryof": _header(file.name),
        "redeliveredby": _header(action.by),
        "redeliveredwhy": _header(action.why),
        "redelivered": clock.text(now),
    }
    if not moves.copy_fresh(bridge.account, file, fresh, metadata):
        raise NotDone(f"{fresh} is there already, or {file.name} has just changed: look again")
    folder = file.name.partition("/")[0]
    unzips = any(job.unzip for job in bridge.settings.jobs.exports if job.name == folder)
    if unzips and extension == "zip":
        _unzip(bridge, fresh)
    emit(
        "package.redelivered",
        job=file.record.job,
        correlationId=stem.rpartition("/")[2],
        blob=fresh,
        source=file.name,
        by=redact(action.by),
        why=redact(action.why),
    )
    return fresh


def _unzip(bridge: Bridge, package: str) -> None:
    """Raises `NotDone`."""
    blob = bridge.account.blobs.get_blob_client(EXPORTS, package)
    try:
        with deadline.within(0.9 * bridge.settings.function_timeout.total_seconds()):
            unzip(bridge.account, blob)
    except (AzureError, deadline.Expired, InvalidPackage, OtherContent) as error:
        raise NotDone(
            f"{package} is there, but not all of its files are ({explained(error)}): do it once more"
        ) from error


def run_now(bridge: Bridge, action: Action) -> None:
    """Export a job's data project now, beside its schedule. `action.etag` is that of the job's execution.

    Raises `NotDone`.
    """
    job = bridge.settings.jobs.project_export(action.name)
    if job is None:
        raise NotDone(f"{action.name} is no job that exports a data project")
    if not job.enabled:
        raise NotDone(f"{action.name} is paused: enable it in the jobs file first")
    if not action.etag:  # there was nothing to look at
        raise NotDone(f"the app has not seen {action.name} yet: its timer does in some minutes")
    by, why = redact(action.by), redact(action.why)
    try:
        with execution.held(bridge.account, job.name) as held:
            if held.etag.strip('"') != action.etag.strip().strip('"'):
                raise NotDone(f"{action.name} has gone on since you looked at it: look again")
            if held.execution.under_way:
                raise NotDone(f"an export of {action.name} is under way: wait for its end")
            data_project.plan(held, job, clock.now(), by=by, why=why)
            id_ = held.execution.executionid
    except leases.Taken as error:
        raise NotDone(f"another worker has {action.name} now: try again in a minute") from error
    handover.enqueue(bridge, job, 0)
    emit("execution.requested", job=job.name, executionId=id_, by=by, why=why)


ACTIONS: Final[Mapping[str, Callable[[Bridge, Action], str | None]]] = {
    "resend": resend,
    "receive": receive,
    "ask": ask,
    "dismiss": dismiss,
    "redeliver": redeliver,
    "run": run_now,
}


def possible(file: File) -> list[str]:
    """Which of `ACTIONS` can be done to a file."""
    if file.container == EXPORTS:
        return ["redeliver"] if file.name.count("/") == 1 else []
    if file.container != FAILED:
        return []
    resend = [] if _received(file) else ["resend"]
    held = ["receive"] if file.record.state == State.HELD and not file.record.api else []
    ask_again = ["ask"] if _can_be_asked(file) else []
    return [
        *resend,
        *held,
        *ask_again,
        *([] if file.record.resolution == "dismissed" else ["dismiss"]),
    ]


def risk(file: File) -> str:
    """What a person must know before the file is resent, "" where D365 has surely nothing of it."""
    record = file.record
    what, where = ("execution", "Job history") if record.api else ("message", "Manage messages")
    if record.state == State.HELD and record.api:
        return (
            "Nobody knows yet whether D365 has imported this file. Look under Job history for the execution "
            f"{record.externalid} first, and whether its records are there: a file that is sent "
            "twice is posted twice."
        )
    if record.state == State.HELD:
        return (
            "Nobody knows yet whether D365 has this file. Look under Manage messages for the external "
            f"identifier {record.externalid} first: a file that is sent twice is posted twice."
        )
    if record.records == "0":
        return (
            f"D365 took this file as the {what} {record.messageid}, and imported no record of it."
        )
    if record.records:
        return (
            f"D365 has imported a part of this file ({record.entities}). If you resend it, that part is posted "
            "twice. Drop the failed records as a new file instead, and dismiss this one."
        )
    if record.messageid:
        return (
            f"D365 has this file already, as the {what} {record.messageid}. Look under {where} first "
            "how it ended: if you resend the file, what D365 has imported of it is posted twice."
        )
    return ""


def _received(file: File) -> bool:
    """Whether a person found a held file in D365, and a crash kept it from being tracked on. One that was
    tracked on and then failed has an end like any other."""
    return file.record.state == State.HELD and file.record.resolution == "received"


def _failed(bridge: Bridge, action: Action) -> File:
    """Raises `NotDone`, also while the file lies in processing too: that place counts, and what a crash has
    left undone there is done within minutes."""
    file = _looked_at(bridge, FAILED, action)
    if files.find(bridge.account, PROCESSING, file.name):
        raise NotDone(
            f"{file.name} lies in {PROCESSING} too, on its way: look again in some minutes"
        )
    if file.archived:
        raise NotDone(
            f"{file.name} lies in the archive tier, where it can't be read or changed: rehydrate it first (az "
            "storage blob set-tier --tier Hot; that takes hours), or drop the file again and delete this one"
        )
    return file


def _looked_at(bridge: Bridge, container: str, action: Action) -> File:
    """The file, if it is still the version that the person looked at. Raises `NotDone`."""
    if not action.by.strip() or not action.why.strip():
        raise NotDone("say who you are and why: both are kept with the file")
    file = files.find(bridge.account, container, action.name)
    if file is None:
        raise NotDone(f"{container}/{action.name} is not there any more")
    if file.etag.strip('"') != action.etag.strip().strip('"'):
        raise NotDone(f"{action.name} has changed since you looked at it: look again")
    return file


def _mark(bridge: Bridge, file: File, action: Action, resolution: Resolution) -> File:
    record: Record = replace(
        file.record,
        sender=uuid4().hex,  # two who say the same in the same second are still two
        resolution=resolution,
        resolvedby=redact(action.by),
        resolved=clock.text(clock.now()),
        resolvedwhy=redact(action.why),
        # Only what is dealt with stops its job no longer: what is put back or tracked on may fail again.
        stopsjob="" if resolution == "dismissed" else file.record.stopsjob,
    )
    try:
        return files.update(bridge.account, file, record)
    except Conflict as error:
        raise NotDone(f"{file.name} was changed by somebody else just now: look again") from error


def _note(bridge: Bridge, file: File, action: Action, what: str) -> None:
    """Say in the report beside the file what was done about it. The report stays when the file goes."""
    error_report = views.report_of(bridge, file)
    done = {
        "did": what,
        "at": clock.text(clock.now()),
        "by": redact(action.by),
        "why": redact(action.why),
    }
    error_report["resolutions"] = [*error_report.get("resolutions", []), done]
    text = json.dumps(error_report, indent=2, ensure_ascii=False) + "\n"
    files.write_error_report(bridge.account, file.name, text)


def _ids(record: Record) -> dict[str, Any]:
    """Of a file, for its log lines."""
    trace = trace_of(record.traceparent)
    ids = {"job": record.job, "environment": record.environment, "messageId": record.messageid}
    return {**ids, "traceId": trace}


def _header(text: str) -> str:
    return quote(redact(text)[:500], safe=" /(){}+,=@:")
