"""Checks that every file was moved once, unchanged, to the right place: compares storage with D365's records.

Each problem is a sentence; without any, everything is right. Every blob is read again and hashed, in pieces.
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
    """A package that D365 offered or made: it must be in `exports`."""

    job: str
    correlation_id: str
    sha256: str
    acknowledged: int | None
    """How often it was acknowledged; None for a package of a data project, which has no message."""
    members: Mapping[str, str] = field(default_factory=dict)
    """If the job unzips: the names of the entity files, with their SHA-256."""

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
    """A text that the report of a failed file must contain."""


@dataclass(frozen=True, slots=True)
class Received:
    """A file that D365 received."""

    sha256: str
    entity: str | None
    company: str | None


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob, with the hash of its content."""

    container: str
    name: str
    size: int
    sha256: str
    state: str
    source: str


@dataclass(frozen=True, slots=True)
class Findings:
    """The blobs, the problems and the numbers of an audit."""

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
"""The containers with files. The others hold notes of deliveries, and the app's own state."""


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


class _Results:
    """Collects problems and counts while the parts are compared."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.compared = 0
        self.equal = 0
        self.lost = 0
        self.twice = 0

    def compare(self, what: str, actual: str, expected: str) -> None:
        self.compared += 1
        if actual == expected:
            self.equal += 1
        else:
            self.problems.append(f"{what}: SHA-256 is {actual[:12]}…, not {expected[:12]}…")

    def count(self, what: str, times: int) -> bool:
        """Notes a file that is missing or there more than once. Returns whether it is there once."""
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
    """Compares the files in storage with what D365 sent and received."""
    blobs = read_blobs(connection_string)
    results = _Results()
    _check_exports(results, packages, [b for b in blobs if b.container == EXPORTS])
    _check_imports(results, drops, [b for b in blobs if b.container != EXPORTS])
    _check_received(results, drops, received)
    _check_reports(results, connection_string, drops, blobs)
    ended = Counter(b.container for b in blobs if not b.name.endswith(REPORT))
    stored = {b.name for b in blobs if b.container == EXPORTS}
    return Findings(
        blobs=blobs,
        problems=results.problems,
        exported=sum(p.blob in stored for p in packages if p.acknowledged is not None),
        acknowledged=sum(bool(package.acknowledged) for package in packages),
        projects=sum(p.blob in stored for p in packages if p.acknowledged is None),
        succeeded=ended[SUCCEEDED],
        failed=ended[FAILED],
        compared=results.compared,
        equal=results.equal,
        lost=results.lost,
        twice=results.twice,
    )


def _check_exports(results: _Results, packages: Iterable[Package], blobs: Sequence[Blob]) -> None:
    unexplained = {blob.name: blob for blob in blobs}
    for package in packages:
        what = f"package {package.correlation_id} of {package.job}"
        hashes = {package.blob: package.sha256}
        folder = package.blob.removesuffix(".zip")
        hashes |= {f"{folder}/{name}": hash_ for name, hash_ in package.members.items()}
        for name, hash_ in hashes.items():
            blob = unexplained.pop(name, None)
            if results.count(f"{what}: exports/{name}", 0 if blob is None else 1) and blob:
                results.compare(f"exports/{name}", blob.sha256, hash_)
        if package.acknowledged not in (None, 1):
            results.problems.append(f"{what}: acknowledged {package.acknowledged} times")
    for name in unexplained:
        results.twice += 1
        results.problems.append(f"exports/{name}: no package of that name was offered")


def _check_imports(results: _Results, drops: Iterable[Drop], blobs: Sequence[Blob]) -> None:
    unexplained = {(b.container, b.name): b for b in blobs if not b.name.endswith(REPORT)}
    for drop in drops:
        copies = [b for b in unexplained.values() if b.source == drop.path]
        for blob in copies:
            del unexplained[blob.container, blob.name]
            results.compare(f"{blob.container}/{blob.name}", blob.sha256, drop.sha256)
            container = SUCCEEDED if drop.outcome == "succeeded" else FAILED
            if blob.container != container or blob.state != drop.outcome:
                results.problems.append(
                    f"{drop.path}: is in {blob.container} as {blob.state or 'dropped'}, "
                    f"and should be in {container} as {drop.outcome}"
                )
        results.count(f"file {drop.path}", len(copies))
    for container, name in unexplained:
        why = {
            IMPORTS: "still where it was dropped",
            PROCESSING: "still in processing",
        }.get(container, "not from a file that was dropped")
        results.problems.append(f"{container}/{name}: {why}")


def _check_received(results: _Results, drops: Iterable[Drop], received: Sequence[Received]) -> None:
    unexplained = list(received)
    for drop in drops:
        copies = [r for r in unexplained if r.sha256 == drop.sha256]
        unexplained = [r for r in unexplained if r.sha256 != drop.sha256]
        if not drop.sent:
            if copies:
                results.problems.append(f"{drop.path}: D365 got it, but should not have")
            continue
        if results.count(f"{drop.path} at D365", len(copies)):
            results.compare(f"{drop.path} at D365", copies[0].sha256, drop.sha256)
            got, expected = (copies[0].entity, copies[0].company), (drop.entity, drop.company)
            if got != expected:
                results.problems.append(f"{drop.path}: D365 got it as {got}, not as {expected}")
    for file in unexplained:
        results.problems.append(f"D365 got {file.sha256[:12]}…, which nobody dropped")


def _check_reports(
    results: _Results, connection_string: str, drops: Iterable[Drop], blobs: Sequence[Blob]
) -> None:
    """Each failed file must have a report with its complaint beside it; no other report may exist."""
    complaints = {drop.path: drop.complaint for drop in drops}
    reports = {b.name for b in blobs if b.container == FAILED and b.name.endswith(REPORT)}
    with BlobServiceClient.from_connection_string(connection_string) as service:
        for blob in blobs:
            if blob.container != FAILED or blob.name.endswith(REPORT):
                continue
            name = blob.name + REPORT
            if name not in reports:
                results.problems.append(f"{FAILED}/{blob.name}: has no {REPORT} beside it")
                continue
            reports.remove(name)
            text = service.get_blob_client(FAILED, name).download_blob().readall()
            words = json.dumps(json.loads(text), ensure_ascii=False)
            if complaints.get(blob.source, "") not in words:
                results.problems.append(
                    f"{FAILED}/{name}: does not say {complaints[blob.source]!r}"
                )
    for name in reports:
        results.problems.append(f"{FAILED}/{name}: stands beside no file")
