"""What the bridge reports: one log line an event, `<event> <JSON object>`, through Python logging.

The Functions worker sends each line to Application Insights as a trace; a query splits it at the first
space and parses the rest (`parse_json`). `EVENTS` declares every event with the fields that it always
carries: the alerts and the workbook in `infra/` are checked against it, and `report` refuses an event
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
    "package.acknowledged": ("job", "correlationId", "blob"),
    "package.failed": ("job", "correlationId", "error"),
    "export.finished": ("job", "packages", "failed", "seconds"),
    "export.failed": ("job", "error"),
    # import
    "file.claimed": ("job", "file", "source", "bytes"),
    "file.sent": ("job", "file", "messageId", "externalId", "bytes"),
    "file.waiting": ("job", "file", "reason", "retryInSeconds"),
    "file.succeeded": ("job", "file", "messageId", "records", "remark", "seconds"),
    "file.failed": ("job", "file", "reason", "error", "messageId", "records", "seconds"),
    "file.held": ("job", "file", "reason", "error", "messageId", "externalId", "seconds"),
    "company.differs": ("job", "file", "reason", "error", "messageId"),
    "job.stopped": ("job", "file"),
    # status
    "status.checked": ("job", "file", "messageId", "status", "checks"),
    "status.unknown": ("job", "file", "messageId", "status"),
    "message.ignored": ("file", "reason"),
    # reconcile
    "reconcile.finished": ("found", "requeued", "poison", "seconds"),
    "reconcile.failed": ("file", "error"),
    "poison.found": ("queue", "message"),
    # what people do (shared/replaying.py)
    "file.resent": ("job", "file", "messageId", "source", "by", "why"),
    "file.received": ("job", "file", "messageId", "by", "why"),
    "file.dismissed": ("job", "file", "messageId", "by", "why"),
    "package.copied": ("job", "correlationId", "blob", "source", "by", "why"),
    "probe.arrived": ("file",),
    # the D365 client
    "d365.retry": ("operation", "error", "attempt", "waitSeconds"),
    "d365.denied": ("operation", "error"),
}

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
    # A letter before it makes it another word; in JSON an ampersand may be written as \u0026.
    r"(?i)(?<![a-z])(sig|code|access_token|client_secret|accountkey)(?:=|%3d)[^&\s\"'\\]+"
    r"|\bbearer\s+[\w\-.~+/]+=*"
)


def redact(text: str) -> str:
    """Text with tokens, keys and SAS signatures replaced (invariant A3)."""
    return _SECRETS.sub(lambda m: (f"{m[1]}=" if m[1] else "Bearer ") + "[redacted]", text)


def report(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log one event with its fields; values that are text are redacted. Raises `KeyError` if undeclared."""
    missing = [name for name in EVENTS[event] if name not in fields]
    if missing:
        raise KeyError(f"event {event} lacks {missing}")
    told = {**_about.get(), **fields}
    clean = {k: redact(v) if isinstance(v, str) else v for k, v in told.items()}
    log.log(level, "%s %s", event, json.dumps(clean, ensure_ascii=False, default=str))
    for listener in listeners:
        listener(event, clean)
