"""`d365-blob-bridge convert FILE.xml…`: the jobs of the Recurring Integrations Scheduler as a `jobs.json`.

The Scheduler keeps its jobs in Quartz.NET's job-scheduling-data 2.0 (`Schedule.xml`), one `<job>` each, its
options as entries of a `<job-data-map>`; the option names are those of its `SettingsConstants` and its forms.
The result goes to stdout. On stderr there are a line for each job, with the notes on this job alone, and one
summary of what replaces the options that `jobs.json` does not have. No option is left out without a note, and
no secret is printed. `docs/from-the-scheduler.md` says more about each option.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

from shared import plain_xml
from shared.config import jobs, ncrontab
from shared.config.environments import InvalidUrl, normalized
from shared.plain_xml import tag, text

MAX_FILE: Final = 4 * 1024 * 1024
"""The largest `Schedule.xml`, in bytes: it has room for thousands of jobs."""

_NAMESPACE: Final = "RecurringIntegrationsScheduler.Job."
_EXPORTS: Final = ("Download", "Export")
_IMPORTS: Final = ("Upload", "Import")
_MONITORS: Final = {"ProcessingMonitor": "Upload", "ExecutionMonitor": "Import"}
_PACKAGE_API: Final = ("Import", "Export")
"""The kinds of jobs that use the package API: they name a data project, and have no activity id."""

NIGHTLY: Final = "0 0 0 * * *"
"""The schedule of a package API's export job that has none, or one that NCRONTAB can't express."""


class Unreadable(ValueError):
    """A file is not a `Schedule.xml`. The text says why."""


@dataclass(frozen=True)
class Trigger:
    """When a job runs."""

    words: str
    """The trigger as the notes tell it."""
    schedule: str | None
    """The same as NCRONTAB, None where NCRONTAB can't express it."""
    zone: str = ""
    """The time zone of its hours; "" for the server's time zone, or if it has no hours."""


@dataclass(frozen=True)
class Job:
    """A `<job>` as it stands in the file."""

    kind: str
    """`Upload`, `Download`, …, or the whole type if it is not one of the Scheduler's."""
    name: str
    group: str
    options: Mapping[str, str]
    triggers: tuple[Trigger, ...]
    description: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}" + (f" (group {self.group!r})" if self.group else "")

    def option(self, key: str) -> str:
        """An option's value; "" if the job does not have the option."""
        return self.options.get(key, "").strip()

    def on(self, key: str) -> bool:
        """Whether a yes-or-no option is on, as .NET's Convert.ToBoolean takes it."""
        return self.option(key).lower() == "true"


@dataclass
class Result:
    """The result of a conversion: the jobs file, and what a person has to know about it."""

    environments: list[dict[str, str]] = field(default_factory=list)
    """Empty unless there are several."""
    exports: list[dict[str, Any]] = field(default_factory=list)
    imports: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Lines. The notes on a job are indented below the line of the job."""
    reasons: dict[str, dict[str, None]] = field(default_factory=dict)
    """What replaces options, the same in every job: each sentence, with the options for which it is true."""
    left_out: int = 0
    """How many jobs are not in the jobs file."""

    @property
    def text(self) -> str:
        """The text of the jobs file."""
        file = {"$schema": "./jobs.schema.json", **self.jobs}
        return json.dumps(file, indent=2, ensure_ascii=False) + "\n"

    @property
    def jobs(self) -> dict[str, Any]:
        """The content of the jobs file."""
        environments = {"environments": self.environments} if self.environments else {}
        return {**environments, "exports": self.exports, "imports": self.imports}

    @property
    def summary(self) -> list[str]:
        """A line for each of the `reasons`."""
        return [f"{', '.join(options)}: {reason}" for reason, options in self.reasons.items()]

    def note_option(self, option: str, reason: str) -> None:
        """Say in the summary what replaces an option; once, however many jobs have the option."""
        self.reasons.setdefault(reason, {})[option] = None


# -- reading --------------------------------------------------------------------------------------


def read(data: bytes) -> list[Job]:
    """The jobs of a `Schedule.xml`. Raises `Unreadable`."""
    if len(data) > MAX_FILE:
        raise Unreadable(f"it is larger than {MAX_FILE} bytes: not the Scheduler's jobs")
    try:
        root = plain_xml.parse(data)
    except plain_xml.InvalidXml as error:
        raise Unreadable(str(error)) from error
    if tag(root) != "job-scheduling-data":
        raise Unreadable(f"it holds <{tag(root)}>, not Quartz's <job-scheduling-data>")
    triggers: dict[tuple[str, str], list[Trigger]] = {}
    for element in root.iter():
        if tag(element) in ("cron", "simple", "calendar-interval"):
            key = (text(element, "job-name"), text(element, "job-group"))
            triggers.setdefault(key, []).append(_trigger(element))
    return [_job(element, triggers) for element in root.iter() if tag(element) == "job"]


def _job(element: Element, triggers: Mapping[tuple[str, str], list[Trigger]]) -> Job:
    type_ = text(element, "job-type").split(",")[0].strip()
    options = {
        text(entry, "key"): text(entry, "value")
        for entry in element.iter()
        if tag(entry) == "entry"
    }
    name, group = text(element, "name"), text(element, "group")
    kind, description = type_.removeprefix(_NAMESPACE), text(element, "description")
    return Job(kind, name, group, options, tuple(triggers.get((name, group), ())), description)


def _trigger(element: Element) -> Trigger:
    """A trigger (Quartz.NET, job_scheduling_data_2_0.xsd)."""
    if tag(element) == "cron":
        zone, expression = text(element, "time-zone"), text(element, "cron-expression")
        words = f"cron {expression}" + (f" in the time zone {zone}" if zone else "")
        return Trigger(words, _from_quartz(expression), zone)
    interval = text(element, "repeat-interval")
    if tag(element) == "calendar-interval":
        unit = text(element, "repeat-interval-unit")
        seconds = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}.get(unit.lower())
        schedule = _EVERY.get((interval, unit.lower()))
        if seconds and interval.isdecimal():
            schedule = _every(int(interval) * seconds)
        return Trigger(f"every {interval} {unit}", schedule)
    if not interval.isdecimal():
        return Trigger(f"every {interval}", None)
    return Trigger(f"every {int(interval) // 1000} seconds", _every(int(interval) // 1000))


_EVERY: Final = {
    ("1", "week"): "0 0 0 * * 0",
    ("1", "month"): "0 0 0 1 * *",
    ("1", "year"): "0 0 0 1 1 *",
}
"""The calendar intervals that `_every` can't express."""


def _every(seconds: int) -> str | None:
    """An interval as NCRONTAB; None unless it divides the minute, the hour or the day into equal parts."""
    for unit, whole, form in (
        (1, 60, "*/{} * * * * *"),
        (60, 60, "0 */{} * * * *"),
        (3600, 24, "0 0 */{} * * *"),
    ):
        number = seconds // unit
        if seconds % unit == 0 and 0 < number < whole and whole % number == 0:
            return form.format(number).replace("*/1 ", "* ")
    return NIGHTLY if seconds == 86400 else None


_LAST: Final = (59, 59, 23, 31, 12, 6)
"""The last value of each field of NCRONTAB."""


def _from_quartz(expression: str) -> str | None:
    """Quartz's cron expression as NCRONTAB; None where NCRONTAB can't express it (L, W, #, years).

    Quartz counts the days of the week from 1, which is Sunday. A field that is ? has no value. a/b begins at a
    (Quartz.NET, "Cron Triggers").
    """
    parts = expression.split()
    if len(parts) == 7 and parts[6] == "*":
        parts.pop()
    if len(parts) != len(_LAST):
        return None
    fields = []
    for number, (part, last) in enumerate(zip(parts, _LAST, strict=True)):
        value, _, step = part.replace("?", "*").partition("/")
        if number == len(_LAST) - 1:
            value = re.sub("[0-9]+", lambda day: str(int(day[0]) - 1), value)
        first = 1 if number in (3, 4) else 0
        if step and value == str(first):
            value = "*"
        elif step and value.isdecimal():
            value = f"{value}-{last}"
        fields.append(value if step in ("", "1") else f"{value}/{step}")
    schedule = " ".join(fields)
    try:
        ncrontab.check(schedule)
    except ncrontab.InvalidSchedule:
        return None
    return schedule


# -- converting -----------------------------------------------------------------------------------

_IDENTITY: Final = (
    "not needed: the bridge signs in with its managed identity (docs/d365-setup.md, section 1)"
)
_FOLDER: Final = "a container stands for it: imports-processing, imports-succeeded, imports-failed"
_ACTION: Final = "not needed: the bridge knows the paths of D365's actions"
_RETRIES: Final = (
    "not needed: the bridge retries what is safe to retry for a day, at growing intervals"
)
_STATUS_FILE: Final = (
    "the file's metadata has the status; a failed file has a report beside it, {file}.error.json"
)

_SFTP: Final = re.compile("(Use)?Sftp(In|Out)bound")
_BY_SFTP: Final = (
    "let the partners use the storage account's own SFTP, or a copy job bring files from their server to "
    "imports/{job}/, and from exports/{job}/ to it"
)

ELSEWHERE: Final[Mapping[str, str]] = {
    "AosUri": "it is the app setting D365_URL; if there are several, each is an environment of the jobs file",
    "AzureAuthEndpoint": _IDENTITY,
    "AadTenant": _IDENTITY,
    "UseServiceAuthentication": _IDENTITY,
    "UseADAL": "off: this D365 is in the cloud; jobs for a D365 on premises are left out",
    "AadClientId": _IDENTITY,
    "AadClientSecret": _IDENTITY,
    "UserName": _IDENTITY,
    "UserPassword": _IDENTITY,
    "UploadSuccessDir": _FOLDER,
    "UploadErrorsDir": _FOLDER,
    "ProcessingSuccessDir": _FOLDER,
    "ProcessingErrorsDir": _FOLDER,
    "DownloadErrorsDir": "not needed: a package that fails stays with D365, which offers it again",
    "StatusFileExtension": _STATUS_FILE,
    "ProcessingJobPresent": "always: the bridge asks for the status of every file until it ends",
    "ExecutionJobPresent": "always: the bridge asks for the status of every file until it ends",
    "DelayBetweenStatusCheck": "not needed: checks come at growing intervals, from seconds to five minutes",
    "StatusCheckInterval": "not needed: checks come at growing intervals, from seconds to five minutes",
    "GetImportTargetErrorKeysFile": "it becomes errorKeys of the job whose files the monitor checks",
    "GetExecutionErrors": "always: D365's errors stand in {file}.error.json",
    "Interval": "not needed: D365 says how long to wait (Retry-After)",
    "RetryCount": _RETRIES,
    "RetryDelay": _RETRIES,
    "PauseJobOnException": "not needed: the bridge waits until a fault passes; a lasting fault raises an alert",
    "LogVerbose": "not needed: every step is one log event; levels are set in host.json",
    "AddTimestamp": "not needed: no name is used twice (packages have D365's correlation id)",
    "GetLegalEntityFromSubfolder": "always: drop the file into imports/{job}/{company}/",
    "DataProject": "it is in D365, in the recurring data job, unless the job uses the package API",
    "OverwriteDataProject": "a recurring data job does not change its data project",
    "ExecuteImport": "a recurring data job always imports its files",
    "InputFilesArePackages": "always possible: a .zip is sent as the data package that it is",
    **dict.fromkeys(
        (
            "ImportFromPackageActionPath",
            "GetAzureWriteUrlActionPath",
            "GetExecutionSummaryStatusActionPath",
            "GetExportedPackageUrlActionPath",
            "GetExecutionSummaryPageUrlActionPath",
            "DeleteExecutionHistoryJobActionPath",
            "ExportToPackageActionPath",
            "ExportFromPackageActionPath",
            "GetMessageStatusActionPath",
            "GetImportTargetErrorKeysFileUrlPath",
            "GenerateImportTargetErrorKeysFilePath",
            "GetExecutionErrorsPath",
        ),
        _ACTION,
    ),
}
"""What replaces each option that no job of the jobs file has. It does not depend on the option's value."""


def convert(jobs: Sequence[Job]) -> Result:
    """Convert jobs. The jobs file is always valid: a job that would make it invalid is left out."""
    result = Result()
    _set_environments(jobs, result)
    for job in jobs:
        if job.kind in _MONITORS:
            _monitor(job, jobs, result)
        elif job.kind in _IMPORTS + _EXPORTS:
            monitors = [m for m in jobs if m.kind in _MONITORS and job in _watched(m, jobs)]
            _convert(job, any(m.on("GetImportTargetErrorKeysFile") for m in monitors), result)
        else:
            _leave_out(
                job, result, [f"its type {job.kind or 'none'!r} is not one of the Scheduler's"]
            )
    _note_shared_folders(jobs, result)
    return result


def _convert(job: Job, error_keys: bool, result: Result) -> None:
    notes: list[str] = []
    handled: set[str] = set()
    name = _name(job, result)
    if name != job.name:
        notes.append(f"named {name}: a name has letters, digits and hyphens, and is unique")
    fields = (_import if job.kind in _IMPORTS else _export)(job, name, handled, notes, result)
    if job.kind in _PACKAGE_API:
        handled.add("DataProject")
    if job.on("IndefinitePause"):
        notes.append("IndefinitePause: it is paused in the Scheduler too")
    texts = {"description": job.description, "group": job.group}
    keys = {"errorKeys": True} if error_keys else {}
    # Every job is paused: if two programs serve an export queue, each of them gets only some of the packages.
    entry = {
        "name": name,
        **_environment(job, result),
        **{key: _one_line(each) for key, each in texts.items() if _one_line(each)},
        **fields,
        **keys,
        "enabled": False,
    }
    notes += _rest(job, handled, result)
    if job.triggers:
        _schedule(job, notes, result)
    kind = "imports" if job.kind in _IMPORTS else "exports"
    if job.on("UseADAL"):
        why = "UseADAL: its D365 is on premises, where the bridge can't sign in: keep it in the Scheduler"
        _leave_out(job, result, [why, *notes])
        return
    entries = getattr(result, kind)
    url = job.option("AosUri")
    try:
        if url:
            normalized(url)
        jobs.parse(json.dumps(result.jobs | {kind: [*entries, entry]}).encode())
    except (InvalidUrl, jobs.InvalidJobs) as error:
        wrong = [f"AosUri ({url}): {error}"] if isinstance(error, InvalidUrl) else error.mistakes
        as_is = json.dumps(entry, ensure_ascii=False)
        _leave_out(job, result, [*wrong, f"correct it, then add: {as_is}", *notes])
        return
    entries.append(entry)
    result.notes.append(f"{job} -> {kind}[{len(entries) - 1}] {entry['name']!r}")
    result.notes += [f"  {note}" for note in notes]


def _import(
    job: Job, name: str, handled: set[str], notes: list[str], result: Result
) -> dict[str, Any]:
    """An import job's fields. Adds its options to `handled`, and what a person must know to `notes`."""
    handled |= {"ActivityId", "EntityName", "IsDataPackage", "Company", "IndefinitePause"}
    handled |= {"InputDir", "SearchPattern", "OrderBy", "ReverseOrder", "UploadInOrder"}
    handled |= {"DelayBetweenFiles", "MultiCompanyImport", "GetLegalEntityFromFilename"}
    handled |= {"FilenameSeparator", "LegalEntityTokenPosition", "PackageTemplate"}
    import_job = _activity(job)
    if job.kind in _PACKAGE_API:
        handled |= {"ExecuteImport", "OverwriteDataProject"}
        _package_import(job, import_job, notes, result)
    elif job.option("EntityName") and not job.on("IsDataPackage"):
        import_job["entity"] = job.option("EntityName")
    elif job.option("EntityName"):
        result.note_option("EntityName", "not needed with data packages, which name their entities")
    _company(job, import_job, notes)
    pattern = job.option("SearchPattern")
    if pattern.lower().endswith("*.xls"):
        # .NET Framework, "Directory.GetFiles": an extension of three characters after * finds longer ones too.
        notes.append(
            f"SearchPattern ({pattern}): Windows finds .xlsx by it too, so it is {pattern}* here"
        )
        pattern += "*"
    if pattern not in ("", "*", "*.*") and not (pattern == "*.zip" and "entity" not in import_job):
        import_job["pattern"] = pattern
    if folder := job.option("InputDir").rstrip("\\/"):
        only = f' --include-pattern "{import_job["pattern"]}"' if "pattern" in import_job else ""
        below = " --recursive" if job.on("GetLegalEntityFromSubfolder") else ""
        notes.append(
            f'InputDir: azcopy copy "{folder}{_separator(folder)}*" '
            f'"https://<data account>.blob.core.windows.net/imports/{name}/"{only}{below}'
        )
        result.note_option(
            "InputDir",
            "files are dropped into imports/{job}/. azcopy brings over what lies in the old folder, once; the "
            "page on the Scheduler has a script for a folder that programs go on writing to",
        )
        if not below:
            result.note_option(
                "Sub-folders of InputDir",
                "a folder below imports/{job}/ is the legal entity here, of at most four characters; drop the "
                "files of other sub-folders into imports/{job}/ itself",
            )
    if (template := job.option("PackageTemplate")) and not job.on("InputFilesArePackages"):
        import_job["template"] = re.split(r"[\\/]", template)[-1]
        notes.append(f"PackageTemplate ({template}): copy it into the container templates")
    elif template:
        notes.append("PackageTemplate: not used, the files are packages already")
    _order(job, import_job, result)
    return import_job


def _activity(job: Job) -> dict[str, Any]:
    """The fields that name the job in D365: its recurring data job, or its data project."""
    if job.kind in _PACKAGE_API:
        return {"api": "package", "dataProject": job.option("DataProject")}
    return {"activityId": job.option("ActivityId")}


def _package_import(job: Job, import_job: dict[str, Any], notes: list[str], result: Result) -> None:
    """Add the fields that only import jobs of the package API have."""
    result.note_option("ExecuteImport", "it becomes execute; a job without execute has true")
    result.note_option(
        "OverwriteDataProject", "it becomes overwrite; a job without overwrite has true"
    )
    if not job.on("ExecuteImport"):
        import_job["execute"] = False
    if not job.on("OverwriteDataProject"):
        import_job["overwrite"] = False
    unused = [option for option in ("ActivityId", "EntityName") if job.option(option)]
    notes += [f"{option}: not used, the package API has none" for option in unused]
    if not job.option("PackageTemplate") and not job.on("InputFilesArePackages"):
        notes.append("its files must be packages (.zip), or the job needs a template")


def _separator(folder: str) -> str:
    return "/" if "/" in folder and "\\" not in folder else "\\"


def _company(job: Job, import_job: dict[str, Any], notes: list[str]) -> None:
    """Add the company, or where in the files' names it is."""
    several = job.on("MultiCompanyImport") or job.kind == "Upload"
    position = job.option("LegalEntityTokenPosition")
    if several and job.on("GetLegalEntityFromFilename"):
        company_from: dict[str, Any] = {
            "separator": job.options.get("FilenameSeparator", ""),
            "position": position,
        }
        if position.isdecimal():
            company_from["position"] = int(position)
        import_job["companyFrom"] = company_from
        if job.option("Company"):
            notes.append("Company: not used, the files' names say it")
    else:
        if job.option("Company"):
            import_job["company"] = job.option("Company")
        unused = ("GetLegalEntityFromFilename", "FilenameSeparator", "LegalEntityTokenPosition")
        why = "not used, the company does not come from the files' names"
        notes += [f"{key}: {why}" for key in unused if job.option(key)]


_ORDERS: Final = {"created": "time", "modified": "time", "size": "size", "filename": "name"}


def _order(job: Job, import_job: dict[str, Any], result: Result) -> None:
    """Add order and pauses. The Scheduler sends a job's files one after the other; a converted job does too."""
    order, pause = job.option("OrderBy"), job.option("DelayBetweenFiles")
    if not (order or job.on("UploadInOrder") or pause not in ("", "0")):
        return
    import_job["ordered"] = True
    if job.on("UploadInOrder"):
        import_job["onFailure"] = "stop"
    elif job.kind in _PACKAGE_API:
        result.note_option(
            "ordered of imports by the package API", "a data project runs one import at a time"
        )
    else:
        import_job["nextAfter"] = "accepted"
        result.note_option(
            "ordered",
            "the Scheduler sends one file after the other; where their order does not matter, take out ordered "
            "and what depends on it, and they go side by side",
        )
    by = _ORDERS.get(order.lower(), "time")
    if by != "name":
        import_job["orderBy"] = by
    if by == "time":
        option = f"OrderBy ({order or 'Created'})"
        result.note_option(option, "time is when a file was dropped into the container")
    if job.on("ReverseOrder"):
        import_job["reverseOrder"] = True
    if pause not in ("", "0"):
        import_job["pauseBetweenFiles"] = int(pause) if pause.isdecimal() else pause


def _export(
    job: Job, _name: str, handled: set[str], notes: list[str], result: Result
) -> dict[str, Any]:
    handled |= {
        "ActivityId",
        "UnzipPackage",
        "DeletePackage",
        "IndefinitePause",
        "DownloadSuccessDir",
    }
    handled |= {"DelayBetweenFiles", "Company"}
    export_job = _activity(job)
    if job.option("DownloadSuccessDir"):
        result.note_option(
            "DownloadSuccessDir", "packages appear in the container exports, in {job}/"
        )
    if job.kind in _PACKAGE_API:
        export_job["schedule"] = _export_schedule(job, notes)
        if job.option("Company"):
            export_job["company"] = job.option("Company")
        if job.option("ActivityId"):
            notes.append("ActivityId: not used, the package API has none")
    elif job.option("Company"):
        notes.append("Company: make the recurring data job in D365 while in that legal entity")
    if job.on("UnzipPackage"):
        export_job["unzip"] = True
        if job.on("DeletePackage"):
            result.note_option(
                "DeletePackage",
                "the package stays: let lifecycle management delete exports/ after as many days as you choose",
            )
    if job.option("DelayBetweenFiles") not in ("", "0"):
        result.note_option(
            "DelayBetweenFiles of downloads",
            "not needed, D365 says when it wants a pause (Retry-After)",
        )
    return export_job


def _rest(job: Job, handled: set[str], result: Result) -> Iterator[str]:
    """A note for each unknown option, and one for all of SFTP. The other options go into the summary."""
    sftp = [key for key, value in job.options.items() if _SFTP.match(key) and value.strip()]
    if sftp:
        yield f"{', '.join(sftp)}: {_BY_SFTP}"
    for key, value in job.options.items():
        if key in handled or key in sftp or not value.strip():
            continue
        if key in ELSEWHERE:
            result.note_option(key, ELSEWHERE[key])
        else:
            yield f"{key}: not known to this converter, and left out; check whether you need it"


def _export_schedule(job: Job, notes: list[str]) -> str:
    """The schedule of a package API's export job. It is paused, so a person reads the notes before it runs."""
    for trigger in job.triggers:
        if trigger.schedule:
            words = [trigger.words]
            if trigger.zone:
                words.append("the hours are in UTC here, so convert them")
            if len(job.triggers) > 1:
                words.append(f"it has {len(job.triggers)} triggers, and only this one is used")
            notes.append(f"schedule {trigger.schedule}: {'; '.join(words)}")
            return trigger.schedule
    reason = "; ".join(each.words for each in job.triggers) or "it has none in the file"
    notes.append(f"schedule: {reason}; set to each night at 00:00 UTC: check it")
    return NIGHTLY


def _watched(job: Job, jobs: Sequence[Job]) -> list[Job]:
    """The jobs whose files a monitor checks."""

    def files(each: Job) -> tuple[str, str]:
        return each.option("UploadSuccessDir"), each.option("ActivityId")

    return [each for each in jobs if each.kind == _MONITORS[job.kind] and files(each) == files(job)]


def _monitor(job: Job, jobs: Sequence[Job], result: Result) -> None:
    """A monitor becomes a note, and no job: the bridge asks for the status of every file that it sends."""
    watched = _watched(job, jobs)
    of = f"of {watched[0]}" if watched else "of no job here"
    result.notes.append(
        f"{job}: monitor {of}; needs no job: the bridge asks for the status of every file until it ends"
    )
    if job.option("PackageTemplate"):
        result.notes.append(
            "  PackageTemplate: it is template of the job whose files the monitor checks"
        )
    handled = {"ActivityId", "IndefinitePause", "PackageTemplate"}
    result.notes += [f"  {note}" for note in _rest(job, handled, result)]


def _leave_out(job: Job, result: Result, why: Sequence[str]) -> None:
    result.left_out += 1
    result.notes.append(f"{job}: LEFT OUT")
    result.notes += [f"  {line}" for line in why]


def _name(job: Job, result: Result) -> str:
    """A valid name that no other job of the result has."""
    slug = _slug(job.name) or "job"
    used = {each["name"].lower() for each in (*result.exports, *result.imports)}
    if slug.lower() in used and job.group:
        slug = _slug(f"{job.group}-{job.name}")
    return _unique(slug, used)


def _unique(name: str, used: set[str]) -> str:
    """A name, with a number at its end if it is used already. `used` has small letters."""
    unique, number = name, 1
    while unique.lower() in used:
        number += 1
        unique = f"{name[:58]}-{number}"
    return unique


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:63].strip("-")


def _schedule(job: Job, notes: list[str], result: Result) -> None:
    if job.kind in _IMPORTS:
        result.note_option(
            "The schedules of uploads", "not needed, a file is sent when it is dropped"
        )
        return
    if job.kind in _PACKAGE_API:
        return
    notes.append(f"schedule: {'; '.join(each.words for each in job.triggers)}")
    result.note_option(
        "The schedules of downloads",
        "the app setting EXPORT_SCHEDULE says for all jobs, in UTC, how often D365 is asked",
    )


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:255]


def _set_environments(jobs: Sequence[Job], result: Result) -> None:
    """The environments of all jobs: the app setting for one, the jobs file for several."""
    tenants: dict[str, str] = {}
    for job in jobs:
        with suppress(InvalidUrl):
            if job.option("AosUri") and not job.on("UseADAL"):
                tenants.setdefault(normalized(job.option("AosUri")), job.option("AadTenant"))
    if len(tenants) == 1:
        result.notes.append(f"app setting D365_URL (AosUri): {next(iter(tenants))}")
        return
    for url, tenant in tenants.items():
        used = {each["name"].lower() for each in result.environments}
        slug = _slug((urlsplit(url).hostname or "").partition(".")[0]) or "environment"
        name = _unique(slug, used)
        result.environments.append({"name": name, "url": url})
        result.notes.append(f"environment {name} (AosUri): {url}")
        if len(set(tenants.values())) > 1:
            result.notes.append(
                f"  AadTenant: it is in the tenant {tenant}; one that is not the app's needs an app "
                "registration (tenantId and clientId, docs/deploy.md)"
            )


def _environment(job: Job, result: Result) -> dict[str, str]:
    """The field that names a job's environment, where there are several."""
    with suppress(InvalidUrl):
        url = normalized(job.option("AosUri"))
        names = [each["name"] for each in result.environments if each["url"] == url]
        return {"environment": names[0]} if names else {}
    return {}


def _note_shared_folders(jobs: Sequence[Job], result: Result) -> None:
    folders: dict[str, list[Job]] = {}
    for job in jobs:
        if job.kind in _IMPORTS and (folder := job.option("InputDir").rstrip("\\/").lower()):
            folders.setdefault(folder, []).append(job)
    for folder, sharing in folders.items():
        if len(sharing) > 1:
            names = ", ".join(map(str, sharing))
            result.notes.append(
                f"{names} take files from one folder ({folder}): here each job has a folder of its own"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0: all jobs are converted; 1: some are left out; 2: a file can't be read or written."""
    parser = argparse.ArgumentParser(
        "d365-blob-bridge convert",
        description="Convert the Recurring Integrations Scheduler's Schedule.xml to a jobs.json on stdout. "
        "What can't be converted, and why, goes to stderr.",
        epilog="Exit code 0: all jobs are converted; 1: some are left out; 2: a file can't be read or written.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.xml")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the jobs file there; an existing file is not overwritten",
    )
    options = parser.parse_args(arguments)
    jobs: list[Job] = []
    for path in options.files:
        try:
            with path.open("rb") as file:
                jobs += read(file.read(MAX_FILE + 1))
        except (OSError, Unreadable) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 2
    result = convert(jobs)
    try:
        if options.out:  # for Windows, where some shells redirect stdout as UTF-16
            with options.out.open("x", encoding="utf-8", newline="\n") as out:
                out.write(result.text)
        else:
            sys.stdout.write(result.text)
    except FileExistsError:
        print(f"{options.out} exists already: name another file", file=sys.stderr)
        return 2
    for line in [
        *result.notes,
        "",
        "The same in all jobs:",
        *(f"  {each}" for each in result.summary),
        "",
    ]:
        print(line, file=sys.stderr)
    print(
        f"{len(result.exports)} exports, {len(result.imports)} imports, {result.left_out} left out; all are "
        "paused (enabled: false) until you change over, job by job: docs/from-the-scheduler.md",
        file=sys.stderr,
    )
    return 1 if result.left_out else 0
