"""The rules of ordered jobs (I5): decides which file is sent next. Pure: nothing is read and nothing is
written here.

One file of an ordered job is under way at a time. So it is in a job of the package API, since a data project
runs one import at a time; but there no file waits for one that can't go yet. A job with `onFailure: stop` sends
nothing while one of its failed files lies in `imports-failed`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared import clock
from shared.config.jobs import ImportJob
from shared.imports import routing
from shared.storage import names
from shared.storage.records import File, State

SOON: Final = timedelta(seconds=1)
"""A time that is so near has come: times are kept to the second."""


@dataclass(frozen=True)
class Send:
    """It is this file's turn: one that is claimed, or else a dropped one."""

    file: File


@dataclass(frozen=True)
class Wait:
    """It is no file's turn yet."""

    why: str
    until: datetime | None = None
    """When it is the turn of a claimed file that waits; None where something must happen first."""


@dataclass(frozen=True)
class Stop:
    """Nothing is sent until a person has done something."""

    why: str
    failed: File | None = None
    """The failed file that stops the job; None where the job is paused."""


def decide(
    job: ImportJob,
    failed: Iterable[File],
    processing: Iterable[File],
    dropped: Iterable[tuple[File, routing.Wait | None]],
    now: datetime,
) -> Send | Wait | Stop:
    """What an ordered job does now. Each of the three is read only as far as it is needed.

    `failed` are the failed files that stop the job; `processing` its files in processing, in any order;
    `dropped` its dropped files in the job's order (`arranged`), each with the reason to leave it where it is.
    """
    if not job.enabled:
        return Stop("the job is paused")
    for file in failed:
        return Stop("a file has failed", file)
    processing = list(processing)
    for file in processing:
        if keeps_others_waiting(job, file):
            return Wait(f"{file.name} is under way")
    claimed = arranged(job, (file for file in processing if file.record.state == State.CLAIMED))
    if not job.ordered:
        claimed = [file for file in claimed if clock.parse(file.record.due) <= now + SOON]
    if claimed:
        due = clock.parse(claimed[0].record.due)
        if due > now + SOON:
            return Wait(f"{claimed[0].name} goes next, at its time", due)
        return Send(claimed[0])
    for file, reason in dropped:
        if reason is None:
            return Send(file)
        if reason.blocks and job.ordered:
            return Wait(f"{file.name} goes next: {reason.why}", reason.until)
    return Wait("there is no file")


def arranged(job: ImportJob, files: Iterable[File]) -> list[File]:
    """Files of an ordered job, dropped or claimed, the one that goes first at the front."""

    def sort_key(file: File) -> tuple[object, ...]:
        by = {"name": "", "time": _dropped_at(file), "size": file.size}[job.order_by]
        return by, file.record.source or file.name, file.name

    return sorted(files, key=sort_key, reverse=job.reverse_order)


def _dropped_at(file: File) -> datetime:
    """When a file was dropped, to the second: a claimed one's name has kept it."""
    stamp = names.dropped_at(file.name) if file.record.source else None
    return stamp or file.modified.replace(microsecond=0)


def keeps_others_waiting(job: ImportJob, file: File) -> bool:
    """Whether a file in processing keeps the others of its job waiting, until it has ended and left there."""
    state = file.record.state
    return state != State.CLAIMED and not (state == State.SENT and job.next_after == "accepted")


def goes_first(job: ImportJob, mine: File, processing: Iterable[File]) -> bool:
    """Whether no other file in processing is under way or goes before this one.

    Each worker first writes its intent and then looks: of two at once, at least one sees the other. And one
    that another worker has claimed meanwhile still goes first, if that is its place.
    """
    others = [file for file in processing if file.name != mine.name]
    claimed = [file for file in others if file.record.state == State.CLAIMED]
    return not any(keeps_others_waiting(job, file) for file in others) and (
        not job.ordered or arranged(job, [mine, *claimed])[0].name == mine.name
    )
