"""Finds the next file of an ordered job: reads what `order.decide` needs, and claims the file that it names."""

import logging
from collections.abc import Iterable, Iterator
from datetime import timedelta

from shared import clock
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.imports import claim, order, routing, schedule
from shared.observability.events import emit
from shared.storage import files, moves
from shared.storage.account import FAILED, IMPORTS, PROCESSING
from shared.storage.records import File


def enqueue_next(bridge: Bridge, job: ImportJob | None) -> None:
    """Let another invocation, which has all its time, send the next file of an ordered job."""
    if job and job.one_at_a_time and job.enabled and (file := next_file(bridge, job)):
        schedule.check_file(bridge, file, timedelta(0))


def next_file(bridge: Bridge, job: ImportJob) -> File | None:
    """The file of an ordered job whose turn it is, claimed and routed; None when it is no file's turn."""
    while True:
        processing = files.listed(bridge.account, PROCESSING, f"{job.name}/")
        decision = order.decide(
            job, _stopping(bridge, job), processing, _dropped(bridge, job), clock.now()
        )
        if isinstance(decision, order.Stop):
            _report_stop(job, decision.failed)
        if not isinstance(decision, order.Send):
            return None
        file = decision.file
        is_new = file.container == IMPORTS
        if is_new:
            claimed = claim.claim(bridge, file)
            if claimed is None:  # another worker has it
                return None
            file = claimed
        elif not moves.release_source(bridge.account, file):
            continue
        routed = claim.route(bridge, file)
        if routed is None:  # it was refused, which may stop the job
            continue
        if is_new and job.pause_between_files:  # its turn has come, its time not yet
            schedule.check_file(bridge, file, timedelta(seconds=job.pause_between_files))
            return None
        return routed[1]


def is_turn_of(bridge: Bridge, job: ImportJob, file: File) -> bool:
    """Whether a file whose intent is written is still the one to be sent."""
    processing = files.listed(bridge.account, PROCESSING, f"{job.name}/")
    if not order.goes_first(job, file, processing):
        return False
    failed = next(_stopping(bridge, job), None)
    _report_stop(job, failed)
    return failed is None


def _report_stop(job: ImportJob, failed: File | None) -> None:
    if failed:
        emit("job.stopped", level=logging.WARNING, job=job.name, file=failed.name)


def _dropped(bridge: Bridge, job: ImportJob) -> Iterator[tuple[File, routing.Wait | None]]:
    """The job's dropped files in its order, each with why it is left where it is."""
    dropped: Iterable[File] = files.listed(bridge.account, IMPORTS, f"{job.name}/")
    if job.order_by != "name" or job.reverse_order:  # they are listed by name
        dropped = order.arranged(job, dropped)
    for file in dropped:
        yield file, claim.check_drop(bridge, file)


def _stopping(bridge: Bridge, job: ImportJob) -> Iterator[File]:
    """The failed files that stop the job, until a person has deleted, moved, resent or dismissed them."""
    if job.stops_on_failure:
        for file in files.listed(bridge.account, FAILED, f"{job.name}/"):
            if file.record.stopsjob and not _is_resent(bridge, file):
                yield file


def _is_resent(bridge: Bridge, failed: File) -> bool:
    """Whether a person has sent a failed file again, and a crash kept it from being deleted here."""
    if failed.record.resolution != "resending":
        return False
    dropped = files.find(bridge.account, IMPORTS, failed.record.source)
    return dropped is not None and moves.end_put_back(bridge.account, dropped)
