"""The worker processes: one for each group of functions that Flex Consumption scales by itself."""

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final
from uuid import uuid4

from local.protocol import Call, Ended, Failed, Function, Process, Start, Started, Typed
from local.worker import AppFailed

log = logging.getLogger("host")

ROOT: Final = Path(__file__).resolve().parents[2]
StartProcess = Callable[[str, Mapping[str, str]], Process]
"""Starts a worker process for a group of functions with an environment."""


class InvocationFailed(RuntimeError):
    """A function raised, or its worker process ended; the text is the worker's own, with its traceback."""


def group(function: Function) -> str:
    """The group of functions that shares a process with this one.

    All blob triggers are a group, and all HTTP triggers; each other function is a group of its own (Microsoft
    Learn, "Azure Functions Flex Consumption plan hosting", section Per-function scaling).
    """
    shared = {"blobtrigger": "blob", "httptrigger": "http"}
    return shared.get(function.kind, f"function:{function.name}")


def start_process(name: str, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a worker process. Its command line has the name only to show it in lists of processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "local.worker", name],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


class Worker:
    """A worker process with the app loaded in it."""

    def __init__(
        self,
        name: str,
        app: Path,
        base_environment: Mapping[str, str],
        start: StartProcess,
        *,
        placeholder: bool,
    ) -> None:
        """Start it. `base_environment` is without the app settings. Raises `AppFailed`."""
        self._calls: dict[str, Future[Ended]] = {}
        self._lock = threading.Lock()
        settings = dict(os.environ)
        environment = base_environment if placeholder else settings
        self._process = start(name, {**environment, "PYTHONPATH": str(ROOT)})
        self.pid = self._process.pid
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._replies = self._process.stdin, self._process.stdout
        try:
            self._send(Start(app, settings if placeholder else None))
            reply = pickle.load(self._replies)
        except (EOFError, OSError):
            raise AppFailed("the worker process ended while it loaded the app") from None
        if isinstance(reply, Failed):
            self._process.wait()
            raise AppFailed(reply.text)
        assert isinstance(reply, Started)
        self.functions = {each.name: each for each in reply.functions}
        threading.Thread(target=self._listen, name=name, daemon=True).start()

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def call(self, function: Function, data: Typed, metadata: Mapping[str, Typed]) -> Future[Ended]:
        """Call a function. The future has the result, or raises `InvocationFailed`."""
        call = Call(str(uuid4()), function, data, metadata)
        future = self._calls[call.id] = Future[Ended]()
        try:
            self._send(call)
        except (OSError, ValueError):  # the pipe is broken, or closed
            self._fail_all()
        return future

    def end(self) -> None:
        """Kill the process, with all calls in it."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # only now: a thread may have been writing to it
            self._requests.close()

    def stop(self) -> None:
        """Close the process's input, at which it ends. Kill it if it has not ended after ten seconds."""
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.end()

    def _send(self, request: object) -> None:
        with self._lock:
            pickle.dump(request, self._requests)
            self._requests.flush()

    def _listen(self) -> None:
        while True:
            try:
                reply = pickle.load(self._replies)
            except (EOFError, OSError, pickle.UnpicklingError):
                break
            future = self._calls.pop(reply.id)
            if reply.error:
                future.set_exception(InvocationFailed(reply.error))
            else:
                future.set_result(reply)
        self._replies.close()
        self._fail_all()

    def _fail_all(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, {}
        for future in calls.values():
            future.set_exception(InvocationFailed("the worker process ended"))


class Workers:
    """The worker processes of an app. Each is started at the first call of its group."""

    def __init__(
        self,
        app: Path,
        base_environment: Mapping[str, str],
        start: StartProcess,
        *,
        placeholder: bool,
    ) -> None:
        """Load the app in a first process, which then serves the first group called. Raises `AppFailed`."""
        self._app, self._base_environment, self._start_process = app, base_environment, start
        self._placeholder = placeholder
        self._running: dict[str, Worker] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._first: Worker | None = self._start("first")
        self.functions = self._first.functions
        self._lock = threading.Lock()

    def of(self, function: Function) -> Worker:
        """The process that serves a function. Raises `AppFailed` where it can't be started."""
        name = group(function)
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            worker = self._running.get(name)
            if worker is None or not worker.alive():
                with self._lock:
                    worker, self._first = self._first, None
                self._running[name] = worker = worker or self._start(name)
            return worker

    def pids(self) -> dict[str, int]:
        """The process ids of the running workers, by group."""
        return {name: each.pid for name, each in list(self._running.items()) if each.alive()}

    def stop(self) -> None:
        """Stop all processes."""
        for worker in (*self._running.values(), *([self._first] if self._first else [])):
            worker.stop()

    def _start(self, name: str) -> Worker:
        return Worker(
            name,
            self._app,
            self._base_environment,
            self._start_process,
            placeholder=self._placeholder,
        )
