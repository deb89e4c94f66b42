"""Executions of data projects, and what can be set of the API that starts them."""

from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
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
    polls: int = 0
    content: bytes = b""
    """Of an import, the package."""

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
    """So many imports are accepted and leave no trace."""
    blocked_projects: set[str] = field(default_factory=set)
    """Those with a dead execution, which keeps the next one from running until a person deletes it."""
    used_id: Literal["refused", "taken"] = "refused"
    """What an execution id does that was used before: it is refused, or makes a second import."""
