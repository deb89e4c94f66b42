"""An export run: serves the jobs' queues by turns, and hands the jobs that it has no time for to
`export_job`."""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Condition
from typing import Final

from shared import clock, deadline
from shared.bridge import IN_TIME, Bridge
from shared.config import ncrontab
from shared.config.jobs import ExportJob
from shared.config.settings import EXPORT_SCHEDULE, schedule
from shared.d365 import DequeuedMessage
from shared.d365.errors import D365Error, Rejected
from shared.exports import handover, package
from shared.observability.events import about, emit
from shared.storage.errors import explained
from shared.threads import Pool

LONG: Final = 5.0
"""Seconds. A turn that lasts longer leaves its slot to jobs that have none: no job waits for another job's
package (E8)."""

LATER: Final = 60
"""Seconds until a job is taken up again whose environment has all the invocations that it may have."""

GONE: Final = (404, 410)
"""Answers to an acknowledgement of a message that D365 does not know any more: it was acknowledged before, or
its pop receipt has expired, and then D365 offers it again."""


@dataclass(frozen=True)
class Totals:
    """What one run did."""

    packages: int = 0
    failed: int = 0


def export_packages(bridge: Bridge) -> Totals:
    """Serve every enabled job until its queue is empty or the run's time is up (E6). A job that fails does not
    keep the others from running (E3); what the run has no time for is handed to `export_job`."""
    jobs = [job for job in bridge.settings.jobs.exports if job.enabled]
    if projects := [job for job in jobs if job.api == "package"]:
        from shared.exports import data_project  # a cold start need not wait for it

        data_project.wake_due(bridge, projects)
    return _Run(bridge, [job for job in jobs if job.api != "package"]).serve()


def export_job(bridge: Bridge, message: dict[str, str]) -> Totals:
    """Serve the job that a message on the queue `export-jobs` names, if it is still there and enabled."""
    name = message.get("job")
    jobs = [job for job in bridge.settings.jobs.exports if job.name == name and job.enabled]
    for job in jobs:
        environment = bridge.settings.environment_of(job).name
        with about(environment=environment), bridge.slot("exports", environment) as has_slot:
            if has_slot and job.api == "package":
                from shared.exports import data_project

                return Totals(*data_project.export(bridge, job))
            if has_slot:
                return _Run(bridge, [job]).serve()
        handover.enqueue(bridge, job, LATER)
    return Totals()


type _Key = tuple[str, str]
"""What makes two offers the same message: correlation id and download location."""


@dataclass(eq=False)
class _Queue:
    """One job's queue, as a run finds it. The run's lock guards it."""

    job: ExportJob
    lane: "_Lane"
    turns: int = 0
    """Turns that are waiting or under way."""
    running: int = 0
    """Turns that are under way."""
    closed: bool = False
    """No further message is taken in this pass: the queue is empty, or something is wrong with it."""
    unfinished: bool = False
    """The run's time was up before the queue was seen to its end."""
    again: bool = False
    """It was seen to its end in this run before."""
    serving: dict[_Key, DequeuedMessage] = field(default_factory=dict)
    """The messages that are being served, as D365 offered them last."""
    asking: int = 0
    """Dequeues under way."""
    reoffers: bool = False
    """D365 offers at once what is being served: so one turn is enough."""
    packages: int = 0
    failed: set[_Key] = field(default_factory=set)
    """The messages that could not be served in this pass."""
    error: str = ""


@dataclass(eq=False)
class _Lane:
    """What one environment has of a run, so that none waits for another (A7): its slots, and who has them."""

    environment: str
    waiting: deque[_Queue] = field(default_factory=deque)
    began: dict[object, float] = field(default_factory=dict)
    """When each turn began that is under way."""


class _Run:
    """Serves queues by turns of one message each, so many at once in each environment as `EXPORT_PARALLELISM`
    says.

    A queue that gives a message gets a further turn at once, beside the one that serves the message, but behind
    the turns of all others: a long queue uses what the short ones leave, and keeps none of them waiting.

    A pass over a queue ends when it is empty or in trouble. While other queues are still served, it is asked
    again whenever the schedule would have started a run.
    """

    def __init__(self, bridge: Bridge, jobs: Sequence[ExportJob]) -> None:
        self._bridge = bridge
        self._started, limit = clock.monotonic(), bridge.settings.function_timeout.total_seconds()
        self._take_until = self._started + 0.6 * limit
        """No message is taken after this (E6)."""
        self._until = self._started + 0.9 * limit
        """What is still under way then is given up."""
        self._over = self._started + IN_TIME * limit
        """The run ends then, without what hangs; the host would end it soon after."""
        self._places = bridge.settings.export_parallelism
        self._lanes = {each.name: _Lane(each.name) for each in bridge.settings.environments}
        self._queues = [
            _Queue(job, self._lanes[bridge.settings.environment_of(job).name])
            for job in sorted(jobs, key=_last_asked)
        ]
        self._lock = Condition()
        self._totals = Totals()
        self._errors: list[Exception] = []

    def serve(self) -> Totals:
        """Serve the queues to their ends. Raises what kept the end of a queue from being reported."""
        # No `with`: a turn that hangs must not keep the run from its end.
        pool = Pool(self._places * len(self._lanes) + len(self._queues), "export")
        ask_again = self._next_start()
        with deadline.within(self._over - clock.monotonic()), self._lock:
            for queue in self._queues:
                self._open(queue)
            while self._goes_on() and (now := clock.monotonic()) < self._over:
                if now >= ask_again:
                    ask_again = self._next_start()
                    self._ask_again()
                for lane in self._lanes.values():
                    self._start_turns(lane, pool)
                self._lock.wait(max(0.01, min(self._wait(now), ask_again - now)))
            hanging = [queue for queue in self._queues if queue.running]
        pool.shutdown(wait=False, cancel_futures=True)
        for queue in hanging:
            text = "a request did not end in the run's time: what it was about is offered again"
            ids = {"job": queue.job.name, "environment": queue.lane.environment}
            emit("export.failed", logging.ERROR, **ids, error=text)
        if self._errors:
            raise self._errors[0]
        return self._totals

    # -- which turn is next: under the lock -----------------------------------------------------------

    def _goes_on(self) -> bool:
        return any(lane.waiting or lane.began for lane in self._lanes.values())

    def _open(self, queue: _Queue, *, again: bool = False) -> None:
        """Begin a pass over a queue."""
        queue.again = again
        queue.closed = queue.unfinished = queue.reoffers = False
        queue.packages, queue.failed, queue.error = 0, set(), ""
        self._another_turn(queue)

    def _ask_again(self) -> None:
        """Ask each queue anew that no turn is about to ask."""
        for queue in self._queues:
            if not queue.turns and not queue.running:
                self._open(queue, again=True)
            elif queue.turns == len(queue.serving):
                queue.closed = queue.reoffers = False
                self._another_turn(queue)

    def _another_turn(self, queue: _Queue) -> None:
        queue.turns += 1
        queue.lane.waiting.append(queue)

    def _start_turns(self, lane: _Lane, pool: Pool) -> None:
        while lane.waiting:
            now, queue = clock.monotonic(), lane.waiting[0]
            if len(lane.began) >= self._places:
                without = [queue for queue in lane.waiting if not queue.running]
                short = sum(began > now - LONG for began in lane.began.values())
                if not without or short >= self._places:
                    return
                queue = without[0]
            lane.waiting.remove(queue)
            queue.running += 1
            turn = object()
            lane.began[turn] = now
            pool.submit(self._turn, queue, turn)

    def _wait(self, now: float) -> float:
        """Seconds until a turn that is under way may leave its slot to a waiting one, or the run is over."""
        ends = [
            began + LONG
            for lane in self._lanes.values()
            if lane.waiting
            for began in lane.began.values()
        ]
        return min([self._over, *(end for end in ends if end > now)]) - now

    def _next_start(self) -> float:
        """When the schedule would start the next run."""
        now = clock.now()
        due = ncrontab.next_run(schedule("EXPORT_SCHEDULE", EXPORT_SCHEDULE), now)
        return clock.monotonic() + (due - now).total_seconds() if due else self._over

    # -- a turn: on a thread of the pool --------------------------------------------------------------

    def _turn(self, queue: _Queue, turn: object) -> None:
        with about(environment=queue.lane.environment):
            self._take_turn(queue, turn)

    def _take_turn(self, queue: _Queue, turn: object) -> None:
        goes_on = False
        try:
            if taken := self._take(queue):
                self._serve(queue, *taken)
                goes_on = True
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must come to its end
            self._fail(queue, error)
        with self._lock:
            queue.turns -= 1
            if goes_on:
                self._another_turn(queue)  # behind the turns of the others
            ended = queue.turns == 0
        try:
            if ended:
                self._end(queue)
        except Exception as error:  # noqa: BLE001 - as above
            self._errors.append(error)
        finally:
            with self._lock:
                del queue.lane.began[turn]
                queue.running -= 1
                self._lock.notify_all()

    def _take(self, queue: _Queue) -> tuple[_Key, DequeuedMessage] | None:
        """The queue's next message; None when there is none for this turn."""
        if not self._may_take(queue):
            return None
        _asked[queue.job.name] = clock.monotonic()
        try:
            with about(job=queue.job.name):
                message = self._bridge.d365_for(queue.job).dequeue(queue.job.activity_id)
        except D365Error as error:
            self._note_offer(queue, None)
            self._fail(queue, error)
            return None
        return self._note_offer(queue, message)

    def _may_take(self, queue: _Queue) -> bool:
        """Whether this turn asks for a message. When time is up, another invocation goes on with the job."""
        with self._lock:
            if queue.closed:
                return False
            late = clock.monotonic() > self._take_until
            if late:
                queue.unfinished = queue.closed = True
            else:
                queue.asking += 1
        if late:
            handover.enqueue(self._bridge, queue.job, 0)
        return not late

    def _note_offer(
        self, queue: _Queue, message: DequeuedMessage | None
    ) -> tuple[_Key, DequeuedMessage] | None:
        """Note what D365 has offered; the message, if this turn is to serve it."""
        with self._lock:
            queue.asking -= 1
            self._lock.notify_all()
            if message is None:
                queue.closed = True
                return None
            key = (message.correlation_id, message.download_location)
            if key in queue.failed:
                # Stop asking this queue: it offers a message that has just failed.
                queue.closed = True
                return None
            if key in queue.serving:
                # D365 offers again what another turn is serving: only the newest pop receipt is valid.
                queue.serving[key], queue.reoffers = message, True
                return None
            queue.serving[key] = message
            if queue.turns < self._places and not queue.reoffers:
                self._another_turn(queue)
                self._lock.notify_all()
            return key, message

    def _serve(self, queue: _Queue, key: _Key, message: DequeuedMessage) -> None:
        outcome = "failed"
        try:
            acknowledge = partial(self._acknowledge, queue, key)
            seconds = self._until - clock.monotonic()
            outcome = package.serve(self._bridge, queue.job, message, acknowledge, seconds)
        finally:
            with self._lock:
                del queue.serving[key]
                queue.packages += outcome == "delivered"
                if outcome == "failed":
                    queue.failed.add(key)

    def _acknowledge(self, queue: _Queue, key: _Key) -> bool:
        """Acknowledge a message; False where D365 does not know it any more. D365 may offer it again while we
        store it: only the newest pop receipt is valid."""
        with self._lock:
            offer = queue.serving[key]
        while True:
            try:
                self._bridge.d365_for(queue.job).acknowledge(queue.job.activity_id, offer)
                return True
            except Rejected as error:
                newest = self._newest_offer(queue, key)
                if newest is offer:
                    if error.status in GONE:
                        return False
                    raise
                offer = newest

    def _newest_offer(self, queue: _Queue, key: _Key) -> DequeuedMessage:
        """The message as D365 offered it last. A turn that is still asking may be getting it just now."""
        with self._lock:
            left = max(0.0, self._until - clock.monotonic())
            self._lock.wait_for(lambda: queue.asking == 0, left)
            return queue.serving[key]

    def _fail(self, queue: _Queue, error: Exception) -> None:
        with self._lock:
            first = not queue.error
            queue.error, queue.closed = str(error) or type(error).__name__, True
        if first:
            emit("export.failed", logging.ERROR, job=queue.job.name, error=explained(error))

    def _end(self, queue: _Queue) -> None:
        """Report the end of a pass. No lock is held meanwhile: the journal is written, which may take long."""
        with self._lock:
            # The reason may concern the whole queue (D365 asks everybody to wait, for example).
            failed = len(queue.failed) or bool(queue.error)
            packages, totals = queue.packages, self._totals
            self._totals = Totals(totals.packages + packages, totals.failed + failed)
        name = queue.job.name
        counts = {"packages": packages, "failed": len(queue.failed)}
        seconds = round(clock.monotonic() - self._started, 1)
        if queue.unfinished and queue.again and not packages and not failed:
            return  # the run is there for others still: nothing of this queue was left, and it is handed on
        if queue.unfinished and not queue.error:
            emit("export.unfinished", logging.WARNING, job=name, **counts, seconds=seconds)
        elif not queue.error:
            emit("export.finished", job=name, **counts, seconds=seconds)


_asked: Final[dict[str, float]] = {}
"""When this process last asked each job's queue: the next run begins where this one ended."""


def _last_asked(job: ExportJob) -> float:
    return _asked.get(job.name, float("-inf"))
