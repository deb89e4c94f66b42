"""The timer trigger."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from local.host.invoking import App
from local.host.settings import resolved
from local.worker import AppFailed, Function, InvocationFailed, Typed
from shared import ncrontab


def timer(app: App, function: Function) -> Callable[[], None]:
    """What runs a function when it is due. Raises `AppFailed`."""
    schedule = resolved(str(function.trigger["schedule"]))
    try:
        ncrontab.next_run(schedule, datetime.now(UTC))
    except ncrontab.InvalidSchedule as error:
        raise AppFailed(f"{function.name}: {error}") from None

    def run() -> None:
        last = datetime.now(UTC)
        while due := ncrontab.next_run(schedule, last):
            # A run that outlasted later times is followed by one late run, not by one for each.
            late = due < datetime.now(UTC) - timedelta(seconds=1)
            if not late:
                app.stopping.wait(max(0.0, (due - datetime.now(UTC)).total_seconds()))
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
