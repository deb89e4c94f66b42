"""The journal: the recent history, for the page. A container of that name holds an append blob an hour, such
as `2026/11/23/14.jsonl`, with a JSON object a line: `at`, `event`, the event's fields and the activity id that
the job had.

It is for looking, never for deciding: the containers say what is. A line that can't be written is lost, and the
flow goes on. Whole hours may be deleted at any time; `infra/` does after a while.
"""

import atexit
import json
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock, Thread, Timer, current_thread, main_thread
from types import FrameType
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobType

from shared import clock, deadline
from shared.config.jobs import Jobs
from shared.observability.events import ENDINGS, listeners
from shared.storage.account import DataAccount
from shared.threads import Pool

JOURNAL: Final = "journal"
"""The container. The app makes it where it is missing."""

EVENTS: Final = frozenset(
    (
        *ENDINGS,
        "package.empty",
        "execution.requested",
        "export.finished",
        "export.unfinished",
        "export.failed",
        "file.resent",
        "file.received",
        "file.asked",
        "file.dismissed",
        "package.redelivered",
    )
)

QUIET: Final = timedelta(minutes=15)
"""Of the runs of an export job that found nothing, one is noted in so long: a write costs money."""

EVERY: Final = 5.0
"""Seconds. What is noted within so long of a write goes with the next one: a write for each of many files would
cost as much again as a package."""

WRITE_TIMEOUT: Final = 10.0
"""Seconds for a write. It is made by whoever reports an event, and keeps nobody waiting for long."""

TAIL: Final = 512 * 1024
"""Bytes read of an hour; a busy hour's first lines are left out of what the page shows."""

_TEXT_LIMIT: Final = 500

log = logging.getLogger("bridge.journal")


def keep(account: DataAccount, jobs: Jobs) -> Callable[[], None]:
    """Note every event of `EVENTS` that this process reports from now on. Gives what writes lines that wait."""
    notes = _Notes(account, jobs)
    atexit.register(notes.write)
    _at_sigterm(notes.write)
    listeners.append(notes.hear)
    return notes.write


def _at_sigterm(write: Callable[[], None]) -> None:
    """Write also where a host ends the process by SIGTERM: Python runs nothing at such an exit."""
    if current_thread() is not main_thread():  # no other may say what a signal does
        return
    before = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: FrameType | None) -> None:
        # On a thread of its own: the one that was interrupted may hold a lock that writing needs.
        writing = Thread(target=write, daemon=True)
        writing.start()
        writing.join(EVERY)
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, before or signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, end)


class _Notes:
    """What this process has to note. The first line is written at once, those that follow it soon together."""

    def __init__(self, account: DataAccount, jobs: Jobs) -> None:
        self._account = account
        self._activity_ids = {("file", job.name): job.known_as for job in jobs.imports}
        for kind in ("export", "package"):
            self._activity_ids |= {(kind, job.name): job.known_as for job in jobs.exports}
        self._lock = Lock()
        self._lines: list[bytes] = []
        self._written = float("-inf")
        self._timer: Timer | None = None
        self._quiet_since: dict[str, datetime] = {}

    def hear(self, event: str, fields: Mapping[str, object]) -> None:
        """Note an event, if it is one of `EVENTS`."""
        if event not in EVENTS:
            return
        now = clock.now()
        if self._is_quiet(event, fields, now):
            return
        shortened = {k: v[:_TEXT_LIMIT] if isinstance(v, str) else v for k, v in fields.items()}
        kind, job = event.partition(".")[0], str(fields.get("job", ""))
        if activity_id := self._activity_ids.get((kind, job)):
            shortened["activityId"] = activity_id
        line = json.dumps({"at": clock.text(now), "event": event, **shortened}, ensure_ascii=False)
        with self._lock:
            self._lines.append(line.encode() + b"\n")
            wait = self._written + EVERY - clock.monotonic()
            if wait > 0:
                if self._timer is None:
                    self._timer = Timer(wait, self.write)
                    self._timer.daemon = True
                    self._timer.start()
                return
            self._written = clock.monotonic()
        self.write()

    def _is_quiet(self, event: str, fields: Mapping[str, object], now: datetime) -> bool:
        """Whether it is the run of an export job that found nothing, soon after another such run."""
        job = str(fields.get("job", ""))
        if event == "export.failed":
            self._quiet_since.pop(job, None)
        if event != "export.finished":
            return False
        last = self._quiet_since.get(job, datetime.min.replace(tzinfo=UTC))
        if not (fields["packages"] or fields["failed"]) and now - last < QUIET:
            return True
        self._quiet_since[job] = now
        return False

    def write(self) -> None:
        """Write what is noted and not written yet."""
        with self._lock:
            lines, self._lines = self._lines, []
            self._timer, self._written = None, clock.monotonic()
        if not lines:
            return
        try:
            with deadline.within(WRITE_TIMEOUT):
                _append(self._account, clock.now(), b"".join(lines))
        except AzureError as error:
            why = str(error).split("\n", 1)[0]
            log.warning("lines that the journal lacks: %d (%s)", len(lines), why)


def _append(account: DataAccount, now: datetime, line: bytes) -> None:
    blob = account.blobs.get_blob_client(JOURNAL, _name(now))
    try:
        blob.append_block(line)
    except ResourceNotFoundError as error:
        no_container = getattr(error, "error_code", None) == "ContainerNotFound"
        try:
            if no_container:
                account.blobs.create_container(JOURNAL)
            blob.create_append_blob(match_condition=MatchConditions.IfMissing)
        except HttpResponseError as other:
            if other.status_code not in (409, 412):  # somebody else has just made it
                raise
            if no_container:
                return _append(account, now, line)
        blob.append_block(line)


def _name(moment: datetime) -> str:
    return f"{moment:%Y/%m/%d/%H}.jsonl"


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    at: datetime
    event: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Recent:
    """What the journal says of the last hours, oldest first."""

    since: datetime
    entries: list[Entry]
    complete: bool
    """False where an hour held more than `TAIL` bytes: its first lines are missing."""


def recent(account: DataAccount, hours: int = 24) -> Recent:
    """The last so many hours: a listing for each day, and a request for each hour in which something was."""
    now = clock.now()
    since = now - timedelta(hours=hours)
    hour_names = {_name(now - timedelta(hours=back)) for back in range(hours + 1)}
    sizes: dict[str, int] = {}
    try:
        for day in sorted({name[: len("2026/11/23/")] for name in hour_names}):
            listed = account.blobs.get_container_client(JOURNAL).list_blobs(name_starts_with=day)
            sizes |= {
                blob.name: blob.size
                for blob in listed
                if blob.name in hour_names and blob.blob_type == BlobType.APPENDBLOB
            }
    except ResourceNotFoundError:
        pass  # nothing was noted yet
    with Pool(8) as pool:
        tails = pool.map(partial(_tail, account), *zip(*sorted(sizes.items()), strict=True))
        entries = [entry for text in tails for entry in _entries(text) if entry.at >= since]
    return Recent(since, entries, all(size <= TAIL for size in sizes.values()))


def _tail(account: DataAccount, name: str, size: int) -> bytes:
    """The end of an hour's blob; its first line may be torn."""
    start = max(0, size - TAIL)
    if size == start:
        return b""
    blob = account.blobs.get_blob_client(JOURNAL, name)
    try:
        return blob.download_blob(offset=start, length=size - start).readall()
    except ResourceNotFoundError:
        return b""  # deleted just now


def _entries(text: bytes) -> Iterator[Entry]:
    for line in text.splitlines():
        try:
            fields = json.loads(line)
            yield Entry(clock.parse(fields.pop("at")), fields.pop("event"), fields)
        except (ValueError, KeyError, AttributeError, TypeError):
            continue  # torn, or somebody else's
