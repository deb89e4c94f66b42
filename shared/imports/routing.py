"""Decides which job and company a dropped file is for, whether it must wait, and whether it is data at all.

Pure: nothing is read and nothing is written here. Whether to wait is asked before a file is claimed; for which
job and company it is, only afterwards, when it lies in processing and nobody else can decide about it.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final

from shared.config.jobs import ImportJob, Jobs
from shared.imports import templates
from shared.storage.records import File

UPLOADED_WITHIN: Final = timedelta(hours=1)
"""So long a file may have a name that does not match its job's pattern: programs upload under a name of their
own (`may.csv.filepart`) and rename what is whole. And so long it may be empty: what comes by SFTP is there,
empty, before its content ("SFTP support for Azure Blob Storage", events), and so is what a program first
creates and then writes."""

_UNFINISHED: Final = (
    "*.filepart",
    "*.part",
    "*.crdownload",
    "*.tmp",
    "*._copying_",
    "*.azdownload-*",
)
"""What WinSCP, browsers, Hadoop and Azure's tools call a file until it is whole."""

_MARKERS: Final = ("_success", "_started_*", "_committed_*", "*_$folder$")
"""What Spark and Hadoop write beside their data. Their unfinished files lie in a folder `_temporary`."""

_SYSTEM: Final = (
    "~$*",
    ".~lock.*#",
    ".*.swp",
    ".ds_store",
    "thumbs.db",
    "desktop.ini",
)
"""What office programs, editors and operating systems leave in folders."""

_COMPANY: Final = re.compile(r"[A-Za-z0-9_-]{1,4}")


NOT_WHOLE: Final = "not-whole"
"""The reason that a claim notes, since the copy that it makes is whole: only the dropped file shows it."""


class InvalidDrop(ValueError):
    """A dropped file that no job can take. `reason` is a key of `outcome.TODO`."""

    def __init__(self, reason: str, error: str, job: ImportJob | None = None) -> None:
        self.reason = reason
        self.job = job
        super().__init__(error)


@dataclass(frozen=True)
class Wait:
    """A dropped file is left where it is for now."""

    why: str
    until: datetime | None = None
    """When to look at it again; None where reconcile's rounds do, or something must happen first."""
    blocks: bool = True
    """Whether it keeps the others of an ordered job waiting, which come after it."""
    reported: bool = True
    """Whether the log is to say so."""


def is_never_data(dropped: File, job: ImportJob | None) -> bool:
    """Whether a file is no data for any job (a marker, a lock, an unfinished upload): it is left alone.

    A job whose pattern asks for such names (`*.tmp`) gets them.
    """
    *folders, name = dropped.name.lower().split("/")
    if "_temporary" in folders or (dropped.size == 0 and _is_folder_marker(dropped.name)):
        return True
    return _has_such_a_name(name) and not (
        job and job.pattern and _has_such_a_name(job.pattern.lower())
    )


def _has_such_a_name(name: str) -> bool:
    return any(fnmatchcase(name, each) for each in (*_UNFINISHED, *_MARKERS, *_SYSTEM))


def _is_folder_marker(name: str) -> bool:
    """Whether an empty blob stands for a folder: a job's, or a company's in it."""
    job, slash, company = name.partition("/")
    return name.endswith("/") or (
        "." not in job and (not slash or bool(_COMPANY.fullmatch(company)))
    )


def wait(job: ImportJob | None, dropped: File, now: datetime, patience: timedelta) -> Wait | None:
    """Why a dropped file is not taken yet; None where it can be."""
    age = now - dropped.modified
    if job and not _is_named_for(job, dropped.name) and age < UPLOADED_WITHIN:
        why = f"its name does not match the job's pattern {job.pattern}: it may be renamed yet"
        return Wait(why, blocks=False)
    if job and not job.enabled:
        return Wait("its job is paused", reported=False)
    if dropped.archived:
        return Wait(
            "it lies in the archive tier, where it can't be read: rehydrate it (az storage blob set-tier "
            "--tier Hot; that takes hours), and it is taken then; or delete it and drop the file again"
        )
    if dropped.copy_status == "pending":
        return Wait("it is being copied there, and not whole yet")
    if dropped.size == 0 and age < UPLOADED_WITHIN:
        return Wait("it is empty: its content may be on its way")
    if dropped.grows and age < patience:
        return Wait(
            "an append or page blob may yet change: it is taken when nothing has for a while"
        )
    if job and age < timedelta(seconds=job.settle_seconds):
        until = dropped.modified + timedelta(seconds=job.settle_seconds)
        return Wait(f"it is taken when nothing has changed for {job.settle_seconds} s", until)
    return None


def route(jobs: Jobs, claimed: File) -> tuple[ImportJob, File]:
    """The job that takes a claimed file, by the path where it was dropped, and the file with what its record
    says then. Raises `InvalidDrop`."""
    job, company = _job_and_company(jobs, claimed.record.source, claimed)
    stops = "yes" if job.stops_on_failure else ""
    record = replace(claimed.record, job=job.name, company=company, stopsjob=stops)
    return job, replace(claimed, record=record)


def _job_and_company(jobs: Jobs, path: str, file: File) -> tuple[ImportJob, str]:
    """The job and the company ("" for none) that the path of a dropped file names. Raises `InvalidDrop`."""
    folder, *rest = path.split("/")
    if not rest:
        raise InvalidDrop("no-job-in-path", "the file lies in no job's folder")
    job = jobs.import_job(folder)
    if job is None:
        known = ", ".join(each.name for each in jobs.imports) or "none"
        raise InvalidDrop("no-such-job", f"there is no import job {folder!r}; there are: {known}")
    if len(rest) > 2 or any(part in ("", ".", "..") for part in rest):
        raise InvalidDrop("bad-path", f"{path!r} is not job/file or job/company/file", job)
    if not _is_named_for(job, path):
        raise InvalidDrop(
            "no-match", f"the name does not match the job's pattern {job.pattern}", job
        )
    company = _company(job, rest)
    if job.api == "package" and not company:
        text = "the package API wants a legal entity: neither the job nor the file's path names one"
        raise InvalidDrop("no-company", text, job)
    if file.record.reason == NOT_WHOLE:
        raise InvalidDrop(NOT_WHOLE, file.record.error, job)
    if file.size == 0:
        raise InvalidDrop("empty-file", "the file is empty", job)
    if is_package(rest[-1]):
        return job, company
    if job.template and file.size > templates.LARGEST_FILE:
        text = f"the file has {file.size} bytes, more than the {templates.LARGEST_FILE} that are wrapped"
        raise InvalidDrop("too-large", text, job)
    if job.api == "package" and not job.template:
        text = "the job has no template, so by the package API it takes data packages (.zip) alone"
        raise InvalidDrop("no-entity", text, job)
    if not (job.entity or job.template):
        text = "the job has no entity, so it takes data packages (.zip) alone"
        raise InvalidDrop("no-entity", text, job)
    return job, company


def _is_named_for(job: ImportJob, path: str) -> bool:
    """Whether a file's name matches the job's pattern of * and ?, without regard to case."""
    if not job.pattern:
        return True
    # A bracket is an ordinary character in a file's name, and in the patterns that people know.
    name = path.rpartition("/")[2]
    return fnmatchcase(name.lower(), job.pattern.lower().replace("[", "[[]"))


def _company(job: ImportJob, path: list[str]) -> str:
    """The company that the job, the folder or the file's name says, "" for none. Raises `InvalidDrop`.

    `path` is [file] or [company, file]. Where more than one of them says something, they must agree.
    """
    companies = {"the job": job.company or ""}
    if len(path) == 2:
        companies["the file's folder"] = path[0]
    if job.company_from:
        companies["the file's name"] = job.company_from.find(path[-1])
        if not companies["the file's name"]:
            where = f"part {job.company_from.position} between {job.company_from.separator!r}"
            raise InvalidDrop("no-company", f"{path[-1]!r} has no {where} to be its company", job)
    companies = {who: company for who, company in companies.items() if company}
    for who, company in companies.items():
        if not _COMPANY.fullmatch(company):
            raise InvalidDrop(
                "bad-path", f"{who} says {company!r}, which is no legal entity's id", job
            )
    if len({company.lower() for company in companies.values()}) > 1:
        text = ", ".join(f"{who} says {company}" for who, company in companies.items())
        raise InvalidDrop("bad-path", f"which company? {text}", job)
    return next(reversed(companies.values()), "")


def is_package(name: str) -> bool:
    """Whether a file is sent as a data package: then no entity is named."""
    return name.lower().endswith(".zip")
