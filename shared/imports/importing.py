"""Import: a file dropped into `imports` is claimed, sent to D365, and from then on tracked.

    imports/{path} --claim--> imports-processing [claimed] --intent--> [sending] --enqueue--> [sent]

Each arrow is one conditional write, so of any number of workers one takes it; what a crash leaves at any point
says by its state what may be done next: `claimed` was surely not sent, `sending` nobody can know, `sent` has
its message id (I1, I2). What is to become of a file is decided when it lies in processing, and written there
first (`outcomes`): of two instances that think differently of it, as with two jobs files, one decides.
"""

import hashlib
import json
import logging
import math
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import SEEK_END
from tempfile import SpooledTemporaryFile
from typing import IO, Final
from uuid import uuid4

from azure.core.exceptions import ResourceModifiedError

from shared import clock, deadline
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.d365.errors import D365Error, Rejected, Uncertain
from shared.imports import data_package, outcome, routing, templates
from shared.imports.routing import InvalidDrop, is_package
from shared.imports.templates import InvalidTemplate, WrongFormat
from shared.observability.telemetry import report
from shared.observability.tracing import new_parent, span, trace_of
from shared.storage import blobs, transfer
from shared.storage.blobs import File, Record

GIVE_UP: Final = timedelta(days=1)
"""For so long a file that D365 does not take (busy, not reached, not accepting the app) is sent again."""

KEPT_BACK: Final = 60.0
"""Seconds at the end of an invocation in which what came of a file is written down, and nothing waited for."""

LONGEST_DELAY: Final = timedelta(minutes=15)
"""Between two tries, unless D365 asks for longer."""


class NotItsTurn(Exception):
    """Of an ordered job another file goes first, or has failed and stops the job."""


def import_file(bridge: Bridge, name: str) -> None:
    """Send a dropped file, if nobody has yet. `name` is its blob's in `imports`.

    An event that is repeated, late, or of a file long gone changes nothing.
    """
    if blobs.is_probe(name):
        blobs.delete_probe(bridge.account, name)
        report("probe.arrived", file=name)
        return
    if not blobs.is_addressable(name):
        report_unaddressable(name)
        return
    dropped = blobs.find(bridge.account, blobs.IMPORTS, name)
    if dropped is None:
        _ignore(name, "it is not in imports any more")
        return
    if not blobs.is_file(blobs.IMPORTS, name, dropped.theirs):
        return
    job = bridge.settings.jobs.import_job(job_folder(name))
    wait = wait_before_claim(bridge, dropped)
    if wait and wait.until:
        look_at_drop(bridge, name, wait.until)
    if job and job.ordered:
        start_next(bridge, job)
    elif not wait and (taken := take(bridge, dropped)):
        send(bridge, *taken)


def job_folder(name: str) -> str:
    """What stands for the job in a blob's name, whether there is such a job or not."""
    return name.partition("/")[0]


def wait_before_claim(bridge: Bridge, dropped: File) -> routing.Wait | None:
    """Why a dropped file is left where it is, which is told; None where it can be taken."""
    if not blobs.is_addressable(dropped.name):
        report_unaddressable(dropped.name)
        return routing.Wait("its name has a part that is . or ..", blocks=False)
    wait = reason_to_wait(bridge, dropped)
    # What waits for a person's wish is on the page, and no news every five minutes.
    if wait and wait.reported:
        _ignore(dropped.name, wait.why)
    return wait


def reason_to_wait(bridge: Bridge, dropped: File) -> routing.Wait | None:
    """The same, without a word."""
    job = bridge.settings.jobs.import_job(job_folder(dropped.name))
    if is_never_data(bridge, dropped):
        why = "its name says that it is no data: it is left alone"
        return routing.Wait(why, blocks=False, reported=False)
    return routing.wait(job, dropped, clock.now(), bridge.patience)


def is_never_data(bridge: Bridge, file: File) -> bool:
    """Whether it lies in `imports` and is nothing that anybody wants imported."""
    job = bridge.settings.jobs.import_job(job_folder(file.name))
    return file.container == blobs.IMPORTS and routing.is_never_data(file, job)


def _ignore(name: str, why: str) -> None:
    report("message.ignored", job=job_folder(name), file=name, reason=why)


def report_unaddressable(name: str) -> None:
    """Tell of a blob that no request can reach (A4), since libraries and proxies fold the dots of a URL."""
    report(
        "reconcile.failed",
        logging.ERROR,
        job=job_folder(name),
        file=name,
        error="its name has a part that is . or .., so no tool reaches it and it can't be imported: drop the "
        "file again under another name, and delete this one with a request that writes %2E for each dot",
    )


def take(bridge: Bridge, dropped: File) -> tuple[ImportJob, File] | None:
    """Claim a dropped file: its job and the file to send. None where another worker has it, where it was filed
    under failed just now, or where only its metadata was written meanwhile."""
    claimed = claim(bridge, dropped)
    return decide(bridge, claimed) if claimed and claimed.record.state == "claimed" else None


def claim(bridge: Bridge, dropped: File) -> File | None:
    """Take a dropped file into processing, whatever it is; None when that version is no longer there."""
    blobs.end_put_back(bridge.account, dropped)
    job = bridge.settings.jobs.import_job(job_folder(dropped.name))
    now = clock.now()
    pause = job.pause_between_files if job else 0
    record = Record(
        job=job.name if job else "",
        state="claimed",
        traceparent=new_parent(),
        claimed=clock.text(now),
        due=clock.text(now + timedelta(seconds=pause)),
    )
    if dropped.copy_status not in ("success", "pending"):
        text = (
            f"the copy that was to make the file ended as {dropped.copy_status}, so it is not whole"
        )
        record = replace(record, reason=routing.NOT_WHOLE, error=text)
    claimed = blobs.claim(bridge.account, dropped, record)
    if claimed:
        report(
            "file.claimed",
            job=record.job,
            file=claimed.name,
            source=dropped.name,
            bytes=dropped.size,
            traceId=trace_of(claimed.record.traceparent),
        )
    return claimed


def decide(bridge: Bridge, claimed: File) -> tuple[ImportJob, File] | None:
    """The job that a claimed file is for, and the file with what is known of it by now; None when it was filed
    under failed just now, as none that a job can take. Raises `blobs.Lost`."""
    record = claimed.record
    try:
        job, company = routing.route(bridge.settings.jobs, record.source, claimed)
    except InvalidDrop as error:
        # What does not match the pattern is none of the job's files.
        stops = error.job and error.job.stops_on_failure and error.reason != "no-match"
        record = replace(
            record, job=error.job.name if error.job else "", stopsjob="yes" if stops else ""
        )
        outcome.fail(bridge.account, claimed, record, error.reason, str(error))
        return None
    stops = job.stops_on_failure
    record = replace(record, job=job.name, company=company, stopsjob="yes" if stops else "")
    return job, replace(claimed, record=record)


def resume(bridge: Bridge, file: File) -> None:
    """Go on with a claimed file that was not sent: its worker died, or D365 did not take it then."""
    if not blobs.release_source(bridge.account, file):
        return
    decided = decide(bridge, file)
    if decided is None:
        job = bridge.settings.jobs.import_job(job_folder(file.record.source))
        if job and job.ordered and job.enabled:
            start_next(bridge, job)
        return
    job, file = decided
    if job.ordered:
        start_next(bridge, job)
    elif job.enabled:
        send(bridge, job, file)


def send(bridge: Bridge, job: ImportJob, file: File) -> None:
    """Send a claimed file and record its message id. Raises `blobs.Lost` when another worker has it."""
    record = file.record
    spent = record.spent + time_spent(bridge, record.tried, record.due)
    tried = record.tried and clock.text(clock.now())
    record = replace(record, attempts=record.attempts + 1, spent=spent, tried=tried)
    with span("send file", record.traceparent, job=job.name, file=file.name):
        _check_and_send(bridge, job, replace(file, record=record))


def time_spent(bridge: Bridge, last: str, due: str) -> int:
    """Seconds since the last try, as far as this one comes when it was due: what goes by while a job is paused,
    or while the app does not run, is no time that was spent on the file. 0 where there was no try."""
    if not last:
        return 0
    until = min(clock.now(), clock.parse(due) + bridge.patience)
    return max(0, round((until - clock.parse(last)).total_seconds()))


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
        _wait(bridge, job, file, error)


def _wrap(bridge: Bridge, template: str, job: ImportJob, file: File, package: IO[bytes]) -> str:
    """Write the file's data package; the SHA-256 of the file.

    Raises `InvalidTemplate`, `WrongFormat` and `blobs.Lost`.
    """
    found = templates.fetch(bridge.account, template, job.entity)
    digest = hashlib.sha256()

    blob = bridge.account.blobs.get_blob_client(file.container, file.name)
    content = transfer.load(blob, file.etag, file.size, digest.update)
    try:
        templates.wrap(found, templates.in_format(found.format, content), file.size, package)
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
    digest = hashlib.sha256()
    blob = bridge.account.blobs.get_blob_client(file.container, file.name)

    def body() -> Iterator[bytes]:
        nonlocal digest, file
        if file.record.state == "claimed":
            # I1: the intent is written down before D365 gets the first byte, by one worker alone; and not
            # earlier: while it waits for a token or for D365's leave, a worker may die without a doubt.
            file = _intend(bridge, file)
            if job.ordered and (_others_under_way(bridge, job, file) or _stopped(bridge, job)):
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
            message_id = bridge.d365.enqueue(
                job.activity_id,
                body,
                length,
                entity=None if package or is_package(file.name) else job.entity,
                company=file.record.company or None,
                external_id=file.record.externalid,
            )
    except NotItsTurn as error:
        _later(bridge, file, timedelta(seconds=random.uniform(2, 4)), str(error))
        return
    except Rejected as error:
        outcome.fail(bridge.account, file, file.record, "refused", str(error))
        return
    except Uncertain as error:
        uncertain(bridge, job, file, str(error))
        return
    except D365Error as error:
        _wait(bridge, job, file, error)
        return
    report(
        "file.sent",
        job=job.name,
        file=file.name,
        messageId=message_id,
        externalId=file.record.externalid,
        bytes=length,
    )
    first = check_delay(0)
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
    look_again(bridge, blobs.update(bridge.account, file, record), first)


def _intend(bridge: Bridge, file: File) -> File:
    """Write down that a file is being sent, by one worker alone. Raises `blobs.Lost` at all others."""
    due = clock.text(clock.now() + bridge.settings.function_timeout)
    intent = replace(file.record, state="sending", sender=uuid4().hex, due=due)
    return blobs.update(bridge.account, file, intent)


def uncertain(bridge: Bridge, job: ImportJob | None, file: File, why: str) -> None:
    """Nobody can know whether D365 has the file: hold it, or send it again, as the job says (I2)."""
    if job and job.when_uncertain == "resend":
        _wait(bridge, job, file, Uncertain("enqueue", why))
        return
    outcome.fail(bridge.account, file, file.record, "uncertain", why)


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
    while job.enabled and not _stopped(bridge, job):
        under_way = list(_processing(bridge, job))
        if any(_goes_before(job, file) for file in under_way):
            return None
        claimed = [file for file in under_way if file.record.state == "claimed"]
        if claimed:
            file = _in_order(job, claimed)[0]
            if clock.parse(file.record.due) > clock.now() + timedelta(seconds=1):
                return None
            if not blobs.release_source(bridge.account, file):
                continue
        else:
            dropped = _next_dropped(bridge, job)
            fresh = claim(bridge, dropped) if dropped else None
            if fresh is None or fresh.record.state != "claimed":
                return None
            file = fresh
        decided = decide(bridge, file)
        if decided is None:  # and it may stop the job
            continue
        if job.pause_between_files and not claimed:  # its turn has come, its time not yet
            look_again(bridge, file, timedelta(seconds=job.pause_between_files))
            return None
        return decided[1]
    return None


def _next_dropped(bridge: Bridge, job: ImportJob) -> File | None:
    """The file in `imports` that is to be taken next of an ordered job, if it can be taken by now."""
    dropped: Iterable[File] = blobs.listed(bridge.account, blobs.IMPORTS, f"{job.name}/")
    if job.order_by != "name" or job.reverse_order:  # they are listed by name
        dropped = _in_order(job, dropped)
    for file in dropped:
        wait = wait_before_claim(bridge, file)
        if wait is None or wait.blocks:
            return None if wait else file
    return None


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
    """Whether a file in processing keeps the others of its job waiting: until it has come to its end, and lies
    there."""
    state = file.record.state
    return state != "claimed" and not (state == "sent" and job.next_after == "accepted")


def _stopped(bridge: Bridge, job: ImportJob) -> bool:
    """Whether a failed file holds the job up: until a person has dealt with it, and deleted or moved it."""
    if not job.stops_on_failure:
        return False
    for file in blobs.listed(bridge.account, blobs.FAILED, f"{job.name}/"):
        if file.record.stopsjob and not _is_sent_again(bridge, file):
            report("job.stopped", level=logging.WARNING, job=job.name, file=file.name)
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
    _enqueue(
        bridge,
        {"file": file.name, "etag": file.etag, "traceparent": file.record.traceparent},
        delay,
    )


def look_at_drop(bridge: Bridge, name: str, moment: datetime) -> None:
    """Put a message on the status queue by which a dropped file is looked at again then."""
    _enqueue(bridge, {"dropped": name}, max(timedelta(0), moment - clock.now()))


def _enqueue(bridge: Bridge, message: dict[str, str], delay: timedelta) -> None:
    bridge.account.queue(blobs.STATUS_QUEUE).send_message(
        json.dumps(message),
        visibility_timeout=math.ceil(delay.total_seconds()),
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
    _later(bridge, replace(file, record=replace(record, tried=tried)), delay, str(error))
    report(
        "file.waiting",
        level=logging.WARNING,
        job=job.name,
        file=file.name,
        reason=str(error),
        retryInSeconds=round(delay.total_seconds()),
    )


def _later(bridge: Bridge, file: File, delay: timedelta, reason: str) -> None:
    due = clock.text(clock.now() + delay)
    record = replace(file.record, state="claimed", reason=reason, due=due)
    look_again(bridge, blobs.update(bridge.account, file, record), delay)
