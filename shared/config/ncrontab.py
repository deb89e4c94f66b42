"""Schedules of timers, read as the Functions host reads them.

The form is NCRONTAB with six fields (Microsoft Learn, "Timer trigger for Azure Functions", section NCRONTAB
expressions). What that page leaves open is as the host's own parser was seen to do it (NCrontab.Signed 3.4.0):
day of month and day of week must both hold; only spaces separate; a name may be cut short (`j` is January, `ma`
March); a step beyond the field, of 0 or below it is taken; the ends of a range that runs backwards are swapped
(`FRI-MON` is Monday to Friday). Times are UTC, as Flex Consumption knows no other.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import Final, NamedTuple


class InvalidSchedule(ValueError):
    """The host would not take the schedule. The message says what is wrong with which field."""


class _Field(NamedTuple):
    title: str
    least: int
    greatest: int
    names: tuple[str, ...] = ()


_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_DAYS: Final = (
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
)
_FIELDS: Final = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 6, _DAYS),
)
_YEARS: Final = 40
"""29 February comes on each day of the week within so many years, also across 2100."""


def next_run(schedule: str, after: datetime) -> datetime | None:
    """The first time that the schedule names after a moment (UTC); None where it names none, as 30 February.

    Raises `InvalidSchedule`.
    """
    seconds, minutes, hours, days, months, weekdays = _values(schedule)
    for ahead in range(366 * _YEARS):
        day: date = (after + timedelta(days=ahead)).date()
        if day.month in months and day.day in days and day.isoweekday() % 7 in weekdays:
            least = time.min if ahead else after.time()
            for each in _clock_times(seconds, minutes, hours, least, time.max):
                if (due := datetime.combine(day, each, after.tzinfo)) > after:
                    return due
    return None


def last_run(schedule: str, after: datetime, until: datetime) -> datetime | None:
    """The last time that the schedule names after one moment and not after another (UTC); None where it names
    none between them. Raises `InvalidSchedule`."""
    seconds, minutes, hours, days, months, weekdays = _values(schedule)
    for back in range((until.date() - after.date()).days + 1):
        day: date = (until - timedelta(days=back)).date()
        if day.month in months and day.day in days and day.isoweekday() % 7 in weekdays:
            greatest = time.max if back else until.time()
            backwards = (seconds[::-1], minutes[::-1], hours[::-1])
            for each in _clock_times(*backwards, time.min, greatest):
                if (due := datetime.combine(day, each, until.tzinfo)) <= until:
                    return due if due > after else None
    return None


def check(schedule: str) -> None:
    """Raise `InvalidSchedule` for what the host would not take, and for a range that runs backwards.

    The host takes such a range and swaps its ends, which is not what a person means who writes it.
    """
    _values(schedule)
    for text, field in zip(_fields(schedule), _FIELDS, strict=True):
        for part in text.split(","):
            first, dash, last = part.partition("/")[0].partition("-")
            if dash and _value(first, field) > _value(last, field):
                raise InvalidSchedule(
                    f"the {field.title} {part!r} runs backwards, and the host would read it as {last}-{first}; "
                    f"name both parts ({first}-{field.greatest},{field.least}-{last})"
                )


def _clock_times(
    seconds: Sequence[int],
    minutes: Sequence[int],
    hours: Sequence[int],
    least: time,
    greatest: time,
) -> Iterator[time]:
    """Times of a day in the fields' order, without the minutes that lie outside: a day has 86,400 seconds."""
    first, last = (least.hour, least.minute), (greatest.hour, greatest.minute)
    for hour in hours:
        if least.hour <= hour <= greatest.hour:
            for minute in minutes:
                if first <= (hour, minute) <= last:
                    yield from (time(hour, minute, second) for second in seconds)


def _values(schedule: str) -> tuple[tuple[int, ...], ...]:
    """Each field written out: the values that it stands for, in order."""
    return tuple(
        tuple(sorted({value for part in text.split(",") for value in _part(part, field)}))
        for text, field in zip(_fields(schedule), _FIELDS, strict=True)
    )


def _fields(schedule: str) -> list[str]:
    fields = [text for text in schedule.split(" ") if text]
    if len(fields) != len(_FIELDS):
        raise InvalidSchedule(
            f"it must be NCRONTAB with six fields (0 */5 * * * *), which only spaces separate; "
            f"{schedule!r} has {len(fields)}"
        )
    return fields


def _part(part: str, field: _Field) -> range:
    """`*`, a value or a range of two, each perhaps with a step."""
    span, slash, step_text = part.partition("/")
    if slash and not re.fullmatch("[+-]?[0-9]{1,9}", step_text):
        raise InvalidSchedule(f"the {field.title} {part!r} has a step that is no number")
    step = max(int(step_text), 1) if slash else 1
    if span == "*":
        return range(field.least, field.greatest + 1, step)
    first, dash, last = span.partition("-")
    start = _value(first, field)
    end = _value(last, field) if dash else field.greatest if slash else start
    return range(min(start, end), max(start, end) + 1, step)


def _value(text: str, field: _Field) -> int:
    if re.fullmatch("[0-9]{1,9}", text):
        if field.least <= int(text) <= field.greatest:
            return int(text)
    elif text:
        for number, name in enumerate(field.names, field.least):
            if name.lower().startswith(text.lower()):
                return number
    names = f", or a name ({field.names[0]})" if field.names else ""
    raise InvalidSchedule(
        f"the {field.title} {text!r} must be a number from {field.least} to {field.greatest}{names}"
    )
