"""The geometry of two small charts, which `html/charts.html` draws as SVG.

The import of a plotting library would take seconds. All lengths are in units of the SVG's view box."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import log10
from typing import Final

from shared.operations.units import duration
from shared.operations.views import Ended

WIDTH: Final = 520
HEIGHT: Final = 170
LEFT: Final = 58
"""The width that the labels of the vertical axis take."""
BASE: Final = HEIGHT - 22
"""Where the horizontal axis lies. Below it are the hours."""
_TOP: Final = 12
_HOURS: Final = 25
_STEP: Final = (WIDTH - LEFT) / _HOURS
_OUTCOMES: Final = ("succeeded", "exported", "failed", "held")
_DOTS: Final = 1500
"""The newest files of which the chart has a dot."""


@dataclass(frozen=True)
class Bar:
    """What ended in one hour with one outcome."""

    outcome: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Dot:
    """A file."""

    outcome: str
    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Hour:
    """A mark of the horizontal axis."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Chart:
    """A chart with its axes, and the same in words."""

    caption: str
    summary: str
    hours: Sequence[Hour]
    labels: Sequence[tuple[float, str]]
    """Of the vertical axis: where and what."""
    bars: Sequence[Bar] = ()
    dots: Sequence[Dot] = ()
    legend: Mapping[str, int] = field(default_factory=dict)
    """How many ended with each outcome."""


def per_hour(ended: Sequence[Ended], since: datetime) -> Chart:
    """Stacked bars: what ended in each hour, by outcome."""
    first = _hour(since)
    counts = Counter(
        (int((each.at - first).total_seconds() // 3600), each.outcome) for each in ended
    )
    highest = max(sum(counts[hour, each] for each in _OUTCOMES) for hour in range(_HOURS)) or 1
    bars = []
    for hour in range(_HOURS):
        y = float(BASE)
        for outcome in _OUTCOMES:
            if number := counts[hour, outcome]:
                height = number / highest * (BASE - _TOP)
                y -= height
                title = f"{first + timedelta(hours=hour):%d %b %H}:00Z: {number} {outcome}"
                x = LEFT + hour * _STEP + 1
                bars.append(Bar(outcome, x, y, _STEP - 2, height, title))
    totals = Counter(each.outcome for each in ended)
    legend = {each: totals[each] for each in _OUTCOMES if totals[each]}
    return Chart(
        "Files and packages per hour",
        ", ".join(f"{number} {outcome}" for outcome, number in legend.items()) or "none",
        _hours(first),
        [(_TOP, f"{highest:,}"), (BASE, "0")],
        bars=bars,
        legend=legend,
    )


def from_drop_to_end(ended: Sequence[Ended], since: datetime) -> Chart:
    """A dot for each file at the time of its end, on a logarithmic scale of seconds."""
    first = _hour(since)
    files = [(each, each.seconds) for each in ended if each.seconds is not None][-_DOTS:]
    seconds = sorted(seconds for _, seconds in files)
    longest = max([*seconds, 100])
    scale = (BASE - _TOP) / log10(longest)

    def y(seconds: float) -> float:
        return BASE - log10(max(seconds, 1)) * scale

    dots = [
        Dot(
            each.outcome,
            LEFT + (each.at - first).total_seconds() / 3600 * _STEP,
            y(seconds),
            f"{each.name}: {duration(seconds)}",
        )
        for each, seconds in files
    ]
    summary = "none"
    if seconds:
        half, most = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.95)]
        summary = f"half within {duration(half)}, 95 of 100 within {duration(most)}"
    marks = (1, 10, 60, 600, 3600, 36_000, 259_200)
    return Chart(
        "Time from drop to end",
        summary,
        _hours(first),
        [(y(mark), duration(mark)) for mark in marks if mark <= longest * 1.2],
        dots=dots,
    )


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _hours(first: datetime) -> list[Hour]:
    return [
        Hour(
            LEFT + hour * _STEP,
            f"{first + timedelta(hours=hour):%H}:00",
            "end" if hour == _HOURS - 1 else "start",
        )
        for hour in range(0, _HOURS, 6)
    ]
