"""The queries of the alerts and the workbook: what they name, whether Kusto takes them, what they answer.

Microsoft's own parser (`kusto.js`) binds them against the tables' columns. `duckdb-kql` runs them, over the
lines that the app logged; it is not Kusto, but a query that names a wrong event or field answers nothing there.
"""

import atexit
import json
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import duckdb_kql

from local import node

TABLES: Final = {
    "AppTraces": "(TimeGenerated: datetime, Message: string, SeverityLevel: int, Properties: dynamic, "
    "OperationId: string, OperationName: string, AppRoleInstance: string, AppRoleName: string)",
    "AppExceptions": "(TimeGenerated: datetime, ExceptionType: string, OuterMessage: string, "
    "OuterType: string, InnermostMessage: string, InnermostType: string, ProblemId: string, "
    "Details: dynamic, SeverityLevel: int, Properties: dynamic, OperationId: string, "
    "OperationName: string, AppRoleInstance: string, AppRoleName: string)",
}
"""The tables that are asked, with the columns that concern us: Microsoft Learn, "Azure Monitor Logs reference -
AppTraces" and "- AppExceptions"."""

_LOCALLY = ("ingestion_time()", "TimeGenerated")
"""A line's time of arrival is not known here: its own time stands in for it."""

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class Bound(NamedTuple):
    """What Kusto makes of a query."""

    mistakes: list[str]
    columns: list[str]
    """Those that it answers with."""


_ONE_AT_A_TIME = Lock()


@cache
def bind(query: str) -> Bound:
    """A query bound against `TABLES`, by Microsoft's parser. Raises `NodeMissing`."""
    with _ONE_AT_A_TIME:
        parser = _parser()
        assert parser.stdin
        assert parser.stdout
        parser.stdin.write(json.dumps({"query": query, "tables": TABLES}) + "\n")
        parser.stdin.flush()
        line = parser.stdout.readline()
    if not line:
        raise RuntimeError(f"kusto.js ended ({parser.wait()})")
    return Bound(**json.loads(line))


@cache
def _parser() -> subprocess.Popen[str]:
    """It takes some two seconds to load, and then no time."""
    script = Path(__file__).with_name("kusto.js")
    process = subprocess.Popen(
        [str(node.require_node()), str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    atexit.register(process.kill)
    return process


def events_in(query: str) -> set[str]:
    """The names of events: text of the form `part.part`."""
    return set(re.findall(r'"([a-z0-9]+\.[a-z]+)"', _code(query)))


def fields_in(query: str) -> set[str]:
    """The fields of events that a query looks at."""
    return set(re.findall(r"\bfields\.(\w+)", _code(query)))


def _code(query: str) -> str:
    return re.sub(r"(?m)^\s*//.*", "", query)


def looks_back(query: str) -> timedelta:
    """The longest time that a query looks back."""
    durations = re.findall(r"\bago\((\d+)([mhd])\)", _code(query))
    return max((int(number) * _UNITS[unit] for number, unit in durations), default=timedelta())


def period(text: str) -> timedelta:
    """An ISO 8601 duration of one unit: P2D, PT15M. Raises `ValueError` for another."""
    if not (match := re.fullmatch(r"P(?:(\d+)(D)|T(\d+)([HM]))", text)):
        raise ValueError(f"{text} is no duration of days, hours or minutes")
    number, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
    return int(number) * _UNITS[unit.lower()]


def answer(query: str, lines: Iterable[tuple[datetime, str]]) -> list[dict[str, Any]]:
    """The rows of a query over a table AppTraces with these lines, each with its time."""
    connection = duckdb_kql.connect()
    connection.sql("CREATE TABLE AppTraces (TimeGenerated TIMESTAMP, Message VARCHAR)")
    for time, line in lines:
        moment = time.astimezone(UTC).replace(tzinfo=None)
        connection.execute("INSERT INTO AppTraces VALUES (?, ?)", [moment, line])
    result = duckdb_kql.kql(connection, query.replace(*_LOCALLY))
    return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]
