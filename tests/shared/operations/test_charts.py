"""The charts' geometry: everything lies on the chart, and a bar is as high as its number."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.operations import charts
from shared.operations.views import Ended

SINCE = datetime(2026, 11, 27, 4, 30, tzinfo=UTC)
TOP = 12.0
"""Above it is nothing."""


def ended(after: timedelta, outcome: str = "succeeded", seconds: float | None = None) -> Ended:
    """A file that ended so long after the chart's beginning."""
    return Ended(SINCE + after, outcome, "j", "j/may.csv", seconds, "", "", "")


def test_what_ended_in_one_hour_stands_on_one_another() -> None:
    """The fullest hour is as high as the chart, and each other one in proportion."""
    full, half = timedelta(minutes=40), timedelta(hours=5)
    chart = charts.per_hour(
        [ended(full), ended(full), ended(full), ended(full, "failed"), ended(half), ended(half)],
        SINCE,
    )
    succeeded, failed, other = chart.bars
    assert succeeded.y + succeeded.height == other.y + other.height == charts.BASE
    assert failed.y + failed.height == pytest.approx(succeeded.y)
    assert failed.y == pytest.approx(TOP)
    assert other.height == pytest.approx((charts.BASE - TOP) / 2)
    assert failed.title == "27 Nov 05:00Z: 1 failed"
    assert chart.legend == {"succeeded": 5, "failed": 1}
    assert chart.summary == "5 succeeded, 1 failed"


@pytest.mark.parametrize("after", [timedelta(0), timedelta(hours=24, minutes=29)])
def test_the_first_and_the_last_minute_are_on_the_chart(after: timedelta) -> None:
    """A day has parts of 25 hours."""
    (bar,) = charts.per_hour([ended(after)], SINCE).bars
    (dot,) = charts.from_drop_to_end([ended(after, seconds=5.0)], SINCE).dots
    assert charts.LEFT <= bar.x < bar.x + bar.width <= charts.WIDTH
    assert charts.LEFT <= dot.x <= charts.WIDTH


def test_a_slower_file_is_a_higher_dot() -> None:
    """From none at all to weeks; a package, whose drop nobody knows, has none."""
    seconds = [0.0, 1.0, 59.0, 3600.0, 2e6]
    files = [ended(timedelta(hours=1), seconds=each) for each in (*seconds, None)]
    chart = charts.from_drop_to_end(files, SINCE)
    heights = [charts.BASE - dot.y for dot in chart.dots]
    assert heights == sorted(heights)
    assert len(heights) == len(seconds)
    assert heights[0] == 0
    assert heights[-1] == pytest.approx(charts.BASE - TOP)
    assert chart.summary == "half within 59 s, 95 of 100 within 23.1 d"


def test_a_day_without_files_has_a_chart_too() -> None:
    """It says that there was none."""
    for chart in (charts.per_hour([], SINCE), charts.from_drop_to_end([], SINCE)):
        assert chart.summary == "none"
        assert not chart.bars
        assert not chart.dots
