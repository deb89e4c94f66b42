"""Executions of data projects, and settings of the package API, which starts them."""

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
    """The next statuses. Each request for the status takes one; the last one stays."""
    status: str = "NotRun"
    visible_at: float = 0.0
    """Before this `time.time()`, a request for its status gets "not found"."""
    details_at: float = 0.0
    """Before this `time.time()`, DataManagementExecutionJobDetails does not list it."""
    received: Received | None = None
    """The imported file; None for an export."""
    errors: list[str] = field(default_factory=list)
    """An export's errors; those of an import are in `received`."""
    empty_urls: int = 0
    """How many more requests for the URL of an export's package get an empty text."""
    fetched: int = 0
    """How often that URL was given."""
    polls: int = 0
    blob: str = ""
    """The name of an export's package in D365's storage."""
    content: bytes | Path = b""
    """The package that was imported, or that the export made; empty if it is only in storage."""

    @property
    def sha256(self) -> str:
        """The hash of `content`."""
        if isinstance(self.content, Path):
            with self.content.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(self.content).hexdigest()

    @property
    def is_running(self) -> bool:
        """Whether it still runs. If only a final status is left, it has ended."""
        return self.status in _RUNNING and not (
            len(self.statuses) == 1 and self.statuses[0] not in _RUNNING
        )


@dataclass
class PackageSettings:
    """Settings of what the package API does, where that is not known or differs between environments."""

    statuses: tuple[str, ...] = ("NotRun", "Executing", "Succeeded")
    """The statuses of each new execution; one with ("Executing",) never ends."""
    companies: frozenset[str] = frozenset(("USMF", "DEMF", "DAT"))
    url_lifetime: timedelta = timedelta(minutes=30)
    old_signatures: bool = False
    """Whether signed URLs have the old form, which those of a real D365 had."""
    url_form: str = "{url}"
    """The text in which D365 gives a URL."""
    import_seconds: float = 0.0
    """How long ImportFromPackage takes. It continues when the client disconnects."""
    hidden_seconds: float = 0.0
    """How long the status of a new execution is "not found"."""
    hidden_details_seconds: float = 0.0
    """How long DataManagementExecutionJobDetails does not list a new execution."""
    broken_errors: bool = False
    """Whether GetExecutionErrors does not escape quotes and line breaks, so that its answer is not JSON."""
    vanishing: int = 0
    """How many executions of each data project are accepted but leave no trace."""
    blocked_projects: set[str] = field(default_factory=set)
    """Projects with a dead execution: until a person deletes it, no other one can run."""
    exports: dict[str, bytes | Path] = field(default_factory=dict)
    """The package that a data project exports. For other projects, each export makes a new package."""
    export_blobs: dict[str, str] = field(default_factory=dict)
    """For data projects whose package is in D365's storage before the export: the name of its blob."""
    export_errors: list[str] = field(default_factory=lambda: ["Vendor 1 has no name."])
    """The errors of an export that fails, or succeeds in part."""
    empty_urls: int = 1
    """How many requests for the URL of an export's package get an empty text first."""
    used_id: Literal["rejected", "taken"] = "rejected"
    """Whether an execution id that was used before is rejected, or starts a second execution."""
