"""The errors of requests to D365, one class for each thing that an error can prove. The flows decide by class
alone.

    D365Error
    ├── NotAccepted        D365 has surely not done what we asked
    │   ├── Unavailable    it may do it later: not reached, busy, in trouble
    │   ├── Denied         401, 403, no token, not D365 that answers: the set-up is wrong, not the file
    │   └── Rejected       it never will: the request, the file or the job's settings are wrong
    └── Uncertain          nobody can know: the answer was lost, or says nothing

`docs/reliability.md` has the same table with the reason for each row.
"""

from shared.observability.events import printable, redact, shortened


class D365Error(Exception):
    """Something went wrong with a request to D365. The text is for a person: what, why, what to do."""

    retry_after: float | None = None
    """What the answer asked us to wait, in seconds."""
    answer_lost: bool = False
    """An earlier attempt at the same request got no answer: this one may tell what that one has done."""

    def __init__(self, operation: str, message: str, status: int | None = None) -> None:
        self.operation = operation
        self.status = status
        # A3: what D365 said may hold a signed URL, and this text goes into logs, reports and terminals.
        super().__init__(printable(redact(f"{operation}: {shortened(message)}")))


class NotAccepted(D365Error):
    """D365 has surely not done what we asked."""


class Unavailable(NotAccepted):
    """Not done, worth another try."""


class Denied(NotAccepted):
    """Not done, since D365 does not accept who we are."""


class Rejected(NotAccepted):
    """Not done, and never will be as it stands."""


class Uncertain(D365Error):
    """Nobody can know whether it was done."""
