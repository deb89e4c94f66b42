"""`jobs.json`: which recurring data jobs of D365 the bridge serves, as validated types.

The names are those of D365's own forms: the activity id is the *ID* on *Manage scheduled data jobs*
(Microsoft Learn, "Recurring integrations"), the entity is the data entity's name, the company a legal
entity. The JSON Schema (`jobs.schema.json`) is made from these types: `python3 dev.py generate`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from shared.config import ncrontab
from shared.config.environments import Environment, InvalidUrl, normalized, repeated

MAX_JOBS_FILE: Final = 1024 * 1024
"""Bytes. Thousands of jobs fit; anything larger is not a jobs file."""

Name = Annotated[
    str,
    Meta(
        # A job's name is the first folder of its blobs' names, so it keeps to what needs no escaping.
        pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$(?!\n)",
        description="The folder of the job's files. Letters, digits and inner hyphens, at most 63.",
        extra={"mistake": "must be 1 to 63 letters, digits and inner hyphens"},
    ),
]
ActivityId = Annotated[
    str,
    Meta(
        pattern=r"^\{?[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\}?$(?!\n)",
        description="The ID on D365's form Manage scheduled data jobs, a GUID.",
        extra={"mistake": "not a GUID (copy the ID from D365's form Manage scheduled data jobs)"},
    ),
]
Entity = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)",
        description="The data entity's name as D365 shows it, for example General journal. "
        "Left out where the files are data packages (.zip).",
        extra={"mistake": "must be an entity's name: 1 to 255 printable characters"},
    ),
]
Api = Annotated[
    Literal["recurring", "package"],
    Meta(
        description="By which API of D365: recurring (default), a recurring data job with its activityId; or "
        "package, a data project by its name, without a recurring data job and for files of any size.",
        extra={"mistake": "must be recurring or package"},
    ),
]
DataProject = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=60,
        # Of its name D365 makes a filter in which an apostrophe would end the text.
        pattern=r"^[^\x00-\x1f\x7f']+$(?!\n)",
        description="The data project's name in the workspace Data management. With api recurring it takes the "
        "packages of an import job that are too large for the recurring data job.",
        extra={"mistake": "must be a data project's name: 1 to 60 characters, no apostrophe"},
    ),
]
Company = Annotated[
    str,
    Meta(
        # A legal entity's id has at most four characters (Microsoft Learn, "Create a legal entity").
        pattern=r"^[A-Za-z0-9_-]{1,4}$(?!\n)",
        description="The legal entity that the files are imported into, for example USMF.",
        extra={"mistake": "not a legal entity's id (such as USMF, at most four characters)"},
    ),
]


Pattern = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=r"^[^/\\\x00-\x1f\x7f]+$(?!\n)",
        description="Only files whose name matches are taken, for example *.csv: * stands for any characters, "
        "? for one, capitals do not matter. Another waits an hour to be renamed, then is filed under failed.",
        extra={"mistake": "must be a file name with * and ?, without folders"},
    ),
]


Template = Annotated[
    str,
    Meta(
        pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,122}\.[Zz][Ii][Pp]$(?!\n)",
        description="A data-package template in the container templates, such as customers.zip: a bare file is "
        "sent in it, as a data package. Where it has several entities, entity says whose file it is.",
        extra={"mistake": "must be the name of a .zip in the container templates"},
    ),
]


Description = Annotated[
    str | None,
    Meta(description="What the job is for, in a line; shown on the page."),
]
Group = Annotated[
    str | None,
    Meta(description="Jobs of one group stand together on the page."),
]
EnvironmentName = Annotated[
    str | None,
    Meta(
        description="The environment whose job it is, by its name in environments; needed where there are "
        "several."
    ),
]


class CompanyFrom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where in a file's name its legal entity stands: in `GJ_USMF_may.csv` after `_`, position 2."""

    separator: Annotated[str, Meta(min_length=1, max_length=8)]
    position: Annotated[
        int, Meta(ge=1, le=20, description="1 is the part before the first separator.")
    ]

    def find(self, name: str) -> str:
        """The part at the position, the suffix left off and empty parts not counted; "" where there is none."""
        stem = name.rpartition(".")[0] or name
        parts = [part for part in stem.split(self.separator) if part]
        return parts[self.position - 1] if len(parts) >= self.position else ""


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What every job says."""

    name: Name
    activity_id: ActivityId = ""
    environment: EnvironmentName = None
    api: Api = "recurring"
    data_project: DataProject | None = None
    description: Description = None
    group: Group = None
    enabled: Annotated[bool, Meta(description="false pauses the job; files wait.")] = True

    @property
    def known_as(self) -> str:
        """What D365 knows the job by: the recurring data job's id, or the data project's name."""
        return self.activity_id or self.data_project or ""


class ExportJob(Job, frozen=True, kw_only=True):
    """An export job: its packages appear in `exports/{name}/`."""

    schedule: Annotated[
        str | None,
        Meta(
            description="With api package: when the data project is exported, as NCRONTAB with six fields in "
            'UTC ("0 0 2 * * *" is each night at two).'
        ),
    ] = None
    company: Annotated[
        Company | None,
        Meta(
            description="With api package: the legal entity that is exported. Left out: the one of D365's user."
        ),
    ] = None
    re_execute: Annotated[
        bool,
        Meta(
            description="With api package: what D365 gets as reExecute. false (default), since each execution "
            "has an id of its own."
        ),
    ] = False
    unzip: Annotated[bool, Meta(description="Also write the package's files beside it.")] = False


class ImportJob(Job, frozen=True, kw_only=True):
    """An import job: it takes the files dropped into `imports/{name}/`."""

    execute: Annotated[
        bool,
        Meta(
            description="false: the package is only loaded into the data project; a person starts the import."
        ),
    ] = True
    overwrite: Annotated[
        bool,
        Meta(
            description="Whether the package's definition replaces the data project's (not its records). true "
            "(default) for plain entities, false for composite ones."
        ),
    ] = True
    entity: Entity | None = None
    company: Company | None = None
    company_from: Annotated[
        CompanyFrom | None,
        Meta(
            description="Takes the legal entity from the file's name, for example "
            '{"separator": "_", "position": 2}.'
        ),
    ] = None
    pattern: Pattern | None = None
    settle_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=86400,
            description="Seconds: a file is taken when nothing has changed it for so long. Default 0. For "
            "programs that write a file in several steps (Spark, blobfuse, S3 gateways): a minute or more.",
        ),
    ] = 0
    template: Template | None = None
    ordered: Annotated[
        bool,
        Meta(description="One file at a time, in the order of orderBy."),
    ] = False
    order_by: Annotated[
        Literal["name", "time", "size"],
        Meta(
            description="With ordered: which file goes first. name (default): path and name, character by "
            "character; time: when it was dropped, to the second; size: the smallest.",
            extra={"mistake": "must be name, time or size"},
        ),
    ] = "name"
    reverse_order: Annotated[bool, Meta(description="With ordered: the other way round.")] = False
    pause_between_files: Annotated[
        int,
        Meta(
            ge=0,
            le=3600,
            description="With ordered: seconds to wait before each file, counted from when the one before has "
            "ended (or was accepted, as nextAfter says).",
        ),
    ] = 0
    next_after: Annotated[
        Literal["ended", "accepted"],
        Meta(
            description="With ordered: when the next file goes. ended (default): when D365 has imported the "
            "one before, or failed to; accepted: when D365 has taken it.",
            extra={"mistake": "must be ended or accepted"},
        ),
    ] = "ended"
    on_failure: Annotated[
        Literal["continue", "stop"],
        Meta(
            description="With ordered: what a failed file does to those behind it. continue (default): they "
            "go; stop: they wait until it is gone from imports-failed.",
            extra={"mistake": "must be continue or stop"},
        ),
    ] = "continue"
    when_uncertain: Annotated[
        Literal["hold", "resend"],
        Meta(
            description="What to do with a file of which nobody can know whether D365 took it: "
            "hold it for a person (default), or resend it.",
            extra={"mistake": "must be hold or resend"},
        ),
    ] = "hold"
    when_no_records: Annotated[
        Literal["succeed", "fail"],
        Meta(
            description="What a file is of which D365 imported no record, though it says Processed: succeeded, "
            "with a remark (succeed, the default), or failed.",
            extra={"mistake": "must be succeed or fail"},
        ),
    ] = "succeed"
    error_keys: Annotated[
        bool,
        Meta(
            description="Keep D365's file with the keys of the records that failed beside a failed file."
        ),
    ] = False

    @property
    def one_at_a_time(self) -> bool:
        """Whether a file waits for the one before: a data project runs one import at a time."""
        return self.ordered or self.api == "package"

    @property
    def stops_on_failure(self) -> bool:
        """Whether a failed file holds up those behind it."""
        return self.ordered and self.on_failure == "stop"


class Jobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every job of a jobs file, and the environments whose jobs they are."""

    environments: Annotated[
        tuple[Environment, ...],
        Meta(description="Left out where the app setting D365_URL names the only one."),
    ] = ()
    exports: tuple[ExportJob, ...] = ()
    imports: tuple[ImportJob, ...] = ()

    def project_export(self, name: str) -> ExportJob | None:
        """The export job of that name that exports a data project, or None."""
        named = (job for job in self.exports if job.name == name and job.api == "package")
        return next(named, None)

    def import_job(self, name: str) -> ImportJob | None:
        """The import job of that name, or None."""
        return next((job for job in self.imports if job.name == name), None)


class InvalidJobs(ValueError):
    """The jobs file is wrong: `mistakes` has a line for each mistake, with its path."""

    def __init__(
        self, source: str, mistakes: list[str], *, names_environments: bool = False
    ) -> None:
        self.mistakes = mistakes
        self.names_environments = names_environments
        """Whether it means to say itself which environments there are."""
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = "".join(f"\n  - {mistake}" for mistake in mistakes)
        super().__init__(f"{source}: {count}; no job runs until mended:{lines}")


def load(path: Path) -> Jobs:
    """Read and validate a jobs file. Raises `InvalidJobs`, which lists every mistake."""
    try:
        if path.stat().st_size > MAX_JOBS_FILE:
            raise InvalidJobs(str(path), [f"larger than {MAX_JOBS_FILE} bytes: not a jobs file"])
        return parse(path.read_bytes(), str(path))
    except OSError as error:
        why = f"cannot be read ({error.strerror}); the app setting JOBS_FILE names it"
        raise InvalidJobs(str(path), [why]) from error


def parse(text: bytes, source: str = "jobs.json") -> Jobs:
    """Jobs from JSON. Raises `InvalidJobs`, which lists every mistake."""
    try:
        # The standard parser, since it alone says where: line and column.
        raw = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidJobs(source, [f"not valid JSON: {error}"]) from error
    mistakes = list(_mistakes(raw))
    if mistakes:
        named = isinstance(raw, dict) and bool(raw.get("environments"))
        raise InvalidJobs(source, mistakes, names_environments=named)
    raw.pop("$schema", None)
    jobs = msgspec.convert(raw, Jobs)
    environments = tuple(
        msgspec.structs.replace(each, url=normalized(each.url)) for each in jobs.environments
    )
    return msgspec.structs.replace(jobs, environments=environments)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice}" stands twice in one object')
    return fields


def _mistakes(raw: object) -> Iterator[str]:
    """Every mistake with its path: msgspec stops at the first, so each field is tried by itself."""
    if not isinstance(raw, dict):
        yield 'must be an object with "exports" and "imports"'
        return
    for key in raw.keys() - {"$schema", "environments", "exports", "imports"}:
        yield f'{key}: unknown; known are "environments", "exports" and "imports"'
    yield from _environments_mistakes(raw.get("environments", []))
    known = _environment_names(raw.get("environments", []))
    seen: dict[tuple[str, ...], tuple[str, str]] = {}
    kinds: Mapping[str, type[ExportJob | ImportJob]] = {"exports": ExportJob, "imports": ImportJob}
    for kind, type_ in kinds.items():
        items = raw.get(kind, [])
        if not isinstance(items, list):
            yield f"{kind}: must be a list"
            continue
        for index, item in enumerate(items):
            path = f"{kind}[{index}]"
            wrong = list(_fields_mistakes(item, type_, path))
            yield from wrong
            if wrong:
                continue
            environment = item.get("environment") or (known[0] if len(known) == 1 else "")
            if mistake := _environment_mistake(environment, known):
                yield f"{path}.environment: {mistake}"
            yield from _CONTRADICTIONS[kind](item, path)
            yield from _repetitions(seen, kind, path, item, environment)


def _repetitions(
    seen: dict[tuple[str, ...], tuple[str, str]],
    kind: str,
    path: str,
    item: Mapping[str, Any],
    environment: str,
) -> Iterator[str]:
    """What a job may not have in common with one before it. `seen` has what those have, each with its kind and
    path."""

    def first(*key: str) -> tuple[str, str]:
        return seen.setdefault(key, (kind, path))

    # By the environment too: a test environment is a copy, often, with the ids and names of its original.
    if item.get("dataProject"):
        other_kind, other = first("dataProject", environment, item["dataProject"].lower())
        if other != path:
            why = _PROJECT_TWICE[kind] if kind == other_kind else _OUT_AND_IN
            yield f"{path}.dataProject: {other} has the same; {why}"
    # Blob names are case-sensitive, people are not: two jobs may not differ by case alone.
    _, other = first("name", kind, item["name"].lower())
    if other != path:
        yield f"{path}.name: {item['name']} is the name of {other} too"
    if "activityId" in item:
        _, other = first("activityId", environment, str(UUID(item["activityId"])))
        if other != path:
            yield f"{path}.activityId: {other} has the same; a recurring job is served once"


def _environment_names(items: object) -> list[str]:
    """What jobs may name, whatever else is wrong with the environments."""
    environments = items if isinstance(items, list) else []
    return [str(each["name"]) for each in environments if isinstance(each, dict) and "name" in each]


def _environment_mistake(name: str, known: list[str]) -> str:
    """What is wrong with the environment that a job names, or does not; "" where nothing is."""
    if not name:
        return f"missing; there are several: {', '.join(known)}" if known else ""
    there = f"there are {', '.join(known)}" if known else "the file has no environments"
    return "" if name in known else f"there is none of the name {name}; {there}"


def _environments_mistakes(items: object) -> Iterator[str]:
    if not isinstance(items, list):
        yield "environments: must be a list"
        return
    valid: list[tuple[str, str, str]] = []
    for index, item in enumerate(items):
        path = f"environments[{index}]"
        wrong = list(_fields_mistakes(item, Environment, path))
        if isinstance(item, dict):
            for one, other in (("tenantId", "clientId"), ("clientId", "tenantId")):
                if item.get(one) and not item.get(other):
                    wrong.append(f"{path}.{other}: missing beside {one}; set both, or neither")
            if isinstance(url := item.get("url"), str):
                try:
                    url = normalized(url)
                except InvalidUrl as error:
                    wrong.append(f"{path}.url: {error}")
                if not wrong:
                    valid.append((path, item["name"], url))
        yield from wrong
    yield from repeated(valid)


_FOR_ORDERED: Final = (
    "nextAfter",
    "onFailure",
    "orderBy",
    "reverseOrder",
    "pauseBetweenFiles",
)


def _export_contradictions(item: Mapping[str, Any], path: str) -> Iterator[str]:
    """Fields of an export job that are right by themselves and say nothing, or too little, together."""
    if item.get("api") != "package":
        for field in ("dataProject", "schedule", "company", "reExecute"):
            if field in item:
                yield f"{path}.{field}: says nothing without api: package"
        return
    if not item.get("dataProject"):
        yield f"{path}.dataProject: missing; api package exports a data project"
    if "activityId" in item:
        yield f"{path}.activityId: says nothing with api package, which has no recurring data job"
    if not item.get("schedule"):
        yield f"{path}.schedule: missing; with api package it says when the data project is exported"
        return
    try:
        ncrontab.check(item["schedule"])
    except ncrontab.InvalidSchedule as error:
        yield f"{path}.schedule: {error}"


def _contradictions(item: Mapping[str, Any], path: str) -> Iterator[str]:
    """Fields of an import job that are right by themselves and say nothing, or too little, together."""
    if item.get("company") and item.get("companyFrom"):
        yield f"{path}.companyFrom: says nothing beside company"
    if not item.get("ordered"):
        for field in _FOR_ORDERED:
            if field in item:
                yield f"{path}.{field}: says nothing without ordered: true"
    if item.get("api") == "package":
        if not item.get("dataProject"):
            yield f"{path}.dataProject: missing; api package imports into a data project"
        if "activityId" in item:
            yield f"{path}.activityId: says nothing with api package, which has no recurring data job"
        if item.get("nextAfter") == "accepted":
            yield f"{path}.nextAfter: a data project runs one import at a time, so it must be ended"
        if item.get("entity") and not item.get("template"):
            yield f"{path}.entity: says nothing with api package unless there is a template"
        return
    for field in ("execute", "overwrite"):
        if field in item and not item.get("dataProject"):
            yield f"{path}.{field}: says nothing without dataProject"


_CONTRADICTIONS: Final = {"exports": _export_contradictions, "imports": _contradictions}
_PROJECT_TWICE: Final = {
    "exports": "with change tracking each would get a part of the changes",
    "imports": "it runs one import at a time",
}
_OUT_AND_IN: Final = (
    "an import may replace its data project's definition, so an export needs one of its own"
)


def _fields_mistakes(
    item: object, type_: type[ExportJob | ImportJob | Environment], path: str
) -> Iterator[str]:
    if not isinstance(item, dict):
        yield f"{path}: must be an object"
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    for key in item.keys() - fields.keys():
        yield f"{path}.{key}: unknown; known are {', '.join(fields)}"
    for name, field in fields.items():
        if name not in item:
            by_recurring_job = name == "activityId" and item.get("api", "recurring") == "recurring"
            if field.required or by_recurring_job:
                yield f"{path}.{name}: missing"
            continue
        try:
            msgspec.convert(item[name], field.type)
        except msgspec.ValidationError as error:
            yield f"{path}.{name}: {_for_people(field.type, item[name], error)}"


def _parts(type_: object) -> Iterator[object]:
    """A type, and the types that it is made of."""
    yield type_
    for part in getattr(type_, "__args__", ()):
        yield from _parts(part)


def _for_people(type_: object, value: object, error: msgspec.ValidationError) -> str:
    """The mistake in the type's own words where it has some and the value is at least a text."""
    parts = list(_parts(type_))
    extras = [m.extra for p in parts for m in getattr(p, "__metadata__", ()) if isinstance(m, Meta)]
    if isinstance(value, str):
        for extra in extras:
            if extra and "mistake" in extra:
                return str(extra["mistake"])
    return str(error)[0].lower() + str(error)[1:]


def schema() -> dict[str, Any]:
    """The JSON Schema of a jobs file, for editors."""
    json_schema = msgspec.json.schema(Jobs)
    json_schema["$defs"]["Jobs"]["properties"]["$schema"] = {"type": "string"}
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **json_schema}
    return dict(json.loads(json.dumps(whole)))  # defaults that are tuples become lists
