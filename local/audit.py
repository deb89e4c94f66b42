"""Was everything moved, once, unchanged, to the right place? Compares storage with D365's books.

Says what it finds wrong in sentences; an empty list means that all is as it should be. Every blob's
bytes are read again and hashed, in pieces.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote

from azure.storage.blob import BlobServiceClient

from shared.storage.account import (
    CONTAINERS,
    DELIVERED,
    EXPORTS,
    FAILED,
    IMPORTS,
    PROCESSING,
    STATE,
    SUCCEEDED,
)

REPORT = ".error.json"


@dataclass(frozen=True, slots=True)
class Package:
    """A package that D365 offered or made: what must stand in `exports`."""

    job: str
    correlation_id: str
    sha256: str
    acknowledged: int | None
    """How often; None for one that a data project made, which nobody acknowledges."""
    members: Mapping[str, str] = field(default_factory=dict)
    """Where the job unzips: the entity files' names with their SHA-256."""

    @property
    def blob(self) -> str:
        return f"{self.job}/{self.correlation_id}.zip"


@dataclass(frozen=True, slots=True)
class Drop:
    """A file that was dropped into `imports`: what D365 must get, and where the file must end."""

    path: str
    sha256: str
    entity: str | None
    company: str | None
    outcome: Literal["succeeded", "failed"]
    sent: bool = True
    """False for a file that must never reach D365."""
    complaint: str = ""
    """Words that the report of a failed file must hold."""


@dataclass(frozen=True, slots=True)
class Received:
    """An import that D365 took."""

    sha256: str
    entity: str | None
    company: str | None


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as it stands, hashed."""

    container: str
    name: str
    size: int
    sha256: str
    state: str
    source: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What an audit saw, and what it found wrong."""

    blobs: Sequence[Blob]
    problems: Sequence[str]
    exported: int
    acknowledged: int
    projects: int
    """Packages of data projects that were exported."""
    succeeded: int
    failed: int
    compared: int
    equal: int
    lost: int
    twice: int


AUDITED: Final = tuple(name for name in CONTAINERS if name not in (DELIVERED, STATE))
"""The containers that hold files; notes on what was delivered, and our own state, are none."""


def read_blobs(connection_string: str) -> list[Blob]:
    """Every blob of every container, each read to its end and hashed in pieces."""
    blobs = []
    with BlobServiceClient.from_connection_string(connection_string) as service:
        for container in AUDITED:
            client = service.get_container_client(container)
            for item in client.list_blobs(include=["metadata"]):
                digest = hashlib.sha256()
                for chunk in client.download_blob(item.name).chunks():
                    digest.update(chunk)
                metadata = {k.lower(): unquote(v) for k, v in (item.metadata or {}).items()}
                blobs.append(
                    Blob(
                        container,
                        item.name,
                        item.size,
                        digest.hexdigest(),
                        metadata.get("state", ""),
                        metadata.get("source", ""),
                    )
                )
    return blobs


class _Books:
    """Collects problems and counts while the parts are compared."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.compared = 0
        self.equal = 0
        self.lost = 0
        self.twice = 0

    def compare(self, what: str, is_hash: str, should_be: str) -> None:
        self.compared += 1
        if is_hash == should_be:
            self.equal += 1
        else:
            self.problems.append(f"{what}: SHA-256 is {is_hash[:12]}…, not {should_be[:12]}…")

    def count(self, what: str, times: int) -> bool:
        """Notes what is missing or repeated; True if there is just one."""
        if times == 0:
            self.lost += 1
            self.problems.append(f"{what}: missing")
        elif times > 1:
            self.twice += 1
            self.problems.append(f"{what}: there {times} times")
        return times == 1


def audit(
    connection_string: str,
    packages: Sequence[Package],
    drops: Sequence[Drop],
    received: Sequence[Received],
) -> Findings:
    """Compares what stands in storage with what D365 sent and received."""
    blobs = read_blobs(connection_string)
    books = _Books()
    _check_exports(books, packages, [b for b in blobs if b.container == EXPORTS])
    _check_imports(books, drops, [b for b in blobs if b.container != EXPORTS])
    _check_received(books, drops, received)
    _check_reports(books, connection_string, drops, blobs)
    ended = Counter(b.container for b in blobs if not b.name.endswith(REPORT))
    stored = {b.name for b in blobs if b.container == EXPORTS}
    return Findings(
        blobs=blobs,
        problems=books.problems,
        exported=sum(p.blob in stored for p in packages if p.acknowledged is not None),
        acknowledged=sum(bool(package.acknowledged) for package in packages),
        projects=sum(p.blob in stored for p in packages if p.acknowledged is None),
        succeeded=ended[SUCCEEDED],
        failed=ended[FAILED],
        compared=books.compared,
        equal=books.equal,
        lost=books.lost,
        twice=books.twice,
    )


def _check_exports(books: _Books, packages: Iterable[Package], blobs: Sequence[Blob]) -> None:
    unexplained = {blob.name: blob for blob in blobs}
    for package in packages:
        what = f"package {package.correlation_id} of {package.job}"
        hashes = {package.blob: package.sha256}
        folder = package.blob.removesuffix(".zip")
        hashes |= {f"{folder}/{name}": hash_ for name, hash_ in package.members.items()}
        for name, hash_ in hashes.items():
            blob = unexplained.pop(name, None)
            if books.count(f"{what}: exports/{name}", 0 if blob is None else 1) and blob:
                books.compare(f"exports/{name}", blob.sha256, hash_)
        if package.acknowledged not in (None, 1):
            books.problems.append(f"{what}: acknowledged {package.acknowledged} times")
    for name in unexplained:
        books.twice += 1
        books.problems.append(f"exports/{name}: no package of that name was offered")


def _check_imports(books: _Books, drops: Iterable[Drop], blobs: Sequence[Blob]) -> None:
    unexplained = {(b.container, b.name): b for b in blobs if not b.name.endswith(REPORT)}
    for drop in drops:
        mine = [b for b in unexplained.values() if b.source == drop.path]
        for blob in mine:
            del unexplained[blob.container, blob.name]
            books.compare(f"{blob.container}/{blob.name}", blob.sha256, drop.sha256)
            place = SUCCEEDED if drop.outcome == "succeeded" else FAILED
            if blob.container != place or blob.state != drop.outcome:
                books.problems.append(
                    f"{drop.path}: is in {blob.container} as {blob.state or 'dropped'}, "
                    f"and should be in {place} as {drop.outcome}"
                )
        books.count(f"file {drop.path}", len(mine))
    for container, name in unexplained:
        why = {
            IMPORTS: "still where it was dropped",
            PROCESSING: "still in processing",
        }.get(container, "from no file that was dropped")
        books.problems.append(f"{container}/{name}: {why}")


def _check_received(books: _Books, drops: Iterable[Drop], received: Sequence[Received]) -> None:
    unexplained = list(received)
    for drop in drops:
        mine = [r for r in unexplained if r.sha256 == drop.sha256]
        unexplained = [r for r in unexplained if r.sha256 != drop.sha256]
        if not drop.sent:
            if mine:
                books.problems.append(f"{drop.path}: D365 got it, and should not have")
            continue
        if books.count(f"{drop.path} at D365", len(mine)):
            books.compare(f"{drop.path} at D365", mine[0].sha256, drop.sha256)
            got, expected = (mine[0].entity, mine[0].company), (drop.entity, drop.company)
            if got != expected:
                books.problems.append(f"{drop.path}: D365 got it as {got}, not as {expected}")
    for other in unexplained:
        books.problems.append(f"D365 got {other.sha256[:12]}…, which nobody dropped")


def _check_reports(
    books: _Books, connection_string: str, drops: Iterable[Drop], blobs: Sequence[Blob]
) -> None:
    """Beside each failed file, and only there, a report says what happened."""
    complaints = {drop.path: drop.complaint for drop in drops}
    reports = {b.name for b in blobs if b.container == FAILED and b.name.endswith(REPORT)}
    with BlobServiceClient.from_connection_string(connection_string) as service:
        for blob in blobs:
            if blob.container != FAILED or blob.name.endswith(REPORT):
                continue
            name = blob.name + REPORT
            if name not in reports:
                books.problems.append(f"{FAILED}/{blob.name}: has no {REPORT} beside it")
                continue
            reports.remove(name)
            text = service.get_blob_client(FAILED, name).download_blob().readall()
            words = json.dumps(json.loads(text), ensure_ascii=False)
            if complaints.get(blob.source, "") not in words:
                books.problems.append(f"{FAILED}/{name}: does not say {complaints[blob.source]!r}")
    for name in reports:
        books.problems.append(f"{FAILED}/{name}: stands beside no file")
