"""The queries of the alerts and the workbook: what they name, whether they parse, and what they answer.

`duckdb-kql` runs them, over the lines that the app logged; it is not Kusto, so a query that runs here may still
be refused there, but one that names a wrong event, field or column answers nothing.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb_kql

from tests.infra.bicep import Mistake

_LOCALLY = ("ingestion_time()", "TimeGenerated")
"""A line's time of arrival is not known here: its own time stands in for it."""

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


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
    found = re.findall(r"\bago\((\d+)([mhd])\)", _code(query))
    return max((int(number) * _UNITS[unit] for number, unit in found), default=timedelta())


def period(text: str) -> timedelta:
    """An ISO 8601 duration of one unit: P2D, PT15M."""
    if not (found := re.fullmatch(r"P(?:(\d+)(D)|T(\d+)([HM]))", text)):
        raise Mistake(f"{text} is no duration of days, hours or minutes")
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(number) * _UNITS[unit.lower()]


def mistakes(query: str) -> list[str]:
    """What is no KQL in a query."""
    return [str(each)[:120] for each in duckdb_kql.validate(query)]


def columns(query: str) -> list[str]:
    """The columns that a query answers with."""
    return list(_asked(query, []).columns)


def answer(query: str, lines: Iterable[tuple[datetime, str]]) -> list[dict[str, Any]]:
    """The rows of a query over a table AppTraces with these lines, each with its time."""
    found = _asked(query, lines)
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def _asked(query: str, lines: Iterable[tuple[datetime, str]]) -> Any:
    connection = duckdb_kql.connect()
    connection.sql("CREATE TABLE AppTraces (TimeGenerated TIMESTAMP, Message VARCHAR)")
    for time, line in lines:
        moment = time.astimezone(UTC).replace(tzinfo=None)
        connection.execute("INSERT INTO AppTraces VALUES (?, ?)", [moment, line])
    return duckdb_kql.kql(connection, query.replace(*_LOCALLY))
