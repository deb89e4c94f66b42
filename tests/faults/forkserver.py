"""Hosts and workers of the crash tests, forked from a process that has loaded all they need.

To load it is most of what a crash costs: each takes two hosts with some workers each. So these workers find
the app's modules loaded when they are told to load the app; `tests/local` and `tests/e2e` start theirs as
Azure does.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pkgutil import walk_packages
from typing import BinaryIO, Final

import functions
import shared
from local.host.command import main as host_main
from local.host_process import ROOT
from local.worker import main as worker_main
from tests.faults import fault_proxy

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "tests.faults.forkserver",
        "azure_functions_runtime",
        "azure.identity",
        *(
            module.name
            for package in (functions, shared)
            for module in walk_packages(package.__path__, f"{package.__name__}.")
        ),
    ]
)


class Forked:
    """A process, with what is used of `subprocess.Popen`."""

    def __init__(
        self, program: Callable[[], int | None], environment: Mapping[str, str], *, leads: bool
    ) -> None:
        """Start it. One that leads a process group has its log in `stderr`, the others write to ours."""
        self._leads = leads
        # Ends of pipes, which can be given to a process that is forked elsewhere.
        (stdin, ours), (output, stdout), (log, stderr) = (Pipe(duplex=False) for _ in range(3))
        streams = (stdin, stdout, stderr if leads else Connection(os.dup(2), readable=False))
        self._process = _CONTEXT.Process(target=_run, args=(program, streams, dict(environment)))
        self._process.start()
        assert self._process.pid
        self.pid: int = self._process.pid
        self.stdin: BinaryIO = os.fdopen(os.dup(ours.fileno()), "wb")
        self.stdout: BinaryIO = os.fdopen(os.dup(output.fileno()), "rb")
        self.stderr: BinaryIO | None = os.fdopen(os.dup(log.fileno()), "rb") if leads else None
        for each in (stdin, ours, output, stdout, log, stderr, streams[2]):
            each.close()

    def poll(self) -> int | None:
        """How it ended, or None."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if self._process.exitcode is None and timeout is not None:
            raise subprocess.TimeoutExpired("a forked process", timeout)
        return self._process.exitcode

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it, with the group that it leads."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-self.pid if self._leads else self.pid, signal.SIGKILL)


def start_host(arguments: Sequence[str], environment: Mapping[str, str]) -> Forked:
    """A trigger host, whose workers do what `BRIDGE_FAULTS` says."""
    return Forked(partial(_host, tuple(arguments)), environment, leads=True)


def _start_worker(_: str, environment: Mapping[str, str]) -> Forked:
    return Forked(partial(_worker, os.getpid()), environment, leads=False)


def _host(arguments: Sequence[str]) -> int:
    os.setpgid(0, 0)
    return host_main(arguments, _start_worker)


def _worker(host: int) -> None:
    os.setpgid(0, host)
    fault_proxy.install()
    worker_main()


def _run(
    program: Callable[[], int | None],
    streams: Sequence["Connection[object, object]"],
    environment: Mapping[str, str],
) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    code = program()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
