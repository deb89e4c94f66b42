"""The running demos. Each keeps a note of itself in `.demo/`: `drop`, `d365` and `operate` find it there."""

import contextlib
import json
import os
import sys
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
    """When the process was created: a later process may have the same id, but not this time."""
    connection_string: str
    jobs: list[str]
    settings: str
    """The file with the app settings."""
    d365: str
    """The simulator's URL."""

    def is_alive(self) -> bool:
        try:
            return psutil.Process(self.pid).create_time() == self.created
        except psutil.NoSuchProcess:
            return False


@contextlib.contextmanager
def demo_note(connection_string: str, jobs: list[str], settings: Path, d365: str) -> Iterator[None]:
    """Keeps a note of the demo in this process while it runs."""
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
    """The demos that are alive. Removes the notes of those that have ended."""
    demos = []
    for note in sorted(_FOLDER.glob("*.json")):
        with contextlib.suppress(ValueError, TypeError, OSError):
            demo = RunningDemo(**json.loads(note.read_text(encoding="utf-8")))
            if demo.is_alive():
                demos.append(demo)
            else:
                note.unlink(missing_ok=True)
    return demos


def choose_demo(pid: int | None) -> RunningDemo:
    """The running demo, or of several, the one with this process id. Ends the program if it is not clear."""
    demos = {demo.pid: demo for demo in running_demos()}
    if not demos:
        sys.exit("No demo is running. Start one with: python3 dev.py demo --keep")
    if pid is None and len(demos) == 1:
        return next(iter(demos.values()))
    if pid not in demos:
        pids = ", ".join(map(str, demos))
        sys.exit(f"Say with --demo which demo you mean, one of: {pids}")
    return demos[pid]
