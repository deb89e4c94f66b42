"""Threads that know for whom they work."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import override


class Pool(ThreadPoolExecutor):
    """A pool whose work runs in the context of who submits it: with its deadline, span and ids for the log."""

    @override
    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(partial(copy_context().run, fn, *args, **kwargs))
