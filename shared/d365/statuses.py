"""Parses what D365 says about a message or an execution (status, counts, errors), and decides what a status
means.

The status values are those of Microsoft Learn, "Recurring integrations", section on the message status, and
those that the Recurring Integrations Scheduler's source has beside them, by name and by number (S1). The form
in which they and the errors come is not documented in full, so every form is taken that has a meaning.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from shared.d365.errors import Rejected
from shared.d365.responses import (
    Response,
    error_text,
    fields_of,
    innermost,
    is_page,
    parse,
)
from shared.observability.events import printable

Meaning = Literal["running", "succeeded", "failed", "unknown"]

GIVE_UP: Final = timedelta(days=3)
"""For so long D365 may take over a file or an export: enough for a batch that rests over a weekend (S3)."""

_MEANINGS: Final[Mapping[str, Meaning]] = {
    "enqueued": "running",
    "dequeued": "running",
    "downloaded": "running",
    "acked": "running",
    "preprocessing": "running",
    "processing": "running",
    "inprocess": "running",
    "processed": "succeeded",
    "processedwitherrors": "failed",
    "preprocessingerror": "failed",
    "preprocesserror": "failed",
    "postprocessingfailed": "failed",
    "postprocessingerror": "failed",
    "postprocesserror": "failed",
    # Of an execution (GetExecutionSummaryStatus).
    "notrun": "running",
    "executing": "running",
    "succeeded": "succeeded",
    "partiallysucceeded": "failed",
    "failed": "failed",
    "canceled": "failed",
    "cancelled": "failed",
}
_NUMBERS: Final = (
    "Enqueued",
    "Dequeued",
    "Downloaded",
    "Acked",
    "Processing",
    "Processed",
    "ProcessedWithErrors",
    "PostProcessingError",
    "PreProcessingError",
    "PreProcessing",
)
_STATUS_LIMIT: Final = 100
"""Characters. No status is longer."""


def meaning(status: str) -> Meaning:
    """What a status says of its file; "unknown" counts as running (S1)."""
    return _MEANINGS.get(re.sub(r"[\W_]", "", status).lower(), "unknown")


def is_partial(status: str) -> bool:
    """Whether an execution succeeded in part: an export has a package then too."""
    return re.sub(r"[\W_]", "", status).lower() == "partiallysucceeded"


def status_of(answer: Response) -> str:
    """The status by its name: as text or number, in JSON or bare, under `value` or in a list, or as an enum's
    literal (`Microsoft.Dynamics.DataEntities.DMFMessageStatus'Processed'`). Raises `Rejected`."""
    text = answer.body.decode(json.detect_encoding(answer.body), "replace")
    try:
        value = innermost(parse(answer.body), "value", "status", "messagestatus")
    except ValueError as error:
        value = re.sub(r"<[^>]*>", " ", text).strip()
        if is_page(text) or len(value) > _STATUS_LIMIT:
            why = f"D365's answer is not JSON: {error_text(answer.body)}"
            raise Rejected("message status", why) from error
    status = _text(value)
    literal = re.fullmatch(r"[A-Za-z_][\w.]*['.](\w+)'?|(\d+)\.0", status)
    name = (literal[1] or literal[2]) if literal else status
    return _NUMBERS[int(name)] if name.isdecimal() and int(name) < len(_NUMBERS) else name


# -- the execution --------------------------------------------------------------------------------


@dataclass(frozen=True)
class EntityCounts:
    """The records of one entity as D365 counts them; None for what it does not say."""

    entity: str
    company: str
    records: int | None
    """In staging."""
    imported: int | None
    """In the entity's tables."""

    def __str__(self) -> str:
        of = "" if self.records is None else f" of {self.records}"
        count = "?" if self.imported is None else f"{self.imported}{of}"
        return f"{self.entity}: {count}" if self.entity else count


@dataclass(frozen=True)
class JobStatus:
    """The connector's own account of a message; "" for what it does not say."""

    state: str = ""
    external_id: str = ""
    execution_id: str = ""
    log: str = ""
    entities: tuple[EntityCounts, ...] = ()

    @property
    def imported(self) -> int | None:
        """Records of all entities that got in; None where D365 does not say."""
        counts = [each.imported for each in self.entities if each.imported is not None]
        return sum(counts) if counts else None

    @property
    def counts(self) -> str:
        """Records that got in, of each entity."""
        return "; ".join(map(str, self.entities))

    @property
    def companies(self) -> tuple[str, ...]:
        """The companies into which they got."""
        return tuple(dict.fromkeys(each.company for each in self.entities if each.company))


def job_status_of(answer: Response) -> JobStatus:
    """`DataJobStatus`, `ExecutionLog`, `ExecutionDetail`: as in the Scheduler's source. Raises `Rejected`."""
    try:
        value = _unwrapped(parse(answer.body))
    except ValueError as error:
        why = f"D365's answer is not JSON: {error_text(answer.body)}"
        raise Rejected("job status", why) from error
    if not isinstance(value, dict):
        raise Rejected("job status", "D365 answered with something else than a job status")
    job = fields_of(value)
    state = fields_of(job.get("datajobstatus"))
    details = job.get("executiondetail")
    return JobStatus(
        state=_text(state.get("datajobstate")),
        external_id=_text(state.get("externalidentifier")),
        execution_id=execution_id_of(state.get("executionidentifier")),
        log=_text(job.get("executionlog")),
        entities=tuple(
            _counts(fields)
            for each in (details if isinstance(details, list) else [details])
            if (fields := fields_of(each))
        ),
    )


def _unwrapped(value: Any) -> Any:
    """What stands under `value`, in a list of one, or as JSON in a text."""
    while True:
        if isinstance(value, str):
            value = parse(value)
        elif isinstance(value, list) and len(value) == 1:
            value = value[0]
        elif "value" in (fields := fields_of(value)) and "datajobstatus" not in fields:
            value = fields["value"]
        else:
            return value


def _counts(fields: Mapping[str, Any]) -> EntityCounts:
    records, imported = _number(fields.get("stagingrecords")), _number(fields.get("targetrecords"))
    errors = _number(fields.get("targeterrorcount")) or 0
    if imported is not None and records:
        # Whether those with errors are among the records of the target is not known: so they are not counted.
        imported = max(0, min(imported, records - errors))
    return EntityCounts(
        _text(fields.get("entityname")), _text(fields.get("company")), records, imported
    )


def _number(value: Any) -> int | None:
    text = str(value).strip()
    return int(text) if text.isdecimal() and len(text) < 16 else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return printable(text)


def execution_id_of(value: Any) -> str:
    """An execution id; "" where it is none, such as the GUID of zeros that D365 gives before there is one."""
    text = value.strip() if isinstance(value, str) else ""
    return text if text.strip("{}0-") else ""


# -- the errors -----------------------------------------------------------------------------------


def errors_of(answer: Response) -> list[str]:
    """D365's errors, a line each: from texts, objects (`RecordId`, `Field`, `ErrorMessage`), one of them alone,
    or these as JSON in a text. Raises `Rejected`."""
    text = answer.body.decode(json.detect_encoding(answer.body), "replace")
    if is_page(text):
        raise Rejected("execution errors", f"D365's answer is not JSON: {error_text(answer.body)}")
    try:
        return list(dict.fromkeys(line for line in _errors(text) if line))
    except RecursionError as error:
        why = "D365 answered with something else than errors: it is nested too deeply"
        raise Rejected("execution errors", why) from error


def _errors(value: Any) -> Iterator[str]:
    fields = fields_of(value)
    if isinstance(value, list):
        for each in value:
            yield from _errors(each)
    elif isinstance(value, str):
        try:
            inner = parse(value)
        except ValueError:
            inner = list(_broken_records(value)) or value
        if inner != value and isinstance(inner, (str, list, dict)):
            yield from _errors(inner)
        elif inner is not None:
            yield from (_line(line) for line in value.splitlines())
    elif message := next((_line(fields[key]) for key in _MESSAGES if fields.get(key)), ""):
        positions = [
            f"{word} {value}"
            for key, word in (("recordid", "record"), ("field", "field"))
            if (value := _line(fields.get(key)))
        ]
        yield f"{message} ({', '.join(positions)})" if positions else message
    elif within := [fields[key] for key in ("value", "errors") if key in fields]:
        yield from _errors(within[0])
    elif fields:
        yield "; ".join(f"{key}: {_line(each)}" for key, each in value.items() if _line(each))
    elif value:
        yield _line(value)


def _broken_records(text: str) -> Iterator[dict[str, str]]:
    """The records of a list that is no JSON, since D365 leaves quotes and line breaks in large ones as they
    are. A record begins with its first field, and a field ends where the next one's name begins."""
    for record in _RECORD.split(text)[1:]:
        fields = dict[str, str]()
        starts = [*_FIELD.finditer(record)]
        ends = [*(start.start() for start in starts[1:]), len(record)]
        for start, end in zip(starts, ends, strict=True):
            value = re.sub(r'"?[\s,}\]]*$', "", record[start.end() : end])
            fields[start[1]] = re.sub(r"\\([\"\\/])", r"\1", value)
        yield fields


_RECORD: Final = re.compile(r'\{\s*(?="RecordId"\s*:)', re.IGNORECASE)
_FIELD: Final = re.compile(r'"(RecordId|Field|ErrorMessage)"\s*:\s*"?', re.IGNORECASE)

_MESSAGES: Final = ("errormessage", "message", "error", "description")


def _line(value: Any) -> str:
    return " ".join(_text(value).split())
