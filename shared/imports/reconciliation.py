"""Reconcile: finds files whose event or queue message was lost, so that no file waits for ever (I3).

It reads the containers alone."""

import logging
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

from azure.core.exceptions import ResourceNotFoundError

from shared import clock
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.imports import claim, schedule, turns
from shared.imports.routing import UPLOADED_WITHIN
from shared.observability.events import emit
from shared.storage import files, names
from shared.storage.account import IMPORTS, POISON_QUEUES, PROCESSING
from shared.storage.errors import Conflict, explained
from shared.storage.records import File

_AT_ONCE = timedelta(0)


def reconcile(bridge: Bridge) -> None:
    """Take up dropped files without an event, files in processing whose time is past, and poison messages.

    A file that fails is reported and does not keep the others from being looked at. Nothing is sent here: that
    is left to invocations of its own, so that none is ended by the host in the middle of it.
    """
    started = clock.monotonic()
    claimed = _dropped(bridge)
    requeued = _overdue(bridge)
    for job in bridge.settings.jobs.imports:
        _guarded(job.name, partial(turns.enqueue_next, bridge, job))
    poison = sum(_guarded(name, partial(_poison, bridge, name)) or 0 for name in POISON_QUEUES)
    seconds = round(clock.monotonic() - started, 1)
    emit("reconcile.finished", found=claimed, requeued=requeued, poison=poison, seconds=seconds)


def _dropped(bridge: Bridge) -> int:
    """Claim the files in `imports` that no event brought; the status queue has them sent."""
    count = 0
    latest = clock.now() - bridge.patience
    for dropped in _in_time(bridge, IMPORTS):
        if dropped.modified > latest:
            continue  # its event may be on its way, or its upload not at its end
        count += bool(_guarded(dropped.name, partial(_claim, bridge, dropped)))
    return count


def _claim(bridge: Bridge, dropped: File) -> bool:
    job = bridge.settings.jobs.import_job(names.job_folder(dropped.name))
    if job and job.one_at_a_time:  # its files are started below, one by one
        return False
    if claim.check_drop(bridge, dropped) or _may_be_open(bridge, job, dropped):
        return False
    routed = claim.claim_and_route(bridge, dropped)
    if routed:
        schedule.check_file(bridge, routed[1], _AT_ONCE)
    return routed is not None


def _may_be_open(bridge: Bridge, job: ImportJob | None, dropped: File) -> bool:
    """Whether a file without an event may still be written: in a hierarchical namespace it is seen before it is
    closed, which is its event. In a job with a pattern it was renamed, which is none."""
    fresh = clock.now() - dropped.modified < UPLOADED_WITHIN
    has_pattern = bool(job and job.pattern)
    return fresh and not has_pattern and files.is_hierarchical(bridge.account, dropped)


def _overdue(bridge: Bridge) -> int:
    """Files in processing whose worker died or whose message was lost get a new message."""
    count = 0
    latest = clock.now() - bridge.patience
    for file in _in_time(bridge, PROCESSING):
        if clock.parse(file.record.due) < latest and file.modified < latest:
            count += bool(_guarded(file.name, partial(_check, bridge, file)))
    return count


def _check(bridge: Bridge, file: File) -> bool:
    schedule.check_file(bridge, file, _AT_ONCE)
    return True


def _in_time(bridge: Bridge, container: str) -> Iterator[File]:
    """The container's files, as many as a third of an invocation has time for: the next run has the others."""
    until = clock.monotonic() + bridge.settings.function_timeout.total_seconds() / 3
    for file in files.listed(bridge.account, container):
        if clock.monotonic() > until:
            return
        yield file


def _poison(bridge: Bridge, name: str) -> int:
    """Report what the host gave up, and remove it: the containers say what is still to be done."""
    count = 0
    # As it lies there: what the host could not decode is among the reasons to give a message up.
    queue = bridge.account.queues.get_queue_client(name)
    try:
        for message in queue.receive_messages(messages_per_page=32, visibility_timeout=300):
            emit("poison.found", logging.ERROR, queue=name, message=_decoded(message.content))
            queue.delete_message(message)
            count += 1
    except ResourceNotFoundError:
        pass  # the host makes it when it first gives something up
    return count


def _decoded(content: object) -> str:
    try:
        return b64decode(str(content), validate=True).decode()
    except ValueError:
        return str(content)


def _guarded[R](name: str, step: Callable[[], R]) -> R | None:
    try:
        return step()
    except Conflict as error:
        why = f"another worker has it: {error}"
        emit("message.ignored", job=names.job_folder(name), file=name, reason=why)
    except Exception as error:  # noqa: BLE001 - whatever it is, the others must be looked at
        job = names.job_folder(name)
        emit("reconcile.failed", logging.ERROR, job=job, file=name, error=explained(error))
    return None
