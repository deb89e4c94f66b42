"""Thread pools that keep their caller's context (deadline, ids for the log), and limits for how many work at
once."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from threading import Semaphore
from typing import override


class Pool(ThreadPoolExecutor):
    """A pool whose work runs in the context of who submits it: with its deadline, span and ids for the log."""

    @override
    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(partial(copy_context().run, fn, *args, **kwargs))


class Slots:
    """Slots for so many threads at once. A thread that finds none free does not wait."""

    def __init__(self, count: int) -> None:
        self._free = Semaphore(count)
        self._stuck = False

    @contextmanager
    def slot(self, seconds: float) -> Iterator[bool]:
        """Whether there is a slot, waited for so long; but not at all once somebody has waited in vain and as
        long as nobody has left: then those who have one are stuck."""
        has_slot = self._free.acquire(timeout=0 if self._stuck else seconds)
        self._stuck = not has_slot
        try:
            yield has_slot
        finally:
            if has_slot:
                self._stuck = False
                self._free.release()
