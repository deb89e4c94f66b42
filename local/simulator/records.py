"""What the simulator keeps: packages, received files, faults and requests."""

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

CHUNK: Final = 512 * 1024

RECORDS: Final = 20
"""The number of records in every file."""

type Json = dict[str, Any]

GATEWAY_ERRORS: Final = {
    "Envoy": '{"error":"upstream connect error"}',
    "AWS": '{"message":"Internal server error"}',
    "Azure": '{"statusCode": 504, "message": "The request has timed out."}',
    "ASP.NET": '{"Message":"An error has occurred."}',
    "a page": "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
}
"""Bodies of error answers by gateways before D365. With `answer-after`, D365 has done its work nevertheless."""


@dataclass
class Package:
    """What an export job offers: a data package, or any file where the job's type is *File*."""

    activity_id: str
    content: bytes | Path
    correlation_id: str = field(default_factory=lambda: str(uuid4()))
    """That of the first offer; empty for none."""
    blob: str = field(default_factory=lambda: str(uuid4()))
    """Its id in D365's storage, the same in every offer."""
    location: str | None = (
        "{base}/api/connector/download/{activity}?correlation-id={correlation}&blob={blob}"
    )
    """The download location to give, with {base}, {host}, {activity}, {correlation} and {blob}."""
    file_exists: bool = True
    """False for a message without a file, which *Prevent upload when zero records* makes."""
    problem: str | None = ""
    """D365's error text where it could not make the file."""
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
    """A file that D365 has received."""

    message_id: str
    activity_id: str
    entity: str | None
    company: str | None
    """The company in the request."""
    into: str
    """The company into which it is imported."""
    external_id: str
    sha256: str
    length: int
    headers: dict[str, str]
    statuses: deque[str]
    errors: list[Any]
    began: float
    """When D365 began to read it. This and the other times are `time.time()`."""
    taken: float
    """When D365 had read all of it."""
    ended: float = 0.0
    """When a request first got its final status; 0 before."""
    execution_id: str = field(default_factory=lambda: f"DMF-{uuid4().hex[:12].upper()}")
    status: str = "Enqueued"
    polls: int = 0
    imported: int | None = None
    """How many of its `RECORDS` got into their tables. None: all, or if there are `errors`, none."""


@dataclass
class Fault:
    """Something that goes wrong with the next `times` requests of an operation (-1: with all).

    `do` is one of:
    - `answer`: give `status`, `headers` and `body` instead of serving the request
    - `answer-after`: serve it, then give them instead of the real answer
    - `reset`: reset the connection before the body is read
    - `reset-during`: reset it after `bytes` of the body that is sent or downloaded
    - `reset-after`: serve it, then reset the connection, so that the answer is lost
    - `delay`: wait `seconds`, then serve it
    - `hang`: give no answer for `seconds`, then reset the connection
    - `interim`: serve it, but send an interim answer with `status` (102, 103) first
    - `drip`: serve it, but send the answer's body `bytes` at a time, with `seconds` between them
    and of a download:
    - `truncate`: end it after `bytes`, though the announced length is that of all
    - `truncate-silently`: end it after `bytes`, with no length announced
    - `corrupt`: change the byte at `bytes`, to another value each time
    - `chunked`: announce no length
    - `gzip`: compress it
    - `longer`: announce one byte more than there is, and close the connection
    """

    operation: str
    do: str
    times: int = 1
    skip: int = 0
    """How many requests it lets pass first."""
    activity_id: str | None = None
    path: str = ""
    """Only requests with this in their path or query."""
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    bytes: int = 0
    seconds: float = 0.0


@dataclass
class Recorded:
    """A request that D365 got."""

    operation: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names are in the case in which they came; the header with the token is left out."""
    authorized: bool
    status: int = 0
    """Of the answer; 0 if there was none."""
    length: int = 0
