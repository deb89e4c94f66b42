"""Import: a file dropped into `imports` is claimed, sent to D365, and from then on tracked.

    imports/{path} --claim--> imports-processing [claimed] --intent--> [sending] --enqueue--> [sent]

Each arrow is one conditional write, so of any number of workers one takes it; what a crash leaves at any point
says by its state what may be done next: `claimed` was surely not sent, `sending` nobody can know, `sent` has
its message id (I1, I2).
"""

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from fnmatch import fnmatchcase
from io import SEEK_END
from tempfile import SpooledTemporaryFile
from typing import IO, Final
from uuid import uuid4

from azure.core.exceptions import ResourceModifiedError

from shared import blobs, clock, outcomes, templates, transfer
from shared.blobs import File, Record
from shared.bridge import Bridge
from shared.d365.errors import D365Error, Rejected, Uncertain
from shared.jobs import ImportJob, Jobs
from shared.telemetry import report
from shared.templates import InvalidTemplate
from shared.tracing import new_parent, span, trace_of

GIVE_UP: Final = timedelta(days=1)
"""For so long a file that D365 does not take (busy, not reached, not accepting the app) is sent again."""

LONGEST_DELAY: Final = timedelta(minutes=15)
"""Between two tries, unless D365 asks for longer."""

LATE: Final = timedelta(seconds=30)
"""A file this old may have been looked at before: its event was not the first, or did not come."""

UPLOADED_WITHIN: Final = timedelta(hours=1)
"""So long a file may have a name that does not match its job's pattern: programs upload under a name of their
own (`may.csv.filepart`) and rename what is whole. And so long it may be empty where no event has said that its
upload is at its end: what comes by SFTP is there, empty, before its content ("SFTP support for Azure Blob
Storage", events)."""

_COMPANY: Final = re.compile(r"[A-Za-z0-9_-]{1,16}")


class Misplaced(ValueError):
    """A dropped file that no job can take. `reason` is a key of `outcomes.TODO`."""

    def __init__(self, reason: str, error: str, job: ImportJob | None = None) -> None:
        self.reason = reason
        self.job = job
        super().__init__(error)


def import_file(bridge: Bridge, name: str) -> None:
    """Send a dropped file, if nobody has yet. `name` is its blob's in `imports`.

    An event that is repeated, late, or of a file long gone changes nothing.
    """
    if blobs.is_probe(name):
        blobs.delete_probe(bridge.account, name)
        report("probe.arrived", file=name)
        return
    dropped = blobs.find(bridge.account, blobs.IMPORTS, name)
    if dropped is None:
        report(
            "message.ignored",
            job=job_folder(name),
            file=name,
            reason="it is not in imports any more",
        )
        return
    if not blobs.is_file(blobs.IMPORTS, name, dropped.theirs):
        return
    if dropped.size and _unfinished(bridge, dropped):
        why = "an append blob may yet grow: reconcile takes it once nothing has been added for a while"
        report("message.ignored", job=job_folder(name), file=name, reason=why)
        return
    # An event comes when an upload is at its end: what is empty now stays so.
    taken = take(bridge, dropped, closed=not dropped.grows)
    job = taken or bridge.settings.jobs.import_job(job_folder(name))
    if job and job.ordered and job.enabled:
        start_next(bridge, job)
        return
    if taken is None:
        return
    claimed = claim(bridge, dropped, taken)
    if claimed and claimed.record.state == "claimed":
        send(bridge, taken, claimed)


def job_folder(name: str) -> str:
    """What stands for the job in a blob's name, whether there is such a job or not."""
    return name.partition("/")[0]


def take(bridge: Bridge, dropped: File, *, closed: bool = False) -> ImportJob | None:
    """The job that a dropped file is for; None when it waits, or was refused just now.

    It waits for a paused job, and while it may yet get another name, or (unless its upload is known to be
    `closed`) its content.
    """
    try:
        job, _ = destination(bridge.settings.jobs, dropped)
    except Misplaced as error:
        fresh = clock.now() - dropped.modified < UPLOADED_WITHIN
        waits = error.reason == "no-match" or (error.reason == "empty-file" and not closed)
        if waits and fresh:
            why = f"{error}: its upload may not be at its end"
            report("message.ignored", job=job_folder(dropped.name), file=dropped.name, reason=why)
        else:
            outcomes.refuse(bridge.account, dropped, error.job, error.reason, str(error))
        return None
    return job if job.enabled else None


def destination(jobs: Jobs, dropped: File) -> tuple[ImportJob, str]:
    """The job and the company ("" for none) that a file's path names. Raises `Misplaced`."""
    folder, *rest = dropped.name.split("/")
    if not rest:
        raise Misplaced("no-job-in-path", "the file lies in no job's folder")
    job = jobs.import_job(folder)
    if job is None:
        known = ", ".join(each.name for each in jobs.imports) or "none"
        raise Misplaced("no-such-job", f"there is no import job {folder!r}; there are: {known}")
    if len(rest) > 2 or any(part in ("", ".", "..") for part in rest):
        raise Misplaced("bad-path", f"{dropped.name!r} is not job/file or job/company/file", job)
    if not _is_named_for(job, dropped):
        raise Misplaced("no-match", f"the name does not match the job's pattern {job.pattern}", job)
    company = _company(job, rest)
    if dropped.size == 0:
        raise Misplaced("empty-file", "the file is empty", job)
    if is_package(rest[-1]):
        return job, company
    if job.template and dropped.size > templates.LARGEST_FILE:
        text = f"the file has {dropped.size} bytes, more than the {templates.LARGEST_FILE} that are wrapped"
        raise Misplaced("too-large", text, job)
    if not (job.entity or job.template):
        text = "the job has no entity, so it takes data packages (.zip) alone"
        raise Misplaced("no-entity", text, job)
    return job, company


def _is_named_for(job: ImportJob, dropped: File) -> bool:
    """Whether a file's name matches the job's pattern of * and ?, without regard to case."""
    if not job.pattern:
        return True
    # A bracket is an ordinary character in a file's name, and in the patterns that people know.
    name = dropped.name.rpartition("/")[2]
    return fnmatchcase(name.lower(), job.pattern.lower().replace("[", "[[]"))


def _company(job: ImportJob, path: list[str]) -> str:
    """The company that the job, the folder or the file's name says, "" for none. Raises `Misplaced`.

    `path` is [file] or [company, file]. Where more than one of them says something, they must agree.
    """
    said = {"the job": job.company or ""}
    if len(path) == 2:
        said["the file's folder"] = path[0]
    if job.company_from:
        said["the file's name"] = job.company_from.find(path[-1])
        if not said["the file's name"]:
            where = f"part {job.company_from.position} between {job.company_from.separator!r}"
            raise Misplaced("no-company", f"{path[-1]!r} has no {where} to be its company", job)
    said = {who: company for who, company in said.items() if company}
    for who, company in said.items():
        if not _COMPANY.fullmatch(company):
            raise Misplaced(
                "bad-path", f"{who} says {company!r}, which is no legal entity's id", job
            )
    if len({company.lower() for company in said.values()}) > 1:
        text = ", ".join(f"{who} says {company}" for who, company in said.items())
        raise Misplaced("bad-path", f"which company? {text}", job)
    return next(reversed(said.values()), "")


def is_package(name: str) -> bool:
    """Whether a file is sent as a data package: then no entity is named."""
    return name.lower().endswith(".zip")


def claim(bridge: Bridge, dropped: File, job: ImportJob) -> File | None:
    """Take a dropped file into processing; None when that version is no longer there, or was refused before."""
    _, company = destination(bridge.settings.jobs, dropped)
    now = clock.now()
    if now - dropped.modified > LATE and outcomes.end_refusal(bridge.account, dropped):
        return None
    blobs.end_put_back(bridge.account, dropped)
    record = Record(
        job=job.name,
        company=company,
        state="claimed",
        traceparent=new_parent(),
        stopsjob="yes" if job.stops_on_failure else "",
        claimed=clock.text(now),
        due=clock.text(now + timedelta(seconds=job.pause_between_files)),
    )
    claimed = blobs.claim(bridge.account, dropped, record)
    if claimed:
        report(
            "file.claimed",
            job=job.name,
            file=claimed.name,
            source=dropped.name,
            bytes=dropped.size,
            traceId=trace_of(claimed.record.traceparent),
        )
    return claimed


def resume(bridge: Bridge, job: ImportJob, file: File) -> None:
    """Go on with a claimed file that was not sent: its worker died, or D365 did not take it then."""
    if job.ordered:
        start_next(bridge, job)
        return
    if blobs.finish_move(bridge.account, file):  # it had an end before, and a crash
        return
    blobs.release_source(bridge.account, file)
    send(bridge, job, file)


def send(bridge: Bridge, job: ImportJob, file: File) -> None:
    """Send a claimed file and record its message id. Raises `blobs.Lost` when another worker has it."""
    with span("send file", file.record.traceparent, job=job.name, file=file.name):
        _wrap_and_send(bridge, job, file)


def _wrap_and_send(bridge: Bridge, job: ImportJob, file: File) -> None:
    if not job.template or is_package(file.name):
        _send(bridge, job, file)
        return
    with SpooledTemporaryFile(max_size=transfer.BLOCK) as package:
        # Before the intent is written: a wrong template or a full disk leaves no doubt about the file.
        try:
            sha256 = _wrap(bridge, job.template, job, file, package)
        except (InvalidTemplate, OSError) as error:
            record = replace(file.record, attempts=file.record.attempts + 1)
            _wait(bridge, job, replace(file, record=record), error)
            return
        _send(bridge, job, file, package, sha256)


def _wrap(bridge: Bridge, template: str, job: ImportJob, file: File, package: IO[bytes]) -> str:
    """Write the file's data package; the SHA-256 of the file. Raises `InvalidTemplate` and `blobs.Lost`."""
    found = templates.fetch(bridge.account, template, job.entity)
    digest = hashlib.sha256()

    blob = bridge.account.blobs.get_blob_client(file.container, file.name)
    content = transfer.load(blob, file.etag, file.size, digest.update)
    try:
        templates.wrap(found, content, file.size, package)
    except ResourceModifiedError as error:
        raise blobs.Lost(file.name) from error
    return digest.hexdigest()


def _send(
    bridge: Bridge,
    job: ImportJob,
    file: File,
    package: IO[bytes] | None = None,
    sha256: str = "",
) -> None:
    """Send a file, or the package in which it is; `sha256` is the file's where there is a package."""
    # I1: the intent is written down before the request, by one worker alone.
    now = clock.now()
    sending = blobs.update(
        bridge.account,
        file,
        replace(
            file.record,
            state="sending",
            sender=uuid4().hex,
            attempts=file.record.attempts + 1,
            due=clock.text(now + bridge.settings.function_timeout),
        ),
    )
    if job.ordered and (_others_under_way(bridge, job, sending) or _stopped(bridge, job)):
        why = "another file is under way, or has failed and stops the job"
        _later(bridge, sending, timedelta(seconds=random.uniform(2, 4)), why)
        return
    digest = hashlib.sha256()
    blob = bridge.account.blobs.get_blob_client(file.container, file.name)

    def body() -> Iterator[bytes]:
        nonlocal digest
        if package:
            package.seek(0)
            yield from iter(lambda: package.read(transfer.BLOCK), b"")
            return
        digest = hashlib.sha256()
        yield from transfer.load(blob, sending.etag, file.size, digest.update)

    length = package.seek(0, SEEK_END) if package else file.size
    try:
        message_id = bridge.d365.enqueue(
            job.activity_id,
            body,
            length,
            entity=None if package or is_package(file.name) else job.entity,
            company=file.record.company or None,
            external_id=file.record.externalid,
        )
    except Rejected as error:
        outcomes.fail(bridge.account, sending, sending.record, "refused", str(error))
        return
    except Uncertain as error:
        uncertain(bridge, job, sending, str(error))
        return
    except D365Error as error:
        _wait(bridge, job, sending, error)
        return
    report(
        "file.sent",
        job=job.name,
        file=file.name,
        messageId=message_id,
        externalId=file.record.externalid,
        bytes=length,
    )
    now = clock.now()
    first = check_delay(0)
    sent = blobs.update(
        bridge.account,
        sending,
        replace(
            sending.record,
            state="sent",
            messageid=message_id,
            sent=clock.text(now),
            sha256=sha256 or digest.hexdigest(),
            due=clock.text(now + first),
            reason="",
        ),
    )
    look_again(bridge, sent, first)


def uncertain(bridge: Bridge, job: ImportJob | None, file: File, why: str) -> None:
    """Nobody can know whether D365 has the file: hold it, or send it again, as the job says (I2)."""
    if job and job.when_uncertain == "resend":
        _wait(bridge, job, file, Uncertain("enqueue", why))
        return
    outcomes.fail(bridge.account, file, file.record, "uncertain", why)


def wake(bridge: Bridge, job: ImportJob) -> None:
    """Have the next file of an ordered job sent, by an invocation with all its time before it."""
    file = _next(bridge, job)
    if file:
        look_again(bridge, file, timedelta(0))


def start_next(bridge: Bridge, job: ImportJob) -> None:
    """Send what may go now of an ordered job: the next file, and as long as time allows those after it (I5)."""
    started = clock.monotonic()
    while clock.monotonic() - started < bridge.settings.function_timeout.total_seconds() / 2:
        file = _next(bridge, job)
        if file is None:
            return
        send(bridge, job, file)


def _next(bridge: Bridge, job: ImportJob) -> File | None:
    """The file of an ordered job whose turn it is, claimed; None when it is no file's turn."""
    under_way = list(_processing(bridge, job))
    if any(_goes_before(job, file) for file in under_way) or _stopped(bridge, job):
        return None
    waiting = [file for file in under_way if file.record.state == "claimed"]
    if waiting:
        first = _in_order(job, waiting)[0]
        if clock.parse(first.record.due) > clock.now() + timedelta(seconds=1):
            return None
        if blobs.finish_move(bridge.account, first):
            return _next(bridge, job)
        blobs.release_source(bridge.account, first)
        return first
    in_imports: Iterable[File] = blobs.listed(bridge.account, blobs.IMPORTS, f"{job.name}/")
    if job.order_by != "name" or job.reverse_order:  # they are listed by name
        in_imports = _in_order(job, in_imports)
    for dropped in in_imports:
        if _is_named_for(job, dropped) and _unfinished(bridge, dropped):
            why = "its upload may not be at its end, and it goes before the others of its job"
            report("message.ignored", job=job.name, file=dropped.name, reason=why)
            return None
        if take(bridge, dropped):
            claimed = claim(bridge, dropped, job)
            if claimed is None or claimed.record.state != "claimed":
                return None
            if job.pause_between_files:  # its turn has come, its time not yet
                look_again(bridge, claimed, timedelta(seconds=job.pause_between_files))
                return None
            return claimed
        if _stopped(bridge, job):  # by this very file
            return None
    return None


def _unfinished(bridge: Bridge, dropped: File) -> bool:
    """Whether a file's upload may not be at its end, as far as storage shows it."""
    age = clock.now() - dropped.modified
    return age < UPLOADED_WITHIN if dropped.size == 0 else dropped.grows and age < bridge.patience


def _in_order(job: ImportJob, files: Iterable[File]) -> list[File]:
    """Files of an ordered job, dropped or claimed, the one that goes first at the front."""

    def place(file: File) -> tuple[object, ...]:
        by = {"name": "", "time": _dropped_at(file), "size": file.size}[job.order_by]
        return by, file.record.source or file.name, file.name

    return sorted(files, key=place, reverse=job.reverse_order)


def _dropped_at(file: File) -> str:
    """When a file was dropped: its claim's name has kept it (`blobs.stamped`)."""
    stamps = re.findall(r"\.(\d{8}T\d{6}Z)-[0-9a-f]{8}", file.name) if file.record.source else []
    return stamps[-1] if stamps else f"{file.modified.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _goes_before(job: ImportJob, file: File) -> bool:
    """Whether a file in processing keeps the others of its job waiting."""
    return file.record.state == "sending" or (
        file.record.state == "sent" and job.next_after == "ended"
    )


def _stopped(bridge: Bridge, job: ImportJob) -> bool:
    """Whether a failed file holds the job up: until a person has dealt with it, and deleted or moved it."""
    if not job.stops_on_failure:
        return False
    for file in blobs.listed(bridge.account, blobs.FAILED, f"{job.name}/"):
        if file.record.stopsjob and not _is_sent_again(bridge, file):
            report("job.stopped", level=30, job=job.name, file=file.name)
            return True
    return False


def _is_sent_again(bridge: Bridge, failed: File) -> bool:
    """Whether a person has sent a failed file again, which a crash kept from being taken away here."""
    if failed.record.resolution != "resending":
        return False
    dropped = blobs.find(bridge.account, blobs.IMPORTS, failed.record.source)
    return dropped is not None and blobs.end_put_back(bridge.account, dropped)


def look_again(bridge: Bridge, file: File, delay: timedelta) -> None:
    """Put a message on the status queue that becomes visible after `delay`.

    It names the version that it is for, so that one which comes late, or twice, changes nothing (S2).
    """
    bridge.account.queue(blobs.STATUS_QUEUE).send_message(
        json.dumps({"file": file.name, "etag": file.etag, "traceparent": file.record.traceparent}),
        visibility_timeout=round(delay.total_seconds()),
        time_to_live=-1,
    )


def check_delay(checks: int) -> timedelta:
    """How long to wait before the next status check: seconds at first, minutes later (S3)."""
    return timedelta(seconds=min(5 * 2**checks, 300))


def _processing(bridge: Bridge, job: ImportJob) -> Iterator[File]:
    return blobs.listed(bridge.account, blobs.PROCESSING, f"{job.name}/")


def _others_under_way(bridge: Bridge, job: ImportJob, mine: File) -> bool:
    """Whether another file of an ordered job is being sent or was sent, or goes before this one (I5).

    Each worker first writes its intent and then looks: of two at once, at least one sees the other. And one
    that another worker has claimed meanwhile still goes first, if that is its place.
    """
    others = [file for file in _processing(bridge, job) if file.name != mine.name]
    claimed = [file for file in others if file.record.state == "claimed"]
    return (
        any(_goes_before(job, file) for file in others)
        or _in_order(job, [mine, *claimed])[0].name != mine.name
    )


def _wait(
    bridge: Bridge, job: ImportJob, file: File, error: D365Error | InvalidTemplate | OSError
) -> None:
    """The file could not be sent now: try again later, until that has gone on for too long."""
    if clock.now() - clock.parse(file.record.claimed) > GIVE_UP:
        reasons = {Uncertain: "uncertain", InvalidTemplate: "no-template"}
        reason = reasons.get(type(error), "unavailable")
        outcomes.fail(bridge.account, file, file.record, reason, str(error))
        return
    asked = error.retry_after if isinstance(error, D365Error) else None
    own = min(timedelta(seconds=10 * 2 ** min(file.record.attempts, 10)), LONGEST_DELAY)
    delay = own if asked is None else timedelta(seconds=max(1.0, asked))
    _later(bridge, file, delay, str(error))
    report(
        "file.waiting",
        level=30,
        job=job.name,
        file=file.name,
        reason=str(error),
        retryInSeconds=round(delay.total_seconds()),
    )


def _later(bridge: Bridge, file: File, delay: timedelta, reason: str) -> None:
    due = clock.text(clock.now() + delay)
    record = replace(file.record, state="claimed", reason=reason, due=due)
    look_again(bridge, blobs.update(bridge.account, file, record), delay)
