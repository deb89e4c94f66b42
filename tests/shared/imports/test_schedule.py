"""When a file is checked next, and how much of the time counts as spent on it."""

from datetime import timedelta

from local.simulator import Simulator
from shared import clock
from shared.bridge import Bridge
from shared.imports import advance, claim, schedule
from shared.storage import files
from shared.storage.account import IMPORTS, PROCESSING, STATUS_QUEUE, DataAccount
from shared.storage.records import File
from tests.helpers import (
    Later,
    drop,
    make_bridge,
    only,
)


def test_only_the_time_counts_in_which_a_file_was_tried(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Not that in which its job was paused, the app did not run, or the file lay there before its first try."""
    dropped = files.find(account, IMPORTS, drop(account, "journals/may.csv"))
    assert dropped
    assert claim.claim(bridge, dropped)
    for accepted in (False, False, False, True):
        d365.registered = accepted
        later(timedelta(days=2))
        file = only(account, PROCESSING)
        advance.check_status(bridge, {"file": file.name, "etag": file.etag})
    assert len(d365.received) == 1
    assert only(account, PROCESSING).record.state == "sent"


def test_checks_back_off() -> None:
    """Seconds at first, minutes later, never beyond five (S3)."""
    delays = [schedule.check_delay(n).total_seconds() for n in range(12)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (5, 300)


def test_a_status_message_waits_its_time(d365: Simulator, account: DataAccount) -> None:
    """Nobody sees it before; D365 would be asked without a pause."""
    file = File(PROCESSING, "journals/may.csv", '"1"', 5, clock.now())
    schedule.check_file(make_bridge(d365, account), file, timedelta(minutes=5))
    queue = account.queue(STATUS_QUEUE)
    assert queue.get_queue_properties().approximate_message_count == 1
    assert not list(queue.receive_messages())


def test_a_status_message_lives_for_ever(d365: Simulator, account: DataAccount) -> None:
    """By itself one goes after seven days, of which an app that is stopped may take more."""
    file = File(PROCESSING, "journals/may.csv", '"1"', 5, clock.now())
    schedule.check_file(make_bridge(d365, account), file, timedelta(0))
    (message,) = account.queue(STATUS_QUEUE).receive_messages()
    assert message.expires_on
    assert message.expires_on - clock.now() > timedelta(days=365)
