"""What the bridge reports: one log line an event, `<event> <JSON object>`, through Python logging.

The Functions worker sends each line to Application Insights as a trace; a query splits it at the first
space and parses the rest (`parse_json`). `EVENTS` declares every event with the fields that it always
carries: the alerts and the workbook in `infra/` are checked against it, and `emit` refuses an event
that is not declared, so that the three can't drift apart.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

log = logging.getLogger("bridge")

EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    # export
    "package.stored": ("job", "correlationId", "blob", "bytes", "sha256", "seconds"),
    "package.acknowledged": ("job", "correlationId", "blob", "remark"),
    "package.failed": ("job", "correlationId", "error"),
    "package.empty": ("job", "correlationId"),
    "package.unreadable": ("job", "correlationId", "blob", "error"),
    "unzip.failed": ("job", "correlationId", "blob", "error"),
    "export.unfinished": ("job", "packages", "failed", "seconds"),
    "export.finished": ("job", "packages", "failed", "seconds"),
    "export.failed": ("job", "error"),
    # export of a data project (shared/exports/data_project.py)
    "export.idle": ("job",),
    "execution.requested": ("job", "executionId", "by", "why"),
    "execution.began": ("job", "executionId", "due"),
    "execution.checked": ("job", "executionId", "status", "checks"),
    "execution.unknown": ("job", "executionId", "status"),
    "execution.overdue": ("job", "executionId", "status", "error"),
    "execution.carried": ("job", "executionId", "reason"),
    "execution.stored": ("job", "correlationId", "blob", "bytes", "moved", "seconds"),
    "execution.partial": ("job", "correlationId", "blob", "bytes", "moved", "seconds", "error"),
    "execution.failed": ("job", "correlationId", "status", "seconds", "error"),
    # import
    "file.claimed": ("job", "file", "source", "bytes"),
    "file.sent": ("job", "file", "messageId", "externalId", "bytes"),
    "file.doubted": ("job", "file", "error", "externalId"),
    "file.waiting": ("job", "file", "reason", "retryInSeconds"),
    "file.succeeded": ("job", "file", "messageId", "records", "remark", "seconds"),
    "file.failed": ("job", "file", "reason", "error", "messageId", "records", "seconds"),
    "file.held": ("job", "file", "reason", "error", "messageId", "externalId", "seconds"),
    "company.differs": ("job", "file", "reason", "error", "messageId"),
    "job.stopped": ("job", "file"),
    "metadata.dropped": ("job", "file", "keys"),
    "tags.dropped": ("job", "file", "tags"),
    # status
    "status.checked": ("job", "file", "messageId", "status", "checks"),
    "status.unknown": ("job", "file", "messageId", "status"),
    "message.ignored": ("file", "reason"),
    "lease.lost": ("blob", "error"),
    # reconcile
    "reconcile.finished": ("found", "requeued", "poison", "seconds"),
    "reconcile.failed": ("file", "error"),
    "poison.found": ("queue", "message"),
    # what people do (shared/operations/actions.py)
    "file.resent": ("job", "file", "messageId", "source", "by", "why"),
    "file.received": ("job", "file", "messageId", "by", "why"),
    "file.asked": ("job", "file", "messageId", "by", "why"),
    "file.dismissed": ("job", "file", "messageId", "by", "why"),
    "package.redelivered": ("job", "correlationId", "blob", "source", "by", "why"),
    "probe.arrived": ("file",),
    # the D365 client
    "d365.retry": ("operation", "error", "attempt", "waitSeconds"),
    "d365.denied": ("operation", "error"),
}

EVERY: Final = "environment"
"""What every line says besides: the D365 that it is about, "" where it is about none, or about all."""

ENDINGS: Final[Mapping[str, str]] = {
    "file.succeeded": "succeeded",
    "file.failed": "failed",
    "file.held": "held",
    "package.acknowledged": "exported",
    "package.failed": "failed",
    "execution.stored": "exported",
    "execution.partial": "exported",
    "execution.failed": "failed",
}
"""The events with which a file's import or a package's export ends, and how."""

listeners: Final[list[Callable[[str, Mapping[str, object]], None]]] = []
"""Called with every event after it was logged, and with its fields as logged. They raise nothing."""

_about: Final[ContextVar[Mapping[str, str]]] = ContextVar("about", default=MappingProxyType({}))


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Say what is being worked at: each line within bears these ids (those that are not empty)."""
    bound = _about.set({**_about.get(), **{name: id_ for name, id_ in ids.items() if id_}})
    try:
        yield
    finally:
        _about.reset(bound)


_SECRETS: Final = re.compile(
    # A signature or a function key: in a URL, or long enough to be one. What is followed by a suffix is a file
    # (`sig=1.csv`). In JSON an ampersand may be written as \u0026.
    r"(?i)(?:(?<=[?&;])|(?<=u0026)|(?<=%26)|(?<=%3f)|(?<![a-z])(?=(?:sig|code)(?:=|%3d)[\w%+/~-]{20}))"
    r"(sig|code)(?:=|%3d)[\w%+/~=-]++(?!\.\w)"
    r"|(?<![a-z])(access_token|client_secret|accountkey)(?:=|%3d)[^&\s\"'\\]+"
    r"|\b(bearer)\s+(?:[\w.~+/-]{20,}|[\w-]+\.[\w-]+\.[\w-]+)=*"
)


def redact(text: str) -> str:
    """Text with tokens, keys and SAS signatures replaced (invariant A3)."""
    return _SECRETS.sub(
        lambda m: "Bearer [redacted]" if m[3] else f"{m[1] or m[2]}=[redacted]", text
    )


TEXT_LIMIT: Final = 4000
"""Characters. Application Insights keeps 32,768 of a line, and a person reads fewer."""


def shortened(text: str) -> str:
    """Text of some `TEXT_LIMIT` characters at most: of a longer one the beginning and the end."""
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2
    return f"{text[:half]} [… {len(text) - 2 * half} characters …] {text[-half:]}"


_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text without control characters but tab and line feed: others command the terminal that shows it."""
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n"))


def emit(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log one event with its fields; texts are redacted and made printable. Raises `KeyError` if undeclared."""
    missing = [name for name in EVENTS[event] if name not in fields]
    if missing:
        raise KeyError(f"event {event} lacks {missing}")
    everything = {EVERY: "", **_about.get(), **fields}
    clean = {
        k: printable(redact(shortened(v))) if isinstance(v, str) else v
        for k, v in everything.items()
    }
    log.log(level, "%s %s", event, json.dumps(clean, ensure_ascii=False, default=str))
    for listener in listeners:
        listener(event, clean)
