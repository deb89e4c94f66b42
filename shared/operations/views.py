"""The views of the page: the jobs, the files and packages with their states, one file with its details. It
changes nothing.

Each view costs a few storage requests, however many files there are: a listing is a page of the container that
is the state, in name order, and what happened in the last day comes from the journal.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final

from azure.core.exceptions import ResourceNotFoundError

from shared import clock
from shared.bridge import Bridge
from shared.config.jobs import ExportJob, ImportJob
from shared.config.ncrontab import next_run
from shared.config.settings import EXPORT_SCHEDULE, schedule
from shared.d365 import MessageId
from shared.d365.errors import Rejected
from shared.exports import execution
from shared.exports.execution import Execution
from shared.imports import claim
from shared.imports.outcome import TODO, remark
from shared.observability.events import ENDINGS
from shared.operations import journal
from shared.operations.journal import Entry, Recent
from shared.storage import files, names
from shared.storage.account import EXPORTS, FAILED, IMPORTS, PROCESSING, SUCCEEDED
from shared.storage.records import File
from shared.threads import Pool

STATES: Final[Mapping[str, str]] = {
    "failed": FAILED,
    "held": FAILED,
    "dismissed": FAILED,
    "waiting": IMPORTS,
    "processing": PROCESSING,
    "succeeded": SUCCEEDED,
    "exported": EXPORTS,
}
"""What can be listed, and the container in which it lies; `failed` are those that are held too."""

ROWS: Final = 50
"""Files on a page."""

LOOKED_AT: Final = 5000
"""Blobs that a view with a filter reads at most, in `STEP`s; what lies beyond is on its next page."""

STEP: Final = 500

COUNTED: Final = 5000
"""Files of a container that the overview counts (one request); where it holds more, so many of each folder."""

FOLDERS: Final = 200
"""Folders of a container that are counted one by one."""

HOURS: Final = 24


@dataclass(frozen=True)
class Filter:
    """Which files to list."""

    state: str = "failed"
    job: str = ""
    name: str = ""
    """A part of the path in any case; with a slash in it, the beginning of the path as it is written. The path
    is that of the dropped file, or the one with its stamp."""
    since: date | None = None
    until: date | None = None
    """Days in UTC on which the file last changed, both included."""
    token: str = ""


@dataclass(frozen=True)
class Row:
    """A file or package as listed."""

    state: str
    """waiting, claimed, sending, sent, succeeded, failed, held, dismissed, or exported."""
    container: str
    name: str
    path: str
    """The name as it was dropped."""
    job: str
    company: str
    size: int
    etag: str
    dropped: datetime | None
    changed: datetime
    seconds: float | None
    """From drop to end."""
    message_id: str
    external_id: str
    status: str
    reason: str
    error: str
    """What went wrong, for files that failed or wait for D365; what is odd about one that succeeded."""


@dataclass(frozen=True)
class Listing:
    """A page of files."""

    rows: list[Row]
    looked_at: int
    next_token: str


@dataclass(frozen=True)
class Detail:
    """One file with everything that is known of it."""

    row: Row
    file: File
    report: Mapping[str, Any]
    """The error report beside a failed file."""

    @property
    def todo(self) -> str:
        """What to do about a failed file, "" where that is nothing."""
        return str(self.report.get("todo") or TODO.get(self.row.reason, ""))


@dataclass(frozen=True)
class Job:
    """A job as the overview shows it."""

    name: str
    kind: str
    """import or export."""
    enabled: bool
    group: str
    description: str
    activity_id: str
    """"" where the job exports a data project."""
    ended: int
    """Files that ended, or packages, in the journal's hours."""
    last_hour: int
    last: datetime | None
    """Import: the last file's end. Export: the last run that was noted."""
    last_text: str
    last_outcome: str
    """How that ended: a value of `ENDINGS`, "" where there was no run."""
    waiting: int = 0
    no_data: int = 0
    """What lies in `imports` and is left alone, by its name: lock files, markers, what is not whole."""
    processing: int = 0
    failed: int = 0
    held: int = 0
    at_least: tuple[str, ...] = ()
    """Which of these counts are of the first `COUNTED` files alone."""
    environment: str = ""
    """The name of its D365."""


@dataclass(frozen=True)
class Overview:
    """The first page."""

    jobs: list[Job]
    recent: Recent
    counted_all: bool
    """False where a count is at least so many, since there are more than `COUNTED`."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Files that failed or are held in no job's folder, by the beginnings of their paths."""
    next_export: datetime | None = None
    """When the timer asks the export queues next; None where its schedule names no time."""


# -- the listing ----------------------------------------------------------------------------------


def listing(bridge: Bridge, query: Filter) -> Listing:
    """One page of the files that a filter names. Raises `KeyError` for a state that is none."""
    container = STATES[query.state]
    prefix = f"{query.job}/" if query.job else ""
    part, begins = query.name.strip(), ""
    if "/" in part:
        begins = part.lstrip("/") if part.lstrip("/").startswith(prefix) else prefix + part
        part, prefix = "", stem(begins)
    sifts = bool(
        part
        or prefix < begins
        or query.since
        or query.until
        or query.state in ("held", "dismissed", "exported")
    )
    enough = ROWS if sifts else 1  # a page of failed ones may hold only dismissed ones
    rows: list[Row] = []
    looked_at, token = 0, query.token
    while True:
        size = STEP if sifts or looked_at else ROWS
        page, token = files.page(bridge.account, container, prefix, size, token)
        chosen = [each for each in page if _fits(each, query, part, begins)]
        with Pool(8) as pool:
            rows += pool.map(partial(_row_with_error, bridge), chosen)
        looked_at += len(page)
        if not token or len(rows) >= enough or looked_at >= LOOKED_AT:
            return Listing(rows, looked_at, token)


def stem(path: str) -> str:
    """The beginning that a path has in common with its stamped name: the stamp comes before the suffix."""
    folder, slash, file = path.rpartition("/")
    # A long name loses the end of its stem to the stamp.
    return (folder + slash + (file.rpartition(".")[0] if "." in file else file))[:400]


def path_of(file: File) -> str:
    """A file's name as it was dropped, which is the one that people know."""
    return file.record.source or names.unstamped(file.name)


def _fits(file: File, query: Filter, part: str, begins: str) -> bool:
    day, path = file.modified.date(), path_of(file)
    return (
        (part.casefold() in file.name.casefold() or part.casefold() in path.casefold())
        and (file.name.startswith(begins) or path.startswith(begins))
        and (query.since is None or day >= query.since)
        and (query.until is None or day <= query.until)
        and (query.state not in ("held", "dismissed") or state_of(file) == query.state)
        and (query.state != "failed" or state_of(file) != "dismissed")
        # What a package was unzipped to lies in a folder of its own.
        and (query.state != "exported" or file.name.count("/") == 1)
    )


def state_of(file: File) -> str:
    """The state of a file in the page's words."""
    if file.container == FAILED:
        dismissed = file.record.resolution == "dismissed"
        return "dismissed" if dismissed else file.record.state or "failed"
    if file.container == PROCESSING:
        return file.record.state or "claimed"
    return {IMPORTS: "waiting", EXPORTS: "exported", SUCCEEDED: "succeeded"}[file.container]


def row(file: File, error: str = "") -> Row:
    """A file as a row."""
    record = file.record
    job = record.job or file.name.split("/", 1)[0]
    dropped = names.dropped_at(file.name) or (file.modified if file.container == IMPORTS else None)
    ended = clock.parse(record.ended) if record.ended else None
    return Row(
        state=state_of(file),
        container=file.container,
        name=file.name,
        path=path_of(file),
        job=job,
        company=record.company,
        size=file.size,
        etag=file.etag,
        dropped=dropped,
        changed=file.modified,
        seconds=(ended - dropped).total_seconds() if ended and dropped else None,
        message_id=record.messageid,
        external_id=record.externalid,
        status=record.status,
        reason=record.reason,
        error=error or _remark(file),
    )


def _remark(file: File) -> str:
    if file.container == PROCESSING:
        return file.record.reason
    return remark(file.record) if file.container == SUCCEEDED else ""


def _row_with_error(bridge: Bridge, file: File) -> Row:
    error = ""
    if file.container == FAILED:
        error = str(report_of(bridge, file).get("error", "")) or file.record.error
    elif file.container == IMPORTS and (wait := claim.reason_to_wait(bridge, file)):
        error = wait.why
    return row(file, error)


def report_of(bridge: Bridge, file: File) -> dict[str, Any]:
    """The error report beside a failed file; empty where there is none, or none that can be read."""
    blob = bridge.account.blobs.get_blob_client(FAILED, names.error_report_name(file.name))
    try:
        report = json.loads(blob.download_blob().readall())
    except (ResourceNotFoundError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def detail(bridge: Bridge, container: str, name: str) -> Detail | None:
    """One file, or None where it is not (any more)."""
    there = name and container in STATES.values()
    file = files.find(bridge.account, container, name) if there else None
    if file is None:
        return None
    report = report_of(bridge, file) if container == FAILED else {}
    return Detail(row(file, str(report.get("error", ""))), file, report)


def summary_url(bridge: Bridge, job: ImportJob, detail: Detail) -> str:
    """D365's own page on a file's execution. Raises `D365Error`."""
    d365 = bridge.d365_of(detail.file)
    if detail.file.record.api:
        return d365.execution_summary_url(detail.row.message_id)
    execution_id = (detail.report.get("d365") or {}).get("executionId")
    if not execution_id:
        message_id = MessageId(detail.row.message_id)
        execution_id = d365.job_status(job.activity_id, message_id).execution_id
        execution_id = execution_id or d365.execution_id(message_id)
    if not execution_id:
        raise Rejected("job status", "D365 has not begun with that file, so there is no summary")
    return d365.execution_summary_url(str(execution_id))


# -- exports of data projects ---------------------------------------------------------------------

RUNS: Final = 20
"""Executions of a job on its page."""


@dataclass(frozen=True)
class Runs:
    """How a job's exports of its data project fared."""

    job: str
    project: str
    schedule: str
    next: datetime | None
    """The next due time."""
    etag: str
    """Of `current`: what *Run now* needs; "" while the app has not seen the job yet."""
    current: Execution
    """The export that is under way, or the last one."""
    last: list[Execution]
    """Those that ended in the last weeks, the newest first."""


def runs(bridge: Bridge, name: str) -> Runs | None:
    """The exports of a job; None where there is no job of that name that exports a data project."""
    job = bridge.settings.jobs.project_export(name)
    if job is None:
        return None
    current, etag = execution.read(bridge.account, name) or (Execution(), "")
    due = next_run(str(job.schedule), clock.now())
    last = execution.last(bridge.account, name, RUNS)
    return Runs(name, str(job.data_project), str(job.schedule), due, etag, current, last)


# -- the overview ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counts:
    """The files of a container."""

    numbers: Counter[tuple[str, str]]
    """By job and state."""
    cut: set[str]
    """The folders that hold more than were counted; "" if there are more folders."""


def overview(bridge: Bridge) -> Overview:
    """Every job with its queue, rate and last run, from the containers (see `_counts`) and the journal."""
    with Pool(4) as pool:
        entries = pool.submit(journal.recent, bridge.account, HOURS)
        counts = pool.map(partial(_counts, bridge), (IMPORTS, PROCESSING, FAILED))
        waiting, processing, failed = counts
    recent = entries.result()
    by_job: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in recent.entries:
        kind = "import" if entry.event.startswith("file.") else "export"
        by_job[kind, str(entry.fields.get("job", ""))].append(entry)
    served = bridge.settings.jobs
    jobs = [
        replace(
            _job(bridge, job, "import", by_job["import", job.name]),
            waiting=waiting.numbers[job.name, "waiting"],
            no_data=waiting.numbers[job.name, "no data"],
            processing=sum(n for (name, _), n in processing.numbers.items() if name == job.name),
            failed=failed.numbers[job.name, "failed"],
            held=failed.numbers[job.name, "held"],
            at_least=("waiting",) * (job.name in waiting.cut)
            + ("processing",) * (job.name in processing.cut)
            + ("failed", "held") * (job.name in failed.cut),
        )
        for job in served.imports
    ]
    jobs += [_job(bridge, job, "export", by_job["export", job.name]) for job in served.exports]
    positions = {each.name: index for index, each in enumerate(bridge.settings.environments)}
    # Within a group, as the jobs file has them.
    jobs.sort(key=lambda job: (positions[job.environment], job.group))
    return Overview(
        jobs,
        recent,
        not (waiting.cut or processing.cut or failed.cut),
        _elsewhere(failed, {job.name for job in served.imports}),
        next_run(schedule("EXPORT_SCHEDULE", EXPORT_SCHEDULE), clock.now()),
    )


def _job(bridge: Bridge, job: ImportJob | ExportJob, kind: str, entries: Sequence[Entry]) -> Job:
    """A job with what its entries in the journal say."""
    ends = [entry for entry in entries if entry.event in ENDINGS]
    runs = ends if kind == "import" else [e for e in entries if e.event.startswith("export.")]
    hour = clock.now() - timedelta(hours=1)
    last_text, last_outcome = _result(runs[-1]) if runs else ("", "")
    return Job(
        job.name,
        kind,
        job.enabled,
        job.group or "",
        job.description or "",
        job.activity_id.strip("{}"),
        ended=len(ends),
        last_hour=sum(entry.at >= hour for entry in ends),
        last=runs[-1].at if runs else None,
        last_text=last_text,
        last_outcome=last_outcome,
        environment=bridge.settings.environment_of(job).name,
    )


def _elsewhere(failed: _Counts, jobs: set[str]) -> Counter[str]:
    """Failed files outside of the jobs' folders, by folder; one that is in no folder by its own name."""
    elsewhere = Counter[str]()
    for (folder, state), number in failed.numbers.items():
        if folder not in jobs and state in ("failed", "held"):
            in_no_folder = names.dropped_at(folder)  # a stamped name is a file's
            elsewhere[folder if in_no_folder else f"{folder}/"] += number
    return elsewhere


def _counts(bridge: Bridge, container: str) -> _Counts:
    """Counts the first `COUNTED` files; where there are more, those of each folder."""
    listed, more = files.page(bridge.account, container, "", COUNTED)
    cut = set[str]()
    if more:  # each folder by itself, so that one job's many files don't hide another's
        top = bridge.account.blobs.get_container_client(container).walk_blobs()
        found_folders = [each.name for each in islice(top, FOLDERS + 1)]
        if len(found_folders) > FOLDERS:
            cut.add("")
        folders = [f"{job.name}/" for job in bridge.settings.jobs.imports]
        prefixes = list(dict.fromkeys(folders + found_folders[:FOLDERS]))

        def count(prefix: str) -> tuple[list[File], str]:
            # What has no slash is a file that lies in no folder.
            size = COUNTED if prefix.endswith("/") else 1
            return files.page(bridge.account, container, prefix, size)

        listed = []
        with Pool(8) as pool:
            for prefix, (part, rest) in zip(prefixes, pool.map(count, prefixes), strict=True):
                listed += part
                if rest and prefix.endswith("/"):
                    cut.add(prefix.removesuffix("/"))
    numbers = Counter(
        (
            each.record.job or names.job_folder(each.name),
            "no data" if claim.is_never_data(bridge, each) else state_of(each),
        )
        for each in listed
    )
    return _Counts(numbers, cut)


def _result(entry: Entry) -> tuple[str, str]:
    fields = entry.fields
    match entry.event:
        case "export.failed":
            return f"failed: {fields.get('error')}", "failed"
        case "export.finished" | "export.unfinished":
            number = fields.get("packages")
            text = "1 package" if number == 1 else f"{number} packages"
            if entry.event == "export.unfinished":
                text += ", with more to come"
            if failed := fields.get("failed"):
                return f"{text}, {failed} failed", "failed"
            return text, "exported"
        case _:
            reason, outcome = fields.get("reason"), ENDINGS[entry.event]
            return outcome + (f": {reason}" if reason else ""), outcome


@dataclass(frozen=True)
class Failing:
    """A package that could not be had so far. D365 offers it again, and deletes it after seven days."""

    job: str
    correlation_id: str
    at: datetime
    """The last try."""
    tries: int
    """In the journal's hours."""
    error: str


_SETTLES: Final = (
    "package.failed",
    "package.acknowledged",
    "package.empty",
    "execution.stored",
    "execution.partial",
    "execution.failed",
)
"""After these, an earlier failure of the same package does not count any more."""


def failing(recent: Recent) -> list[Failing]:
    """The packages that failed in the journal's hours and were not acknowledged since, in the order of their
    last tries."""
    packages: dict[tuple[str, str], Failing] = {}
    for entry in recent.entries:
        key = (str(entry.fields.get("job", "")), str(entry.fields.get("correlationId", "")))
        before = packages.pop(key, None) if entry.event in _SETTLES else None
        if entry.event == "package.failed":
            tries = before.tries + 1 if before else 1
            packages[key] = Failing(*key, entry.at, tries, str(entry.fields.get("error", "")))
    return list(packages.values())


@dataclass(frozen=True)
class Ended:
    """A file or package that ended in the last day."""

    at: datetime
    outcome: str
    job: str
    name: str
    """The file's or package's; the correlation id of a package that failed."""
    seconds: float | None
    container: str
    """Where it lay then; "" for a package that failed."""
    message_id: str
    error: str


def ended(recent: Recent, job: str = "") -> list[Ended]:
    """What ended in the journal's hours, oldest first."""
    endings = []
    for entry in recent.entries:
        if entry.event in ENDINGS and job in ("", entry.fields.get("job")):
            keys = ("file", "blob", "correlationId")
            name = next((str(entry.fields[key]) for key in keys if entry.fields.get(key)), "")
            dropped = names.dropped_at(name) if entry.event.startswith("file.") else None
            seconds = (entry.at - dropped).total_seconds() if dropped else None
            outcome, of = ENDINGS[entry.event], str(entry.fields.get("job", ""))
            container = (
                STATES[outcome] if entry.fields.get("blob") or "file" in entry.fields else ""
            )
            message_id = str(entry.fields.get("messageId") or "")
            error = str(entry.fields.get("error") or entry.fields.get("remark") or "")
            endings.append(
                Ended(entry.at, outcome, of, name, seconds, container, message_id, error)
            )
    return endings


def recent(bridge: Bridge, job: str = "") -> list[Ended]:
    """What ended last, the newest first: at most `ROWS` of the journal's hours."""
    return ended(journal.recent(bridge.account, HOURS), job)[: -ROWS - 1 : -1]
