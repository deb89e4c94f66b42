"""Two small plots as SVG, drawn here since a plotting library would cost every cold start seconds."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape
from math import log10
from typing import Final

from shared.operations.views import Ended

_WIDTH: Final = 520
_HEIGHT: Final = 170
_LEFT: Final = 58
_BOTTOM: Final = 22
_OUTCOMES: Final = ("succeeded", "exported", "failed", "held")


def duration(seconds: float) -> str:
    """Seconds for people: 12 s, 3 min, 2.5 h, 4 d."""
    for limit, unit, text in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {text}"
    return f"{seconds / 86_400:.3g} d"


def both(ended: Sequence[Ended], since: datetime) -> str:
    """Ends per hour by outcome, and the time from drop to end of each file."""
    return f'<div class="plots">{per_hour(ended, since)}{from_drop_to_end(ended, since)}</div>'


def per_hour(ended: Sequence[Ended], since: datetime) -> str:
    """Stacked bars, an hour each."""
    first = since.replace(minute=0, second=0, microsecond=0)
    counts = Counter(
        (int((each.at - first).total_seconds() // 3600), each.outcome) for each in ended
    )
    hours = range(25)
    top = max([sum(counts[hour, o] for o in _OUTCOMES) for hour in hours] + [1])
    step = (_WIDTH - _LEFT) / len(hours)
    bars = []
    for hour in hours:
        base = float(_HEIGHT - _BOTTOM)
        for outcome in _OUTCOMES:
            if number := counts[hour, outcome]:
                height = number / top * (_HEIGHT - _BOTTOM - 12)
                base -= height
                start = first + timedelta(hours=hour)
                bars.append(
                    f'<rect class="fill-{outcome}" x="{_LEFT + hour * step + 1:.1f}" y="{base:.1f}" '
                    f'width="{step - 2:.1f}" height="{height:.1f}"><title>{start:%d %b %H}:00Z: {number} '
                    f"{outcome}</title></rect>"
                )
    total = Counter(each.outcome for each in ended)
    said = ", ".join(f"{total[o]} {o}" for o in _OUTCOMES if total[o]) or "none"
    axis = _frame(first, step) + _label(12, f"{top:,}") + _label(_HEIGHT - _BOTTOM, "0")
    return _figure("Files and packages per hour", said, axis + "".join(bars), total)


def from_drop_to_end(ended: Sequence[Ended], since: datetime) -> str:
    """A dot for each file at the time of its end, on a logarithmic scale of seconds."""
    first = since.replace(minute=0, second=0, microsecond=0)
    files = [each for each in ended if each.seconds is not None][-1500:]
    step = (_WIDTH - _LEFT) / 25
    longest = max([each.seconds or 0 for each in files] + [100])
    scale = (_HEIGHT - _BOTTOM - 12) / log10(max(longest, 100))

    def height(seconds: float) -> float:
        return _HEIGHT - _BOTTOM - log10(max(seconds, 1)) * scale

    dots = []
    for each in files:
        seconds = each.seconds or 0
        x = _LEFT + (each.at - first).total_seconds() / 3600 * step
        dots.append(
            f'<circle class="fill-{each.outcome}" cx="{x:.1f}" cy="{height(seconds):.1f}" r="2.5">'
            f"<title>{escape(each.name)}: {duration(seconds)}</title></circle>"
        )
    labels = "".join(
        _label(height(seconds), duration(seconds))
        for seconds in (1, 10, 60, 600, 3600, 36_000, 259_200)
        if seconds <= longest * 1.2
    )
    times = sorted(each.seconds or 0 for each in files)
    said = "none"
    if times:
        middle, late = times[len(times) // 2], times[int(len(times) * 0.95)]
        said = f"half within {duration(middle)}, 95 of 100 within {duration(late)}"
    caption = "Time from drop to end"
    return _figure(caption, said, _frame(first, step) + labels + "".join(dots), Counter())


def _frame(first: datetime, step: float) -> str:
    y = _HEIGHT - _BOTTOM
    parts = [f'<line class="axis" x1="{_LEFT}" y1="{y}" x2="{_WIDTH}" y2="{y}"/>']
    for hour in range(0, 25, 6):
        at = first + timedelta(hours=hour)
        x = _LEFT + hour * step
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 4}"/>')
        anchor = "end" if hour == 24 else "start"
        parts.append(f'<text x="{x:.1f}" y="{y + 17}" text-anchor="{anchor}">{at:%H}:00</text>')
    return "".join(parts)


def _label(y: float, text: str) -> str:
    return f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def _figure(caption: str, said: str, content: str, legend: Counter[str]) -> str:
    keys = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="fill-{o}" width="10" height="10"/>'
        f"</svg>{o} {legend[o]:,}</li>"
        for o in _OUTCOMES
        if legend[o]
    )
    below = f'<ul class="legend small">{keys}</ul>' if keys else f'<p class="small dim">{said}</p>'
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{caption}: {escape(said)}">'
        f"{content}</svg>{below}</figure>"
    )
