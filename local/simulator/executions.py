"""Executions of data projects, and what can be set of the API that starts them."""

import hashlib
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from local.simulator.records import Received

_RUNNING = ("Unknown", "NotRun", "Executing")


@dataclass
class Execution:
    """One execution of a data project, under the id that the client chose."""

    execution_id: str
    project: str
    statuses: deque[str]
    """Those that it has one after the other, a status question each; the last one stays."""
    status: str = "NotRun"
    visible_at: float = 0.0
    """Until then its status is "not found", as `time.time()` says it."""
    details_at: float = 0.0
    """The same of the entity of executions' details."""
    received: Received | None = None
    """Of an import, what was taken."""
    errors: list[str] = field(default_factory=list)
    """Of an export."""
    empty_urls: int = 0
    """So often the address of its package is asked for in vain."""
    fetched: int = 0
    """So often it was given."""
    polls: int = 0
    blob: str = ""
    """Of an export, where the package lies in D365's storage."""
    content: bytes | Path = b""
    """The package: of an import the one that was taken, of an export the one that it makes."""

    @property
    def sha256(self) -> str:
        """Of the package."""
        if isinstance(self.content, Path):
            with self.content.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(self.content).hexdigest()

    @property
    def is_running(self) -> bool:
        return self.status in _RUNNING and not (
            len(self.statuses) == 1 and self.statuses[0] not in _RUNNING
        )


@dataclass
class PackageSettings:
    """How the environment behaves where it may behave in one way or the other."""

    statuses: tuple[str, ...] = ("NotRun", "Executing", "Succeeded")
    """Of an execution; ("Executing",) stays so for ever."""
    companies: frozenset[str] = frozenset(("USMF", "DEMF", "DAT"))
    url_lifetime: timedelta = timedelta(minutes=30)
    old_signatures: bool = False
    """Signed URLs of the form that D365's real ones had."""
    url_form: str = "{url}"
    """What D365 gives for a URL."""
    import_seconds: float = 0.0
    """So long ImportFromPackage takes before it answers. A client that leaves does not end it."""
    hidden_seconds: float = 0.0
    """So long after its import an execution's status is "not found"."""
    hidden_details_seconds: float = 0.0
    """The same of the details, the second witness."""
    broken_errors: bool = False
    """Whether quotes and line breaks in a list of errors are not escaped, so that it is no JSON."""
    vanishing: int = 0
    """So many executions of each data project are accepted and leave no trace."""
    blocked_projects: set[str] = field(default_factory=set)
    """Those with a dead execution, which keeps the next one from running until a person deletes it."""
    exports: dict[str, bytes | Path] = field(default_factory=dict)
    """The package of each data project; where there is none, each execution has one of its own."""
    export_blobs: dict[str, str] = field(default_factory=dict)
    """Of data projects whose package lies in D365's storage before it is exported, the blob there."""
    export_errors: list[str] = field(default_factory=lambda: ["Vendor 1 has no name."])
    """Of an export that fails, or succeeds in part."""
    empty_urls: int = 1
    """So often the address of an export's package is empty."""
    used_id: Literal["refused", "taken"] = "refused"
    """What an execution id does that was used before: it is refused, or makes a second import."""
