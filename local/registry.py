"""Which demos are running: each notes itself in `.demo/`, so that `drop` finds it."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_FOLDER = Path(__file__).resolve().parent.parent / ".demo"


@dataclass(frozen=True, slots=True)
class RunningDemo:
    """A demo that runs on this machine, from this checkout."""

    pid: int
    created: float
    """The process's time of creation: with the id, it names the process for good."""
    connection_string: str
    jobs: list[str]
    settings: str
    """The app settings' file."""
    d365: str
    """The simulator's URL."""

    def lives(self) -> bool:
        try:
            return psutil.Process(self.pid).create_time() == self.created
        except psutil.NoSuchProcess:
            return False


@contextlib.contextmanager
def noted(connection_string: str, jobs: list[str], settings: Path, d365: str) -> Iterator[None]:
    """Notes the demo of this process while it runs."""
    pid = os.getpid()
    note = _FOLDER / f"{pid}.json"
    _FOLDER.mkdir(exist_ok=True)
    content = {
        "pid": pid,
        "created": psutil.Process(pid).create_time(),
        "connection_string": connection_string,
        "jobs": jobs,
        "settings": str(settings),
        "d365": d365,
    }
    note.write_text(json.dumps(content), encoding="utf-8")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def running_demos() -> list[RunningDemo]:
    """The demos that are alive; notes of dead ones are removed."""
    demos = []
    for note in sorted(_FOLDER.glob("*.json")):
        with contextlib.suppress(ValueError, TypeError, OSError):
            demo = RunningDemo(**json.loads(note.read_text(encoding="utf-8")))
            if demo.lives():
                demos.append(demo)
            else:
                note.unlink(missing_ok=True)
    return demos
