"""Checks whether a dropped file must still wait, claims it, and applies `routing` to the claimed file.

The claim of one version is a copy that only one of many workers makes (I1). What is to become of a file is
decided when it lies in processing, and written there first (`outcome`): of two instances that decide
differently, as with two jobs files, one wins.
"""

import logging
from dataclasses import replace
from datetime import timedelta

from shared import clock
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.imports import outcome, routing
from shared.imports.routing import InvalidDrop
from shared.observability.events import emit
from shared.observability.tracing import new_parent, trace_of
from shared.storage import moves, names
from shared.storage.account import IMPORTS
from shared.storage.records import File, Record, State


def reason_to_wait(bridge: Bridge, dropped: File) -> routing.Wait | None:
    """Why a dropped file is left where it is; None where it can be taken."""
    job = bridge.settings.jobs.import_job(names.job_folder(dropped.name))
    if is_never_data(bridge, dropped):
        why = "its name says that it is no data: it is left alone"
        return routing.Wait(why, blocks=False, reported=False)
    return routing.wait(job, dropped, clock.now(), bridge.patience)


def check_drop(bridge: Bridge, dropped: File) -> routing.Wait | None:
    """The same as `reason_to_wait`, and log the reason."""
    if not names.is_addressable(dropped.name):
        report_unaddressable(dropped.name)
        return routing.Wait("its name has a part that is . or ..", blocks=False)
    wait = reason_to_wait(bridge, dropped)
    # What waits until a person enables its job is on the page, and no news every five minutes.
    if wait and wait.reported:
        ignore(dropped.name, wait.why)
    return wait


def is_never_data(bridge: Bridge, file: File) -> bool:
    """Whether it lies in `imports` and is nothing that anybody wants imported."""
    job = bridge.settings.jobs.import_job(names.job_folder(file.name))
    return file.container == IMPORTS and routing.is_never_data(file, job)


def ignore(name: str, why: str) -> None:
    """Log why nothing is done about a dropped file."""
    emit("message.ignored", job=names.job_folder(name), file=name, reason=why)


def report_unaddressable(name: str) -> None:
    """Report a blob that no request can reach (A4): libraries and proxies fold the dots of a URL."""
    emit(
        "reconcile.failed",
        logging.ERROR,
        job=names.job_folder(name),
        file=name,
        error="its name has a part that is . or .., so no tool reaches it and it can't be imported: drop the "
        "file again under another name, and delete this one with a request that writes %2E for each dot",
    )


def claim(bridge: Bridge, dropped: File) -> File | None:
    """Move a dropped file into processing. None when that version is gone, or another worker has the file."""
    moves.end_put_back(bridge.account, dropped)
    job = bridge.settings.jobs.import_job(names.job_folder(dropped.name))
    now = clock.now()
    pause = job.pause_between_files if job else 0
    record = Record(
        job=job.name if job else "",
        environment=bridge.settings.environment_of(job).name if job else "",
        state=State.CLAIMED,
        traceparent=new_parent(),
        claimed=clock.text(now),
        due=clock.text(now + timedelta(seconds=pause)),
    )
    if dropped.copy_status not in ("success", "pending"):
        text = (
            f"the copy that was to make the file ended as {dropped.copy_status}, so it is not whole"
        )
        record = replace(record, reason=routing.NOT_WHOLE, error=text)
    claimed = moves.claim(bridge.account, dropped, record)
    if claimed:
        emit(
            "file.claimed",
            job=record.job,
            environment=record.environment,
            file=claimed.name,
            source=dropped.name,
            bytes=dropped.size,
            traceId=trace_of(claimed.record.traceparent),
        )
    return claimed if claimed and claimed.record.state == State.CLAIMED else None


def route(bridge: Bridge, claimed: File) -> tuple[ImportJob, File] | None:
    """The job that a claimed file is for, and the file with its record as of then. None when no job can take
    it: then it lies under failed. Raises `Conflict`."""
    try:
        job, file = routing.route(bridge.settings.jobs, claimed)
    except InvalidDrop as error:
        outcome.refuse(bridge.account, claimed, error)
        return None
    environment = bridge.settings.environment_of(job).name
    return job, replace(file, record=replace(file.record, environment=environment))


def claim_and_route(bridge: Bridge, dropped: File) -> tuple[ImportJob, File] | None:
    """Claim and route a file. None also if another worker has it, or if only its metadata has changed."""
    claimed = claim(bridge, dropped)
    return route(bridge, claimed) if claimed else None
