"""What the environment keeps: packages, files that it took, faults, and requests as they came."""

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

CHUNK: Final = 512 * 1024

RECORDS: Final = 20
"""Of every file."""

type Json = dict[str, Any]

GATEWAY_ERRORS: Final = {
    "Envoy": '{"error":"upstream connect error"}',
    "AWS": '{"message":"Internal server error"}',
    "Azure": '{"statusCode": 504, "message": "The request has timed out."}',
    "ASP.NET": '{"Message":"An error has occurred."}',
    "a page": "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
}
"""Bodies of errors as they occur on the way to D365; with `answer-after`, after D365 has done all the same."""


@dataclass
class Package:
    """What an export job offers: a data package, or any file where the job's type is *File*."""

    activity_id: str
    content: bytes | Path
    correlation_id: str = field(default_factory=lambda: str(uuid4()))
    """Under which it is offered first; empty for none."""
    blob: str = field(default_factory=lambda: str(uuid4()))
    """Its id in D365's storage, which no further offer changes."""
    location: str | None = (
        "{base}/api/connector/download/{activity}?correlation-id={correlation}&blob={blob}"
    )
    """The download location to give, with {base}, {host}, {activity}, {correlation} and {blob}."""
    file_exists: bool = True
    """False for a message without a file, as *Prevent upload when zero records* makes them."""
    problem: str | None = ""
    """What D365 says of a file that it could not make."""
    pop_receipt: str = ""
    offered_as: str = ""
    """The correlation id of the newest offer."""
    downloads: int = 0
    offered: int = 0
    offered_at: float = 0.0
    acknowledged: int = 0
    answer: bytes = b""
    acknowledgements: list[Json] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def chunks(self, at: int = 0) -> Iterator[bytes]:
        if isinstance(self.content, Path):
            with self.content.open("rb") as file:
                file.seek(at)
                while chunk := file.read(CHUNK):
                    yield chunk
        else:
            for start in range(at, len(self.content), CHUNK):
                yield self.content[start : start + CHUNK]


@dataclass
class Received:
    """A file that D365 has taken."""

    message_id: str
    activity_id: str
    entity: str | None
    company: str | None
    """As the request says."""
    into: str
    """The company into which it is imported."""
    external_id: str
    sha256: str
    length: int
    headers: dict[str, str]
    statuses: deque[str]
    errors: list[Any]
    began: float
    """When its first byte was waited for; like the other times as `time.time()` says it."""
    taken: float
    """When all of it was there."""
    ended: float = 0.0
    """When its final status was first told; 0 while nobody was."""
    execution_id: str = field(default_factory=lambda: f"DMF-{uuid4().hex[:12].upper()}")
    status: str = "Enqueued"
    polls: int = 0
    imported: int | None = None
    """Records that got into their tables, of `RECORDS`; None: all, or with errors none."""


@dataclass
class Fault:
    """Something that goes wrong with the next `times` requests of an operation (-1: with all).

    `do` is one of: `answer` (status, headers, body) instead of serving; `answer-after`: serve, then this
    answer; `reset`: before the body is read; `reset-during`: after `bytes` of the body, either way;
    `reset-after`: serve, but the answer is lost; `delay` (seconds), then serve; `hang`: no answer for
    `seconds`; `interim`: serve, but before the answer comes an interim one with `status` (102, 103); `drip`:
    serve, but of the answer's body `bytes` at a time with `seconds` between them (many `seconds` are a stall).
    Of a download: `truncate` (after `bytes`, the length was announced), `truncate-silently` (no length was),
    `corrupt` (the byte at `bytes` is wrong, each time otherwise), `chunked`, `gzip`, `longer` (announces one
    byte more than comes and ends).
    """

    operation: str
    do: str
    times: int = 1
    skip: int = 0
    activity_id: str | None = None
    path: str = ""
    """Only requests whose path holds this."""
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    bytes: int = 0
    seconds: float = 0.0


@dataclass
class Recorded:
    """A request, as it came."""

    operation: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in the case that they came in; the token itself is left out."""
    authorized: bool
    status: int = 0
    """What it was answered; 0 for not at all."""
    length: int = 0
