"""`d365-blob-bridge operate COMMAND`: list, check and resend files, as on the app's page.

It reads the app settings from a file (--settings, in the form of local.settings.json). It works on
storage and D365 directly, with your own sign-in (az login). So the command check says what you may
do; the page /api/operate/check says what the app may do.

A command that changes something shows the file first and asks. In a script, use --yes with the
--etag that list --json gave: then nothing is done to a file that has changed since.
"""

import argparse
import getpass
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError

from shared import clock
from shared.bridge import Bridge, bridge
from shared.config.jobs import InvalidJobs
from shared.config.settings import InvalidSettings
from shared.d365.errors import D365Error
from shared.observability.events import printable
from shared.operations import actions, health, journal, units, views
from shared.operations.actions import Action, NotDone
from shared.operations.views import Detail, Filter, Row, Runs
from shared.storage.account import EXPORTS, IMPORTS
from shared.storage.errors import explained


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "d365-blob-bridge operate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="docs/operations.md says what to do for each reason code and each alert.",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        default=Path("local.settings.json"),
        metavar="FILE",
        help="the app settings (default: local.settings.json)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    check = commands.add_parser(
        "check", help="check the whole deployment; exit code 1 if something is wrong"
    )
    check.add_argument(
        "--wait",
        type=float,
        default=60,
        metavar="SECONDS",
        help="wait for the probe's event (default: 60)",
    )
    check.add_argument("--json", action="store_true")

    recent = commands.add_parser("recent", help="what ended in the last day, the newest first")
    recent.add_argument("--job", default="")
    recent.add_argument("--json", action="store_true", help="one JSON object a line")

    listing = commands.add_parser("list", help="files by state, job, name and day")
    listing.add_argument("state", nargs="?", default="failed", choices=list(views.STATES))
    listing.add_argument("--job", default="")
    listing.add_argument(
        "--name", default="", help="a part of the path; with a slash in it, how the path begins"
    )
    listing.add_argument("--since", type=date.fromisoformat, metavar="YYYY-MM-DD", help="in UTC")
    listing.add_argument("--until", type=date.fromisoformat, metavar="YYYY-MM-DD", help="in UTC")
    listing.add_argument("--all", action="store_true", help="every page, not only the first")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")

    show = commands.add_parser("show", help="one file with its error report")
    show.add_argument("name", help="its path, or a part of the path that only this file has")
    show.add_argument("--state", default="failed", choices=list(views.STATES))

    runs = commands.add_parser("runs", help="the last exports of a data project's job")
    runs.add_argument("name", help="the job")
    runs.add_argument("--json", action="store_true")

    text = "export a job's data project now, in addition to its schedule"
    run = commands.add_parser("run", help=text, description=text)
    run.add_argument("name", help="the job")
    _add_change_options(run, "export", "do it only if the job is still in this state")

    for name, text in (
        ("resend", "resend a failed or held file, as it is"),
        ("receive", "mark a held file as received by D365; it is tracked to its end"),
        ("ask", "ask D365 again for the status of a file that never got a final one"),
        ("dismiss", "say that a failed or held file is dealt with; it no longer stops its job"),
        ("redeliver", "copy an exported package to a new name in the same folder"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("name", help="its path, or a part of the path that only this file has")
        _add_change_options(command, "file", "do it only if the file is this version")
        if name == "receive":
            command.add_argument("--message-id", required=True, help="as Manage messages shows it")
    return parser


def _add_change_options(command: argparse.ArgumentParser, changed: str, etag: str) -> None:
    """Add the options of every command that changes something."""
    command.add_argument("--why", required=True, help=f"why; it is kept with the {changed}")
    command.add_argument(
        "--by", default=getpass.getuser(), help="who does it (default: your user name)"
    )
    command.add_argument("--etag", help=etag)
    command.add_argument("--yes", action="store_true", help="do not ask first; needs --etag")


def _load(file: Path) -> None:
    """Put the app settings where the app reads them."""
    try:
        values = dict(json.loads(file.read_text(encoding="utf-8-sig"))["Values"])
    except OSError as error:
        sys.exit(
            f"{file} can't be read ({error.strerror}). Name the app settings with --settings FILE."
        )
    except (ValueError, KeyError, TypeError):
        sys.exit(f'{file} must be a JSON object with "Values", like local.settings.sample.json.')
    if "IDENTITY_ENDPOINT" not in {*values, *os.environ}:
        # In the settings of an app in Azure, these name its managed identity. Here you sign in instead.
        values.pop("DataStorage__clientId", None)
        if not any(values.get(f"AZURE_CLIENT_{way}") for way in ("SECRET", "CERTIFICATE_PATH")):
            values.pop("AZURE_CLIENT_ID", None)
    os.environ.update({name: str(value) for name, value in values.items()})


def _check(at: Bridge, arguments: argparse.Namespace) -> int:
    wrong = 0
    for line in health.check(at, arguments.wait):
        wrong += line.verdict == "wrong"
        if arguments.json:
            _print(json.dumps(asdict(line), ensure_ascii=False))
        else:
            _print(f"{line.verdict:<11}{line.what}\n           {line.text}")
    return 1 if wrong else 0


def _recent(at: Bridge, arguments: argparse.Namespace) -> int:
    for each in views.recent(at, arguments.job):
        if arguments.json:
            _print(json.dumps(asdict(each), default=_plain, ensure_ascii=False))
        else:
            name = each.name if each.container else f"{each.job}: package {each.name}"
            when = f"{clock.text(each.at)} {_duration(each.seconds):>8}"
            _print(f"{each.outcome:<10} {when}  {name}{_below(each.error)}")
    return 0


def _list(at: Bridge, arguments: argparse.Namespace) -> int:
    filters = (arguments.job, arguments.name, arguments.since, arguments.until)
    token, looked_at = "", 0
    while True:
        listing = views.listing(at, Filter(arguments.state, *filters, token))
        looked_at += listing.looked_at
        for row in listing.rows:
            _print(json.dumps(asdict(row), default=_plain) if arguments.json else _line(row))
        token = listing.next_token
        if not token:
            return 0
        if not arguments.all:
            text = f"{looked_at:,} files were read, and there are more. --all reads every file."
            print(text, file=sys.stderr)
            return 0


def _duration(seconds: float | None) -> str:
    return units.duration(seconds) if seconds is not None else ""


def _line(row: Row) -> str:
    text = f"{row.state:<10} {clock.text(row.changed)} {_duration(row.seconds):>8}  {row.name}"
    reason = f"{row.reason}: " if row.reason and row.reason != row.error else ""
    message = f"message {row.message_id}" if row.message_id else ""
    return text + _below(message) + _below(f"{reason}{row.error}" if row.error else "")


def _below(text: str) -> str:
    """A text as a line of its own under the line that it belongs to; nothing if it is empty."""
    return f"\n           {text}" if text else ""


def _find(at: Bridge, state: str, name: str) -> Row:
    """The one file with this name, or with this part of a name. Ends the program if it is not one file."""
    detail = views.detail(at, views.STATES[state], name)
    if detail:
        return detail.row
    rows: list[Row] = []
    token, searching = "", True
    while searching:
        page = views.listing(at, Filter(state, name=name, token=token))
        rows, token = rows + page.rows, page.next_token
        # Several files match, but one with exactly this path may be on a later page. Its name begins with the
        # stem and ".", so it comes before the stem and "/", the next character.
        passed = len(rows) > 1 and rows[-1].name > f"{views.stem(name)}/"
        searching = bool(token) and not passed
    exact = [row for row in rows if row.path == name]
    rows = exact or rows
    if len(rows) == 1:
        return rows[0]
    if not rows:
        sys.exit(f"No file in {views.STATES[state]} has this in its name: {name}")
    names = "\n  ".join(row.name for row in rows[:20])
    number = f"{len(rows)} files or more" if token else f"{len(rows)} files"
    sys.exit(printable(f"{number} have this in their names. Name one of them:\n  {names}"))


def _look_at(at: Bridge, state: str, name: str) -> Detail:
    """That file, with everything that is known about it."""
    row = _find(at, state, name)
    detail = views.detail(at, row.container, row.name)
    if detail is None:
        sys.exit(f"File not found (it may have moved): {row.name}")
    return detail


def _show(at: Bridge, arguments: argparse.Namespace) -> int:
    detail = _look_at(at, arguments.state, arguments.name)
    whole = {**asdict(detail.row), "record": asdict(detail.file.record), "report": detail.report}
    _print(json.dumps(whole, indent=2, ensure_ascii=False, default=_plain))
    return 0


def _runs_of(at: Bridge, name: str) -> Runs:
    runs = views.runs(at, name)
    if runs is None:
        sys.exit(f"There is no job {name} that exports a data project.")
    return runs


def _runs(at: Bridge, arguments: argparse.Namespace) -> int:
    runs = _runs_of(at, arguments.name)
    if arguments.json:
        _print(json.dumps(asdict(runs), default=_plain, ensure_ascii=False))
        return 0
    under_way = [runs.current] if runs.current.under_way else []
    for each in [*under_way, *runs.last]:
        outcome = each.outcome or each.state
        _print(f"{outcome:<10} {each.due}  {each.blob or each.executionid}{_below(each.error)}")
    return 0


def _run(at: Bridge, arguments: argparse.Namespace) -> int:
    if arguments.yes and not arguments.etag:
        sys.exit("--yes needs --etag: runs --json gives the ETag of the state that you mean.")
    runs = _runs_of(at, arguments.name)
    if not arguments.yes:
        last = runs.last[0] if runs.last else runs.current
        _print(f"{runs.job} exports {runs.project}; the last export ended {last.ended or 'never'}")
        _confirm("run this export")
    etag = arguments.etag or runs.etag
    actions.run_now(at, Action(runs.job, etag, arguments.by, arguments.why))
    _print(f"Done: an export of {runs.job} was requested")
    return 0


def _confirm(what: str) -> None:
    """Ask the person. Ends the program unless the answer is yes."""
    try:
        answer = input(f"{what}? Type yes: ")
    except EOFError:
        answer = ""
    if answer.strip() != "yes":
        sys.exit("Nothing was done.")


def _act(at: Bridge, arguments: argparse.Namespace) -> int:
    if arguments.yes and not arguments.etag:
        sys.exit("--yes needs --etag: list --json gives the ETag of the version that you mean.")
    command = arguments.command
    detail = _look_at(at, "exported" if command == "redeliver" else "failed", arguments.name)
    row = detail.row
    if not arguments.yes:
        _print(_line(row))
        if detail.todo:
            _print(f"What to do: {detail.todo}")
        if command == "resend" and (risk := actions.risk(detail.file)):
            _print(f"Warning: {risk}")
        _confirm(f"{command} this file")
    message_id = getattr(arguments, "message_id", "")
    etag = arguments.etag or row.etag
    action = Action(row.name, etag, arguments.by, arguments.why, message_id)
    new_name = actions.ACTIONS[command](at, action)
    container = EXPORTS if command == "redeliver" else IMPORTS
    _print(f"Done: {container}/{new_name}" if new_name else f"Done: {row.name}")
    return 0


def _print(text: str) -> None:
    """Print without control characters: names and texts come from outside, and could control the terminal."""
    print(printable(text), flush=True)


def _plain(value: object) -> Any:
    return value.isoformat() if isinstance(value, (datetime, date)) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code."""
    options = _parser().parse_args(arguments)
    _load(options.settings)
    logging.getLogger("bridge").setLevel(logging.CRITICAL)  # errors are printed here
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    try:
        at = bridge()
        journal.keep(at.account, at.settings.jobs)
        commands = {"check": _check, "recent": _recent, "list": _list, "show": _show}
        commands |= {"runs": _runs, "run": _run}
        return commands.get(options.command, _act)(at, options)
    except (InvalidSettings, InvalidJobs) as error:
        sys.exit(f"wrong      {error}")
    except NotDone as error:
        sys.exit(printable(f"Not done: {error}."))
    except (AzureError, D365Error) as error:
        sys.exit(printable(f"Failed: {explained(error)}"))
