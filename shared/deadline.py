"""The deadline of an invocation (A6): each piece of code that waits asks here how long it may wait.

`bridge.run` sets it from the function's time-out; a flow narrows it where something must be left for what
comes after. Connections (`connections`) keep it by themselves: each connect, each write and each read has at
most what is left. A thread of a pool has the deadline of who gave it its work, if the pool is a `threads.Pool`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import Final

from shared import clock

_END: Final[ContextVar[float]] = ContextVar("deadline", default=inf)
"""As `clock.monotonic()` says it. Outside of an invocation nothing ends."""


class Expired(TimeoutError):
    """Nothing is left of the time. An `OSError`, so that HTTP libraries treat it as their own time-outs."""

    def __init__(self) -> None:
        super().__init__("the invocation's time is up")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let the deadline be in so many seconds, or as it is where that is sooner."""
    before = _END.set(min(_END.get(), clock.monotonic() + seconds))
    try:
        yield
    finally:
        _END.reset(before)


def left() -> float:
    """Seconds to the deadline, 0 once it has passed; infinite outside of an invocation."""
    return max(0.0, _END.get() - clock.monotonic())


def bounded(seconds: float) -> float:
    """How long to wait for something that may take so many seconds: so long, or what is left.

    Raises `Expired` where nothing is left.
    """
    seconds = min(seconds, left())
    if seconds <= 0:
        raise Expired
    return seconds
