"""The timer trigger."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from croniter import croniter

from local.host.invoking import App
from local.host.settings import resolved
from local.worker import AppFailed, Function, InvocationFailed, Typed


def timer(app: App, function: Function) -> Callable[[], None]:
    """What runs a function when it is due. Raises `AppFailed`."""
    schedule = resolved(str(function.trigger["schedule"]))
    if not croniter.is_valid(schedule, second_at_beginning=True):
        raise AppFailed(f"{function.name}: {schedule!r} is no NCRONTAB of six fields")

    def run() -> None:
        last = datetime.now(UTC)
        times = croniter(schedule, last, second_at_beginning=True)
        while True:
            due = times.get_next(datetime)
            # A run that outlasted later times is followed by one late run, not by one for each.
            late = due < datetime.now(UTC) - timedelta(seconds=1)
            while late and times.get_next(datetime) < datetime.now(UTC):
                pass
            if late:
                times = croniter(schedule, datetime.now(UTC), second_at_beginning=True)
            elif app.stopping.wait(max(0.0, (due - datetime.now(UTC)).total_seconds())):
                return
            if app.stopping.is_set():
                return
            with contextlib.suppress(InvocationFailed):
                app.invoke(function, _info(past_due=late, last=last))
            last = datetime.now(UTC)

    return run


def _info(*, past_due: bool, last: datetime) -> Typed:
    info = {
        "IsPastDue": past_due,
        "ScheduleStatus": {"Last": last.isoformat(), "LastUpdated": last.isoformat()},
        "Schedule": {"AdjustForDST": True},
    }
    return Typed("json", json.dumps(info))
