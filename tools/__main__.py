"""The command `d365-blob-bridge`. From the source, run `python -m tools COMMAND`, or `dev.py COMMAND`."""

import importlib
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from shared import __version__

COMMANDS: Final[Mapping[str, str]] = {
    "operate": "list and repair files, check a deployment",
    "jobs": "check a jobs file",
    "convert": "convert the Recurring Integrations Scheduler's jobs to a jobs file",
    "register": "let an application into D365",
}
"""Each command is a module of this package with a `main`."""


def usage() -> str:
    """The help: a line for each command."""
    commands = "".join(f"  {name:<10}{text}\n" for name, text in COMMANDS.items())
    return f"d365-blob-bridge {__version__}\n\n{commands}\nd365-blob-bridge COMMAND --help says more.\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code, or 2 if there is no such command."""
    for stream in (sys.stdout, sys.stderr):
        # On Windows a pipe has a code page, which lacks most alphabets.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    words = list(sys.argv[1:] if arguments is None else arguments)
    match words:
        case [] | ["-h" | "--help" | "help"]:
            print(usage(), end="")
            return 0
        case ["--version"]:
            print(__version__)
            return 0
        case [command, *rest] if command in COMMANDS:
            # Imported only now: convert and jobs start without the Azure SDKs.
            code: int = importlib.import_module(f"tools.{command}").main(rest)
            return code
        case _:
            print(f"There is no command {words[0]!r}.\n\n{usage()}", end="", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
