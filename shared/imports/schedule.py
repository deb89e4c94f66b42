"""Schedules a file's next check: a message on the queue `import-status` that becomes visible at that time.

The queue only wakes. What is due when stands in the file's metadata, so a message that is lost, late or
repeated changes nothing (S2).
"""

import json
import math
import random
from dataclasses import replace
from datetime import datetime, timedelta

from shared import clock
from shared.bridge import Bridge
from shared.storage import files
from shared.storage.account import STATUS_QUEUE
from shared.storage.records import File, Record


def check_later(bridge: Bridge, file: File, record: Record, delay: timedelta) -> None:
    """Write a record down with the time of the next check, and check the file then. Raises `Conflict`."""
    record = replace(record, due=clock.text(clock.now() + delay))
    check_file(bridge, files.update(bridge.account, file, record), delay)


def check_file(bridge: Bridge, file: File, delay: timedelta) -> None:
    """Check a file in processing after `delay`. The message names the file's version."""
    _enqueue(
        bridge,
        {"file": file.name, "etag": file.etag, "traceparent": file.record.traceparent},
        delay,
    )


def check_drop(bridge: Bridge, name: str, moment: datetime) -> None:
    """Look at a dropped file again at that moment."""
    _enqueue(bridge, {"dropped": name}, max(timedelta(0), moment - clock.now()))


def _enqueue(bridge: Bridge, message: dict[str, str], delay: timedelta) -> None:
    bridge.account.queue(STATUS_QUEUE).send_message(
        json.dumps(message),
        visibility_timeout=math.ceil(delay.total_seconds()),
        time_to_live=-1,
    )


def slot_delay() -> timedelta:
    """How long to wait for a slot among the invocations that an environment may have."""
    return timedelta(seconds=random.uniform(15, 30))


def check_delay(checks: int) -> timedelta:
    """How long to wait before the next status check: seconds at first, minutes later (S3)."""
    return timedelta(seconds=min(5 * 2**checks, 300))


def time_spent(bridge: Bridge, last: str, due: str) -> int:
    """Seconds since the last try, but no more than until this one was due, and the bridge's patience.

    The time in which a job is paused, or the app does not run, is not spent on the file. 0 where there was no
    try.
    """
    if not last:
        return 0
    until = min(clock.now(), clock.parse(due) + bridge.patience)
    return max(0, round((until - clock.parse(last)).total_seconds()))
