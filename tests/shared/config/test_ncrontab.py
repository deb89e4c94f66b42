"""Schedules, as the host's own parser reads them.

`tests/data/ncrontab.jsonl` holds what NCrontab.Signed 3.4.0, the host's parser, was seen to say of each
expression: whether it takes it with six fields (`six`) and with five (`five`), and the next four times after
2026-11-25T18:30:07 (`next`; null where it does not take it, fewer than four where it was asked for ten years).
"""

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from shared.config import ncrontab, settings

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "ncrontab.jsonl").read_text().splitlines()
]
AFTER = datetime(2026, 11, 25, 18, 30, 7, tzinfo=UTC)
BACKWARDS = ("FRI-MON", "NOV-FEB")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "jobs.json").write_text("{}")
    return tmp_path


def _times(expression: str) -> list[str]:
    """The next four times, within ten years."""
    times: list[str] = []
    after = AFTER
    while len(times) < 4 and (due := ncrontab.next_run(expression, after)):
        if due.year >= AFTER.year + 10:
            break
        times.append(f"{due:%Y-%m-%dT%H:%M:%S}")
        after = due
    return times


def _runs_backwards(expression: str) -> bool:
    numbers = re.findall(r"(?<!\d)(\d+)-(\d+)", expression)
    return any(int(first) > int(last) for first, last in numbers) or any(
        each in expression for each in BACKWARDS
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row["expression"]))
def test_a_schedule_is_read_as_the_host_reads_it(row: dict[str, Any], app: Path) -> None:
    """The same expressions are refused, and those taken are due at the same times."""
    expression = row["expression"]
    if not row["six"]:
        with pytest.raises(ncrontab.InvalidSchedule):
            ncrontab.next_run(expression, AFTER)
    else:
        assert _times(expression) == (row["next"] or [])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row["expression"]))
def test_the_settings_take_the_schedules_that_the_host_takes(
    row: dict[str, Any], app: Path
) -> None:
    """But no range that runs backwards: the host would swap its ends, and nobody means that."""
    expression = row["expression"]
    environment = {
        "D365_URL": "https://contoso.operations.dynamics.com",
        "DataStorage": "UseDevelopmentStorage=true",
        "EXPORT_SCHEDULE": expression,
    }
    if not expression.strip(" ") or (row["six"] and not _runs_backwards(expression)):
        settings.load(environment, app)  # a blank one stands for the default
        return
    with pytest.raises(settings.InvalidSettings, match="EXPORT_SCHEDULE") as mistakes:
        settings.load(environment, app)
    assert ("runs backwards" in str(mistakes.value)) == row["six"]


def test_a_time_just_met_is_past() -> None:
    """The next run comes after the moment, never at it; parts of a second count."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert ncrontab.next_run("0 0 12 * * *", noon) == noon.replace(day=2)
    just_before = datetime(2026, 1, 1, 11, 59, 59, 900_000, tzinfo=UTC)
    assert ncrontab.next_run("0 0 12 * * *", just_before) == noon


def test_the_sentence_names_the_field_and_the_value() -> None:
    """So that nobody has to count stars."""
    with pytest.raises(ncrontab.InvalidSchedule, match=r"day of week.*'7'.*0 to 6"):
        ncrontab.next_run("0 0 8 * * 7", AFTER)
    with pytest.raises(ncrontab.InvalidSchedule, match=r"six fields.*only spaces"):
        ncrontab.next_run("0\t0 8 * * *", AFTER)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "after", "until", "last"),
    [
        ("0 0 2 * * *", "2026-11-25T02:00:00", "2026-11-26T01:59:59", None),
        ("0 0 2 * * *", "2026-11-25T02:00:00", "2026-11-26T02:00:00", "2026-11-26T02:00:00"),
        ("0 0 2 * * *", "2026-11-25T01:00:00", "2026-11-28T14:00:00", "2026-11-28T02:00:00"),
        ("0 */5 * * * *", "2026-11-25T23:58:00", "2026-11-26T00:07:59", "2026-11-26T00:05:00"),
        ("0 0 6 29 2 *", "2025-01-01T00:00:00", "2026-01-01T00:00:00", None),
        ("0 0 6 29 2 *", "2024-02-28T00:00:00", "2026-01-01T00:00:00", "2024-02-29T06:00:00"),
        ("0 0 2 * * *", "2026-11-28T03:00:00", "2026-11-25T03:00:00", None),
    ],
)
def test_the_last_time_between_two_moments(
    schedule: str, after: str, until: str, last: str | None
) -> None:
    """Of several times that have passed, the latest; the first moment does not count, the last one does."""
    expected = last and _moment(last)
    assert ncrontab.last_run(schedule, _moment(after), _moment(until)) == expected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row["expression"]))
def test_the_last_time_before_the_next_one_is_the_first(row: dict[str, Any]) -> None:
    """As the host's own parser names the times, forwards and backwards are the same times."""
    times = [_moment(text) for text in (row["next"] or [])]
    for earlier, later in pairwise(times):
        just_before = later - timedelta(seconds=1)
        assert ncrontab.last_run(row["expression"], AFTER, just_before) == earlier
