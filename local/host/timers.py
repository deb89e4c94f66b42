"""The timer trigger, with its status kept in the host's storage."""

import contextlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient

from local.host.functions import App
from local.host.settings import resolved
from local.host.storage import host_container
from local.host.workers import InvocationFailed
from local.protocol import Function, Typed
from local.worker import AppFailed
from shared.config import ncrontab


def timer(app: App, function: Function) -> Callable[[], None]:
    """Returns what calls a function whenever it is due, until the host stops. Raises `AppFailed`.

    If it was due while no host ran, it is called once, as past due, when a host runs again (Microsoft Learn,
    "Timer trigger for Azure Functions", section Timer trigger, `useMonitor`).
    """
    schedule = resolved(str(function.trigger["schedule"]))
    try:
        ncrontab.next_run(schedule, _now())
    except ncrontab.InvalidSchedule as error:
        raise AppFailed(f"{function.name}: {error}") from None
    status = _status_blob(function) if function.trigger.get("useMonitor", True) else None

    def run() -> None:
        last = _last(status)
        if last is None:
            last = _now()
            _keep(status, last, schedule)
        due = ncrontab.next_run(schedule, last)
        while due and _wait_until(due, app.stopping):
            past_due = (_now() - due).total_seconds() > 1
            started = max(_now(), due)
            with contextlib.suppress(InvocationFailed):
                app.invoke(function, _info(past_due=past_due, last=last))
            last = started
            _keep(status, last, schedule)
            # Due times that passed during the call are skipped.
            due = ncrontab.next_run(schedule, max(_now(), due))

    return run


def _now() -> datetime:
    return datetime.now(UTC)


def _wait_until(due: datetime, stopping: threading.Event) -> bool:
    """Wait until a function is due. False where the host stops first."""
    while not stopping.is_set():
        left = (due - _now()).total_seconds()
        if left <= 0:
            return True
        stopping.wait(min(left, 60.0))
    return False


def _status_blob(function: Function) -> BlobClient:
    name = f"timers/stand-in/Host.Functions.{function.name}/status"
    return host_container().get_blob_client(name)


def _last(status: BlobClient | None) -> datetime | None:
    """When the function was last called, or when a host first waited for it; None where nothing is kept."""
    with contextlib.suppress(AzureError):
        if status:
            return datetime.fromisoformat(json.loads(status.download_blob().readall())["Last"])
    return None


def _keep(status: BlobClient | None, last: datetime, schedule: str) -> None:
    if status is None:
        return
    due = ncrontab.next_run(schedule, last)
    kept = {
        "Last": last.isoformat(),
        "Next": due.isoformat() if due else None,
        "LastUpdated": _now().isoformat(),
    }
    with contextlib.suppress(AzureError):  # as in the real host: without a status the timer goes on
        status.upload_blob(json.dumps(kept), overwrite=True)


def _info(*, past_due: bool, last: datetime) -> Typed:
    info = {
        "IsPastDue": past_due,
        "ScheduleStatus": {"Last": last.isoformat(), "LastUpdated": last.isoformat()},
        "Schedule": {"AdjustForDST": True},
    }
    return Typed("json", json.dumps(info))
