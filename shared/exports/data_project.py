"""Exports data projects by the package API: one export for each due time, whose package is fetched even after
a crash.

The timer `export_packages` sees that a job is due and puts a message on the queue `export-jobs`; `export_job`
goes on with the job from there, with a message to itself wherever it must wait. What is under way stands in the
job's `Execution`, so any worker can go on with it, and the timer finds what lost its message.

A data project runs one execution at a time. Of the due times that pass while one is under way, or while the app
is down, the latest is exported: that export holds what the earlier ones would have held.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobProperties, ContentSettings

from shared import clock, deadline, packages
from shared.bridge import Bridge
from shared.config import ncrontab
from shared.config.jobs import ExportJob
from shared.d365 import D365
from shared.d365.errors import D365Error, NotAccepted, Rejected, Unavailable
from shared.d365.package_api import new_execution_id
from shared.d365.statuses import GIVE_UP, is_partial, meaning
from shared.exports import execution, formats, handover, package
from shared.exports.deliveries import Delivery
from shared.exports.execution import Execution, Held, Outcome, State
from shared.exports.package import Offer, Package, Serving
from shared.observability.events import emit
from shared.observability.tracing import new_parent, span
from shared.packages import InvalidPackage
from shared.storage import block_copy, leases, names, signed, transfer
from shared.storage.account import EXPORTS, STATE
from shared.storage.block_copy import NotCopied
from shared.storage.errors import Conflict, explained
from shared.threads import Pool

FIRST_LOOK: Final = timedelta(seconds=5)
"""Until D365 is asked first how an execution fares; each further wait is twice as long, up to the patience."""

KEPT: Final = timedelta(days=7)
"""For so long D365 keeps a package."""

REQUESTS: Final = 2
"""So often D365 is asked for one execution, under the same id: the second time when it surely knows nothing of
the first."""

BY_STORAGE: Final = block_copy.BLOCK
"""Bytes of a package from which on storage fetches it by itself. A smaller one costs fewer requests, and is
checked to its last byte, where the app carries it."""

LOST: Final = (
    "With change tracking, what this export held is not in the next one: run ResetVersionToken for the "
    "project's entities, or export everything once (docs/operations.md)"
)


@dataclass(frozen=True)
class _Work:
    """A job whose execution this worker holds."""

    bridge: Bridge
    job: ExportJob
    held: Held

    @property
    def execution(self) -> Execution:
        return self.held.execution

    @property
    def d365(self) -> D365:
        return self.bridge.d365_for(self.job)

    @property
    def limit(self) -> timedelta:
        """How long D365 may not know an execution that it has just begun, and how long one may run before it is
        reported."""
        return self.bridge.hidden_for

    def write(self, **changes: Any) -> None:
        self.held.write(replace(self.execution, **changes))


# -- the timer ------------------------------------------------------------------------------------


def wake_due(bridge: Bridge, jobs: Sequence[ExportJob]) -> None:
    """Let `export_job` go on with each job of which something is due."""
    with Pool(min(len(jobs), bridge.settings.export_parallelism), "wake") as pool:
        list(pool.map(partial(_wake, bridge), jobs))


def _wake(bridge: Bridge, job: ExportJob) -> None:
    now = clock.now()
    known = execution.read(bridge.account, job.name)
    if known is None:
        execution.begin_to_count(bridge.account, job.name, now)
    elif known[0].under_way:
        if clock.parse(known[0].look) + bridge.patience <= now:  # its message was lost
            handover.enqueue(bridge, job, 0)
    elif due_time(job, known[0], now):
        handover.enqueue(bridge, job, 0)
    else:
        emit("export.idle", job=job.name)


def due_time(job: ExportJob, last: Execution, now: datetime) -> datetime | None:
    """The due time to export for now: the latest one after the last export's, if one has passed."""
    return ncrontab.last_run(str(job.schedule), clock.parse(last.due), now)


# -- one job --------------------------------------------------------------------------------------


def export(bridge: Bridge, job: ExportJob) -> tuple[int, int]:
    """Go on with a job as far as that is possible now: how many packages were stored, and how many exports
    failed. While another worker goes on with it, nothing is done."""
    started = clock.monotonic()
    stored, errors, wait = 0, list[str](), None
    try:
        with execution.held(bridge.account, job.name) as held:
            work = _Work(bridge, job, held)
            ids = {"job": job.name, "executionId": held.execution.executionid}
            try:
                with span("export data project", new_parent(), **ids):
                    stored, errors, wait = _go_on(work)
            except (D365Error, deadline.Expired) as error:
                errors, wait = [explained(error)], bridge.patience
                work.write(look=clock.text(clock.now() + wait))
    except (leases.Taken, Conflict):
        emit("message.ignored", file=job.name, reason="another worker goes on with this export")
        return 0, 0
    if wait is not None:
        handover.enqueue(bridge, job, int(wait.total_seconds()))
    if errors:
        emit("export.failed", logging.ERROR, job=job.name, error="; ".join(errors))
    else:
        seconds = round(clock.monotonic() - started, 1)
        emit("export.finished", job=job.name, packages=stored, failed=0, seconds=seconds)
    return stored, len(errors)


def _go_on(work: _Work) -> tuple[int, list[str], timedelta | None]:
    """Step by step, until D365 must be waited for or nothing is due: packages stored, exports that failed, and
    when to look again. Raises `D365Error`."""
    stored, errors = 0, list[str]()
    while True:
        wait: timedelta | None = None
        match work.execution.state:
            case State.PLANNED:
                wait = _ask(work)
            case State.ASKING:
                wait = _clear_up(work)
            case State.RUNNING:
                wait = _check(work)
            case State.ENDING:
                _tell(work)
                if work.execution.outcome == Outcome.FAILED:
                    errors.append(f"{work.execution.executionid}: {work.execution.error}")
                else:
                    stored += 1
            case _:
                if not work.execution.due:  # somebody has deleted what was known
                    work.write(due=clock.text(clock.now()))
                due = due_time(work.job, work.execution, clock.now())
                if due is None:
                    return stored, errors, None
                plan(work.held, work.job, due)
        if wait is not None:
            return stored, errors, wait


def plan(held: Held, job: ExportJob, due: datetime, *, by: str = "", why: str = "") -> None:
    """Write down that a job is to be exported, under a new id, before D365 is asked."""
    now = clock.text(clock.now())
    held.write(
        Execution(
            state=State.PLANNED,
            executionid=new_execution_id(job.name, due),
            due=clock.text(due),
            by=by,
            why=why,
            began=now,
            look=now,
        )
    )


def _ask(work: _Work) -> timedelta | None:
    """Ask D365 for the execution. Raises `D365Error`; where D365 has surely not begun it, it is planned as
    before."""
    job, now = work.job, clock.text(clock.now())
    # The intent first: a crash from here on leaves an execution of which D365 is asked (I6).
    work.write(state=State.ASKING, requested=now, look=now, requests=work.execution.requests + 1)
    try:
        work.d365.packages.export_package(
            str(job.data_project),
            work.execution.executionid,
            re_execute=job.re_execute,
            company=job.company or "",
        )
    except Rejected as error:
        # An id that D365 has already is rejected too: then an earlier request has reached it.
        if _is_known(work):
            return _running(work)
        _end(work, Outcome.FAILED, error=str(error))
        return None
    except NotAccepted:
        work.write(state=State.PLANNED, requests=work.execution.requests - 1)
        raise
    emit(
        "execution.began",
        job=job.name,
        executionId=work.execution.executionid,
        due=work.execution.due,
    )
    return _running(work)


def _running(work: _Work) -> timedelta:
    return _wait(work, FIRST_LOOK, state=State.RUNNING, running=clock.text(clock.now()))


def _clear_up(work: _Work) -> timedelta | None:
    """See what became of a request whose answer was lost. Raises `D365Error`."""
    if _is_known(work):
        work.write(state=State.RUNNING, running=clock.text(clock.now()))
        return None
    if _since(work.execution.requested) < work.limit:
        return _wait(work, _delay(work), checks=work.execution.checks + 1)
    if work.execution.requests < REQUESTS:
        work.write(state=State.PLANNED, checks=0)
        return None
    why = "D365 was asked twice for this export, and knows nothing of it. The next due time is exported anew"
    _end(work, Outcome.FAILED, error=why)
    return None


def _is_known(work: _Work) -> bool:
    """Whether D365 knows the execution, by its status or by the second witness. Raises `D365Error`."""
    id_ = work.execution.executionid
    if work.d365.packages.execution_status(id_) is not None:
        return True
    with suppress(D365Error):  # the user may lack the right to that entity
        return work.d365.packages.execution_details(id_) is not None
    return False


def _check(work: _Work) -> timedelta | None:
    """Ask how the execution fares; when it has ended, fetch its package. Raises `D365Error`."""
    running, id_ = work.execution, work.execution.executionid
    status = work.d365.packages.execution_status(id_)
    checks, lasted = running.checks + 1, _since(running.running)
    details: dict[str, Any] = {
        "job": work.job.name,
        "executionId": id_,
        "status": status or "not found",
    }
    emit("execution.checked", **details, checks=checks)
    if status is None:
        if lasted < work.limit or _is_known(work):
            return _wait(work, _delay(work), checks=checks)
        why = f"D365 took this export and knows nothing of it any more. {LOST}"
        _end(work, Outcome.FAILED, error=why)
        return None
    if status != running.status:
        work.write(status=status)
    match meaning(status):
        case "succeeded":
            return _fetch(work, checks, lasted)
        case "failed" if is_partial(status):
            return _fetch(work, checks, lasted)
        case "failed":
            why = "; ".join(_d365_errors(work)) or "D365 does not say why"
            _end(work, Outcome.FAILED, error=f"{status}: {why}. {LOST}")
            return None
        case "unknown":
            emit("execution.unknown", logging.WARNING, **details)
    if lasted > GIVE_UP:
        why = f"D365 gave no final status in {lasted.days} days. {_BLOCKED}"
        _end(work, Outcome.FAILED, error=why)
        return None
    if lasted > work.limit and not running.overdue:
        work.write(overdue=clock.text(clock.now()))
        emit("execution.overdue", logging.WARNING, **details, error=_BLOCKED)
    return _wait(work, _delay(work), checks=checks)


_BLOCKED: Final = (
    "While it runs, or hangs, D365 begins no other execution of its data project: look under Data management > "
    "Job history, and delete the execution there if it does not go on"
)


def _fetch(work: _Work, checks: int, lasted: timedelta) -> timedelta | None:
    """Store the package of an execution that has ended. What fails is tried again while D365 keeps the package.

    Raises `D365Error` where D365 can't be asked what the package lacks.
    """
    id_ = work.execution.executionid
    try:
        url = work.d365.packages.exported_url(id_)
        if not url and lasted < work.limit:  # it comes somewhat later than the status
            return _wait(work, _delay(work), checks=checks)
        if not url:
            raise Unavailable("download", "D365 gives no address for the package")
        with deadline.within(0.9 * work.bridge.settings.function_timeout.total_seconds()):
            delivered, moved = _deliver(work, url)
    except package.FAILURES as error:
        why = explained(error)
        if lasted > KEPT:
            why = f"its package could not be fetched in the seven days for which D365 keeps it: {why}. {LOST}"
            _end(work, Outcome.FAILED, error=why)
            return None
        why = (
            f"{why}. It is fetched again in some minutes, for as long as D365 keeps it (seven days)"
        )
        emit("package.failed", logging.ERROR, job=work.job.name, correlationId=id_, error=why)
        return _wait(work, work.bridge.patience, checks=checks)
    details: dict[str, Any] = {
        "blob": delivered.delivery.blob,
        "size": delivered.length,
        "moved": moved,
    }
    if is_partial(work.execution.status):
        why = "; ".join(_d365_errors(work)) or "D365 does not say what it lacks"
        _end(work, Outcome.PARTIAL, **details, error=why)
        return None
    _end(work, Outcome.STORED, **details)
    return None


def _d365_errors(work: _Work) -> list[str]:
    try:
        return work.d365.execution_errors(work.execution.executionid)
    except D365Error as error:
        return [f"D365 can't be asked for its errors: {error}"]


def _end(work: _Work, outcome: Outcome, **changes: Any) -> None:
    """Write down how it ended. It is told after that (I7)."""
    now = clock.text(clock.now())
    work.write(state=State.ENDING, outcome=outcome, ended=now, look=now, **changes)


def _tell(work: _Work) -> None:
    """Note and report how an export ended. After a crash it may be told twice."""
    ended = work.execution
    execution.note(work.bridge.account, work.job.name, ended)
    with suppress(ResourceNotFoundError):
        _staging(work).delete_blob()
    seconds = (clock.parse(ended.ended) - clock.parse(ended.began)).total_seconds()
    details: dict[str, Any] = {
        "job": work.job.name,
        "correlationId": ended.executionid,
        "seconds": seconds,
        "status": ended.status,
    }
    if ended.outcome == Outcome.FAILED:
        emit("execution.failed", logging.ERROR, **details, error=ended.error)
    else:
        details |= {"blob": ended.blob, "bytes": ended.size, "moved": ended.moved}
        partial_ = ended.outcome == Outcome.PARTIAL
        level = logging.ERROR if partial_ else logging.INFO
        emit(f"execution.{ended.outcome}", level, **details, error=ended.error)
    work.write(state=State.ENDED)


def _wait(work: _Work, wait: timedelta, **changes: Any) -> timedelta:
    work.write(look=clock.text(clock.now() + wait), **changes)
    return wait


def _delay(work: _Work) -> timedelta:
    seconds = FIRST_LOOK.total_seconds() * 2.0 ** min(work.execution.checks, 20)
    return min(timedelta(seconds=seconds), work.bridge.patience)


def _since(moment: str) -> timedelta:
    return clock.now() - clock.parse(moment)


# -- the package ----------------------------------------------------------------------------------


def _deliver(work: _Work, url: str) -> tuple[Package, str]:
    """The package in `exports`, and who carried its bytes: `storage` or `app`. Raises `package.FAILURES`."""
    id_ = work.execution.executionid
    offer = Offer(id_, id_, partial(work.d365.download_export, id_))
    moved = "app"

    def store(serving: Serving, served: Delivery | None) -> Package:
        nonlocal moved
        if served:  # delivered before; a reader may have taken it since (E7)
            return Package(served, work.execution.size, again=True)
        if there := _stored(work, serving):
            return there
        try:
            stored = _store_by_storage(work, serving, url)
        except NotCopied as error:
            emit("execution.carried", job=work.job.name, executionId=id_, reason=str(error))
            return package.carry(serving, None)
        moved = "storage"
        return stored

    return package.deliver(Serving(work.bridge, work.job, offer), store), moved


def _stored(work: _Work, serving: Serving) -> Package | None:
    """The package where a worker has stored it and crashed before it could note that: what is visible was
    verified."""
    id_ = work.execution.executionid
    try:
        there = serving.blob(names.package_name(work.job.name, id_)).get_blob_properties()
    except ResourceNotFoundError:
        return None
    sha256, when = there.metadata.get("sha256", ""), there.metadata.get("stored", "")
    return Package(Delivery(str(there.name), sha256, id_, id_, when), there.size, again=True)


def _store_by_storage(work: _Work, serving: Serving, url: str) -> Package:
    """Let storage fetch the package: into the container `state`, where it is verified, and from there into
    `exports`, where it is visible at once and whole (E4).

    Raises `NotCopied` where the app must carry it, D365's errors and storage's.
    """
    try:
        source = signed.client(url).get_blob_properties()
    except AzureError as error:
        raise NotCopied(
            f"D365's storage does not say how long the package is: {explained(error)}"
        ) from error
    if source.size < BY_STORAGE:
        raise NotCopied("it is small")
    urls = [url]
    staging, id_ = _staging(work), work.execution.executionid

    def new_url() -> str:
        return urls.pop() if urls else work.d365.packages.exported_url(id_)

    block_copy.copy(
        new_url,
        str(source.etag),
        source.size,
        staging,
        content_settings=ContentSettings(content_type=formats.ZIP.media_type),
    )
    _verify(staging, source)
    target = serving.blob(names.package_name(work.job.name, id_))
    now = clock.text(clock.now())
    metadata = {
        "job": work.job.name,
        "correlationid": id_,
        "location": id_,
        "stored": now,
        "moved": "storage",
    }
    created = _show(staging, target, source.size, metadata)
    delivery = Delivery(str(target.blob_name), "", id_, id_, now)
    return Package(delivery, source.size, again=not created)


def _staging(work: _Work) -> BlobClient:
    name = f"staging/{work.job.name}/{work.execution.executionid}.zip"
    return work.bridge.account.blobs.get_blob_client(STATE, name)


def _verify(staging: BlobClient, source: BlobProperties) -> None:
    """See that what storage fetched is a whole zip, as far as its length and its directory show. If it is not,
    the app carries the package, reads it to its end and judges. Raises `NotCopied`."""
    size = staging.get_blob_properties().size
    try:
        with transfer.reader(staging, size) as file:
            packages.entries(file)
    except InvalidPackage as error:
        raise NotCopied(f"what storage fetched is no whole package: {error}") from error
    if size != source.size:
        raise NotCopied(f"storage fetched {size} bytes of {source.size}")


def _show(staging: BlobClient, target: BlobClient, size: int, metadata: dict[str, str]) -> bool:
    """Copy a verified package to where people see it; False where it is there already."""
    try:
        answer = target.start_copy_from_url(
            staging.url, metadata=metadata, match_condition=MatchConditions.IfMissing
        )
    except HttpResponseError as error:
        if error.status_code not in (409, 412):
            raise
        there = target.get_blob_properties()
        if there.size != size or there.copy.status not in (None, "success"):
            raise Unavailable(
                "download", f"{target.blob_name} is there already, with other content"
            ) from error
        return False
    status = str(answer["copy_status"])
    while status == "pending":
        clock.sleep(0.5)
        status = str(target.get_blob_properties().copy.status)
    if status != "success":
        target.delete_blob()  # I4: a copy that is not whole is none
        raise Unavailable("download", f"copying {staging.blob_name} to {EXPORTS} ended as {status}")
    return True
