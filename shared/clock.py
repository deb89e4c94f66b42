"""The one clock and the one sleep, so that tests can replace both."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a clock that never goes back."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def text(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC, to the second."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def parse(moment: str) -> datetime:
    """The moment that `text` wrote; the earliest of all where there is none, or something else."""
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        parsed = datetime.min.replace(tzinfo=UTC)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
