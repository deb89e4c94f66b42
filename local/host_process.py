"""Runs the trigger host in a process of its own, for the demo, tests and benchmarks."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
import requests

from local.protocol import UNSEEN, Process

ROOT = Path(__file__).resolve().parent.parent


class HostFailed(RuntimeError):
    """The host ended before it was ready; the text is its log."""


class RunningHost:
    """A trigger host in another process."""

    def __init__(self, process: Process, log: list[str], ready: dict[str, Any]) -> None:
        self._process, self._log = process, log
        self.url = str(ready["url"])
        self.pid = int(ready["pid"])
        self.key = str(ready["keys"]["function"])
        """Opens the app's HTTP functions (`?code=`)."""
        self.webhook_key = str(ready["keys"]["blobs_extension"])
        self._admin = {"x-functions-key": str(ready["keys"]["master"])}

    def output(self) -> str:
        """Its log so far, without the lines that Azure would not have."""
        return "".join(line for line in self._log if not line.startswith(UNSEEN))

    def everything(self) -> list[str]:
        """The lines of its log so far, including those that Azure would not have."""
        return list(self._log)

    def invoke(self, name: str, text: str = "", *, wait: bool = True) -> dict[str, Any]:
        """Run a function now. With `wait`, the result has `status`, and after a failure `error`."""
        response = requests.post(
            f"{self.url}/admin/functions/{name}",
            params={"wait": "true"} if wait else {},
            json={"input": text},
            headers=self._admin,
            timeout=600,
        )
        response.raise_for_status()
        return dict(response.json()) if wait else {}

    def deliver_events(self, deliver: bool) -> None:
        """Deliver the events of new blobs from now on, or lose them."""
        url = f"{self.url}/admin/host/events"
        response = requests.post(url, json={"deliver": deliver}, headers=self._admin, timeout=10)
        response.raise_for_status()

    def status(self) -> dict[str, Any]:
        """`functions`, `invocations`, and `workers`: the process ids by group."""
        url = f"{self.url}/admin/host/status"
        return dict(requests.get(url, headers=self._admin, timeout=10).json())

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it and its workers as a crash of the machine does."""
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = psutil.Process(self.pid).children(recursive=True)
            self._process.kill()
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in good order."""
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


def start_process(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start the trigger host with these arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "local.host", *arguments],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@contextlib.contextmanager
def running_host(
    settings: Mapping[str, str],
    *options: str,
    app: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    start: Callable[[Sequence[str], Mapping[str, str]], Process] = start_process,
    hear: Callable[[str], object] = lambda _: None,
) -> Iterator[RunningHost]:
    """Start the app in a trigger host with these app settings and command-line options. `hear` gets each line
    of its log, on another thread.

    Raises `HostFailed`.
    """
    with tempfile.TemporaryDirectory(prefix="bridge-host-") as folder:
        file = Path(folder) / "local.settings.json"
        file.write_text(json.dumps({"IsEncrypted": False, "Values": dict(settings)}))
        process = start(
            [*options, "--settings", str(file), "--app", str(app), "--with-parent"],
            {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
        log: list[str] = []
        assert process.stdin
        assert process.stdout
        assert process.stderr
        lines = io.TextIOWrapper(process.stderr, encoding="utf-8", errors="replace")

        def read() -> None:
            for line in lines:
                log.append(line)
                hear(line)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        with contextlib.ExitStack() as stack:
            for stream in (process.stdin, process.stdout, lines):
                stack.callback(_close, stream)
            stack.callback(reader.join, 5)
            first_line = process.stdout.readline()
            try:
                host = RunningHost(process, log, json.loads(first_line))
            except ValueError as error:
                process.kill()
                process.wait()
                reader.join(5)
                first = f"its first line is {first_line!r}\n" if first_line else ""
                raise HostFailed(f"{first}{''.join(log)}") from error
            stack.callback(host.stop)
            yield host


def _close(stream: IO[Any]) -> None:
    with contextlib.suppress(OSError):  # what was not sent yet has nobody to go to
        stream.close()
