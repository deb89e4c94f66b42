"""Export: what D365 offers on a job's queue becomes a blob in `exports`, and only then is acknowledged."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from mimetypes import guess_file_type
from threading import Condition, Event
from typing import Final
from urllib.parse import quote

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient

from shared import blobs, clock, transfer
from shared.bridge import Bridge, explained
from shared.d365 import D365, LONGEST_WAIT, DequeuedMessage
from shared.d365.errors import D365Error, Rejected, Unavailable, Uncertain
from shared.jobs import ExportJob
from shared.packages import InvalidPackage, PackageCheck, entries
from shared.telemetry import about, report
from shared.threads import Pool
from shared.tracing import new_parent, span

JOBS_AT_ONCE: Final = 4
DOWNLOADS: Final = 3
"""Tries for one package: D365 has been seen to answer 500 to the first and then to give it."""

SLOW: Final = 1.0
PIECE: Final = 64 * 1024
"""After a read that took more than `SLOW` seconds, no more than `PIECE` bytes are asked for before the time is
looked at again: a block of 8 MiB that drips in could outlast the run."""


@dataclass(frozen=True)
class Times:
    """When a run must do what, as `clock.monotonic` times (E6)."""

    take_until: float
    """No message is taken after this."""
    end: float
    """A download still running then is given up; the host would end the run soon after."""


@dataclass(frozen=True)
class Totals:
    """What one run did."""

    packages: int = 0
    failed: int = 0


def export_packages(bridge: Bridge) -> Totals:
    """Serve every enabled job until its queue is empty or the run's time is up (E6). A job that fails does not
    keep the others from running (E3)."""
    jobs = [job for job in bridge.settings.jobs.exports if job.enabled]
    with Pool(bridge.settings.export_parallelism, "export") as pool:
        queues = _Run(bridge, pool).serve(jobs)
    # What a package failed of (D365 asks all to wait, say) may keep its queue from being asked on too.
    failed = sum(len(queue.failed) or bool(queue.error) for queue in queues)
    return Totals(sum(queue.packages for queue in queues), failed)


@dataclass
class _Queue:
    """One job's queue, as a run finds it."""

    job: ExportJob
    turns: int = 0
    """Turns that are waiting or under way."""
    ended: bool = False
    """No further message is taken: it is empty, or something is wrong with it."""
    packages: int = 0
    failed: set[str] = field(default_factory=set)
    """Correlation ids of the messages that could not be served."""
    serving: dict[str, DequeuedMessage] = field(default_factory=dict)
    """The messages that are being served, as D365 offered them last."""
    asking: int = 0
    """Dequeues under way."""
    reoffers: bool = False
    """D365 offers at once what is being served: so one turn is enough."""
    error: str = ""


class _Run:
    """Serves queues by turns of one message each, so many at once as the pool has threads.

    A queue that gives a message gets a further turn at once, beside the one that serves the message, but behind
    the turns of all others: a long queue uses what the short ones leave, and keeps none of them waiting.
    """

    def __init__(self, bridge: Bridge, pool: Pool) -> None:
        self._bridge, self._pool = bridge, pool
        self._started, limit = clock.monotonic(), bridge.settings.function_timeout.total_seconds()
        self._times = Times(self._started + 0.6 * limit, self._started + 0.9 * limit)
        self._at_once = bridge.settings.export_parallelism
        self._lock, self._open, self._all_ended = Condition(), 0, Event()

    def serve(self, jobs: Sequence[ExportJob]) -> list[_Queue]:
        """Serve the jobs' queues to their ends."""
        queues = [_Queue(job) for job in jobs]
        self._open = len(queues)
        for queue in queues:
            self._another_turn(queue)
        if queues:
            self._all_ended.wait()
        return queues

    def _another_turn(self, queue: _Queue) -> None:
        queue.turns += 1
        self._submit(queue)

    def _submit(self, queue: _Queue) -> None:
        self._pool.submit(self._turn, queue)

    def _turn(self, queue: _Queue) -> None:
        try:
            if message := self._take(queue):
                self._serve(queue, message)
                self._submit(queue)  # the next one, behind the turns of the others
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must come to its end
            self._fail(queue, error)
        with self._lock:
            queue.turns -= 1
            if queue.turns == 0:
                self._end(queue)

    def _serve(self, queue: _Queue, message: DequeuedMessage) -> None:
        id_ = message.correlation_id
        with self._lock:
            if queue.turns < self._at_once and not queue.reoffers:
                self._another_turn(queue)
        try:
            acknowledge = partial(self._acknowledge, queue, id_)
            served = _serve(self._bridge, queue.job, message, acknowledge, self._times)
        finally:
            with self._lock:
                del queue.serving[id_]
        with self._lock:
            queue.packages += served
            if not served:
                queue.failed.add(id_)

    def _acknowledge(self, queue: _Queue, id_: str) -> None:
        """Acknowledge a message by the newest offer of it: of several pop receipts, the last one is good."""
        known = queue.serving[id_]
        try:
            self._bridge.d365.acknowledge(queue.job.activity_id, known)
        except Rejected:
            with self._lock:  # just now it may be offered to another turn, which is still asking
                self._lock.wait_for(lambda: queue.asking == 0)
                newest = queue.serving[id_]
            if newest is known:
                raise
            self._bridge.d365.acknowledge(queue.job.activity_id, newest)

    def _take(self, queue: _Queue) -> DequeuedMessage | None:
        """The queue's next message; None when it has ended, the run's time is up, or another turn has it."""
        with self._lock:
            if queue.ended or clock.monotonic() > self._times.take_until:
                return None
            queue.asking += 1
        message, error = None, None
        try:
            with about(job=queue.job.name):
                message = self._bridge.d365.dequeue(queue.job.activity_id)
        except D365Error as raised:
            error = raised
        with self._lock:
            queue.asking -= 1
            self._lock.notify_all()
            if message is None or message.correlation_id in queue.failed:
                # Empty, in trouble, or offering at once what failed: trying on would only turn in a circle.
                queue.ended = True
                message = None
            elif message.correlation_id in queue.serving:
                queue.serving[message.correlation_id], queue.reoffers = message, True
                message = None
            else:
                queue.serving[message.correlation_id] = message
        if error:
            self._fail(queue, error)
        return message

    def _fail(self, queue: _Queue, error: Exception) -> None:
        with self._lock:
            if not queue.error:
                report("export.failed", logging.ERROR, job=queue.job.name, error=explained(error))
            queue.error, queue.ended = str(error) or type(error).__name__, True

    def _end(self, queue: _Queue) -> None:
        seconds = round(clock.monotonic() - self._started, 1)
        counts = {"packages": queue.packages, "failed": len(queue.failed)}
        if not queue.error:
            report("export.finished", job=queue.job.name, **counts, seconds=seconds)
        self._open -= 1
        if self._open == 0:
            self._all_ended.set()


def _serve(
    bridge: Bridge,
    job: ExportJob,
    message: DequeuedMessage,
    acknowledge: Callable[[], None],
    times: Times,
) -> bool:
    """Store one package, then acknowledge it. A failure leaves the message to be offered again (E3)."""
    ids = {"job": job.name, "correlationId": message.correlation_id}
    with span("export package", new_parent(), **ids):
        return _store_and_acknowledge(bridge, job, message, acknowledge, times)


def _store_and_acknowledge(
    bridge: Bridge,
    job: ExportJob,
    message: DequeuedMessage,
    acknowledge: Callable[[], None],
    times: Times,
) -> bool:
    d365, account = bridge.d365, bridge.account
    try:
        blob, size = _store(d365, account, job, message, times)
        if job.unzip:
            unzip(account, blob, size, times)
        # E1: only now, when all of it is committed.
        acknowledge()
    except (D365Error, AzureError, InvalidPackage, transfer.OtherContent) as error:
        text = (
            f"{explained(error)}. The message was not acknowledged: D365 offers it again in about 30 minutes, "
            "and deletes the package seven days after the export"
        )
        report(
            "package.failed",
            logging.ERROR,
            job=job.name,
            correlationId=message.correlation_id,
            error=text,
        )
        return False
    report(
        "package.acknowledged",
        job=job.name,
        correlationId=message.correlation_id,
        blob=blob.blob_name,
    )
    return True


def _store(
    d365: D365,
    account: blobs.DataAccount,
    job: ExportJob,
    message: DequeuedMessage,
    times: Times,
) -> tuple[BlobClient, int]:
    """The package as a blob, with its size: the one it is already, or a new one. Raises as `_fetch` does."""
    started = clock.monotonic()
    name = blobs.package_name(job.name, message.correlation_id)
    blob = account.blobs.get_blob_client(blobs.EXPORTS, name)
    try:
        stored = _fetch(d365, message, blob, job.name, times)
    except transfer.OtherContent as error:
        # E2: the same id with other bytes is a second blob, whose name follows from these.
        name = blobs.package_name(job.name, message.correlation_id, error.sha256)
        blob = account.blobs.get_blob_client(blobs.EXPORTS, name)
        stored = _fetch(d365, message, blob, job.name, times)
    report(
        "package.stored",
        job=job.name,
        correlationId=message.correlation_id,
        blob=blob.blob_name,
        bytes=stored.bytes,
        sha256=stored.sha256,
        seconds=round(clock.monotonic() - started, 2),
        again=not stored.created,
    )
    return blob, stored.bytes


def _fetch(
    d365: D365, message: DequeuedMessage, blob: BlobClient, job: str, times: Times
) -> transfer.Stored:
    """Download a package into a blob; a download that breaks off or comes broken is made again.

    Raises `D365Error`, `InvalidPackage`, `transfer.OtherContent` and the storage's errors.
    """
    attempt = 1
    while True:
        try:
            return _download(d365, message, blob, job, times)
        except (Unavailable, Uncertain, InvalidPackage) as error:
            wait = max(attempt, getattr(error, "retry_after", None) or 0)
            too_long = wait > LONGEST_WAIT or clock.monotonic() + wait > times.end
            if attempt == DOWNLOADS or too_long:
                raise
            report(
                "d365.retry",
                logging.WARNING,
                operation="download",
                error=str(error),
                attempt=attempt,
                waitSeconds=wait,
            )
            clock.sleep(wait)
            attempt += 1


def _download(
    d365: D365, message: DequeuedMessage, blob: BlobClient, job: str, times: Times
) -> transfer.Stored:
    check = PackageCheck()
    with d365.download(message) as download:

        def verify(length: int) -> None:
            # E1: the length that D365 announced, and readable to its end.
            if download.length not in (None, length):
                said = f"{length} bytes came of {download.length} that D365 announced"
                raise Unavailable("download", said)
            check.finish()

        return transfer.store(
            _in_time(download.read, times),
            blob,
            watch=check.feed,
            verify=verify,
            metadata={
                "job": job,
                "correlationid": _header(message.correlation_id),
                "stored": clock.now().isoformat(timespec="seconds"),
            },
            content_type="application/zip",
        )


def _in_time(read: Callable[[int], bytes], times: Times) -> Callable[[int], bytes]:
    """The same, until the run's time is up; then it raises `Unavailable`."""
    most = PIECE

    def read_on(size: int) -> bytes:
        nonlocal most
        before = clock.monotonic()
        if before > times.end:
            raise Unavailable("download", "the run's time was up before the package's end")
        data = read(min(size, most))
        most = PIECE if clock.monotonic() - before > SLOW else transfer.BLOCK
        return data

    return read_on


def unzip(account: blobs.DataAccount, package: BlobClient, size: int, times: Times) -> None:
    """Write the package's files beside it, under its name without `.zip`.

    Raises `InvalidPackage`, `Unavailable` when time is up, `transfer.OtherContent` and the storage's errors.
    """
    folder = package.blob_name.removesuffix(".zip")
    with transfer.reader(package, size) as file:
        for entry in entries(file):
            blob = account.blobs.get_blob_client(blobs.EXPORTS, f"{folder}/{entry.name}")
            with entry.open() as content:
                transfer.store(
                    _in_time(content.read, times),
                    blob,
                    verify=lambda _: None,  # reading to the end has checked length and CRC
                    metadata={"package": _header(package.blob_name)},
                    content_type=guess_file_type(entry.name)[0] or "application/octet-stream",
                )


def _header(text: str) -> str:
    return quote(text, safe=" /{}()+,=@~:")
