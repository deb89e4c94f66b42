"""Shows a person what the app does: a line, with the time, for each event in its log that matters."""

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from local.protocol import UNSEEN
from shared.storage.names import unstamped

# The form of the app's log lines (shared/observability/events.py), after the text that the host puts before.
_EVENT = re.compile(r"(?:^|\s)([a-z0-9]+\.[a-z]+) (\{.*\})\s*$")
_ERROR = re.compile(r"\b(ERROR|CRITICAL|Traceback)\b")


def size(count: float) -> str:
    """A number of bytes, for people: `512 B`, `3.4 KiB`, `200.0 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


type Fields = Mapping[str, Any]

_SENTENCES: Mapping[str, Callable[[Fields], str]] = {
    "package.stored": lambda f: (
        f"package stored         {f['blob']} ({size(f['bytes'])} in {f['seconds']:.1f} s)"
    ),
    "package.acknowledged": lambda f: f"package acknowledged   {f['blob']}",
    "package.failed": lambda f: f"package failed         {f['correlationId']}: {f['error']}",
    "package.empty": lambda f: (
        f"package empty          {f['correlationId']}: the export made no file"
    ),
    "package.unreadable": lambda f: f"package unreadable     {f['blob']}: {f['error']}",
    "unzip.failed": lambda f: f"unzip failed           {f['blob']}: {f['error']}",
    "execution.began": lambda f: f"data project started   {f['job']}",
    "execution.stored": lambda f: f"data project exported  {f['blob']}",
    "execution.partial": lambda f: f"data project partly    {f['blob']}: {f['error']}",
    "execution.failed": lambda f: f"data project failed    {f['job']}: {f['error']}",
    "export.unfinished": lambda f: f"export unfinished      {f['job']}: continues at once",
    "export.failed": lambda f: f"export failed          {f['job']}: {f['error']}",
    "file.claimed": lambda f: f"file taken             {f['source']} ({size(f['bytes'])})",
    "file.sent": lambda f: f"file sent to D365      {unstamped(f['file'])}",
    "file.waiting": lambda f: f"file waits             {unstamped(f['file'])}: {f['reason']}",
    "file.succeeded": lambda f: f"file succeeded         {unstamped(f['file'])}",
    "file.failed": lambda f: f"file failed            {unstamped(f['file'])}: {f['reason']}",
    "file.held": lambda f: f"file held              {unstamped(f['file'])}: {f['error']}",
    "poison.found": lambda f: f"message given up       {f['queue']}: {f['message']}",
    "d365.retry": lambda f: f"D365 request retried   {f['error']}",
    "d365.denied": lambda f: f"D365 refused access    {f['error']}",
}


_LONGEST: Final = 120
"""The most characters that are shown of an event in `_ONCE`; the host's log has the rest."""

_ONCE: Final = ("export.failed", "file.waiting", "d365.retry", "d365.denied")
"""While a fault lasts, each try logs these events again: the same text is shown once."""


class Progress:
    """Prints lines with the time since it was made; safe on any terminal and in a file."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown: set[str] = set()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        line = f"{self.seconds:6.1f} s  {text}"
        encoding = sys.stdout.encoding or "utf-8"
        # If a console can't show a character, it shows its code.
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)

    def retell(self, line: str) -> None:
        """Prints what a line of the host's log says, if it matters."""
        if line.startswith(UNSEEN):
            return
        event = _EVENT.search(line)
        if event is None:
            if _ERROR.search(line):
                self.say(f"host                   {line.strip()}")
            return
        sentence = _SENTENCES.get(event[1])
        if sentence is None:
            return
        try:
            text = sentence(json.loads(event[2]))
            if event[1] in _ONCE:
                if text in self._shown:
                    return
                self._shown.add(text)
                text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
            self.say(text)
        except (ValueError, KeyError, TypeError):
            self.say(line.strip())
