"""Status: asked until it ends, filed where it belongs; a message that is late or repeated changes nothing."""

import json
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.simulator import Simulator
from shared import blobs, importing, tracking
from shared.blobs import DataAccount
from shared.bridge import Bridge
from tests.conftest import contents, drop, only, report, work_queue

type Events = Callable[[str], list[dict[str, Any]]]


def sent(bridge: Bridge, d365: Simulator, *statuses: str) -> dict[str, str]:
    """A file that D365 has, with the statuses that it will give; the message that asks for it."""
    importing.import_file(bridge, drop(bridge.account, "journals/may.csv"))
    d365.received[0].statuses = deque(statuses)
    file = only(bridge.account, blobs.PROCESSING)
    return {"file": file.name, "etag": file.etag}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("Enqueued", "running"),
        ("Dequeued", "running"),
        ("Acked", "running"),
        ("Preprocessing", "running"),
        ("Processing", "running"),
        ("Downloaded", "running"),
        ("InProcess", "running"),
        ("Processed", "succeeded"),
        ("PROCESSED", "succeeded"),
        ("PreProcessingError", "failed"),
        ("ProcessedWithErrors", "failed"),
        ("PostProcessingFailed", "failed"),
        ("PostProcessingError", "failed"),
        *((str(n), "running") for n in (0, 1, 2, 3, 4, 9)),
        ("5", "succeeded"),
        *((str(n), "failed") for n in (6, 7, 8)),
        ("10", "unknown"),
        ("Paused", "unknown"),
        ("", "unknown"),
    ],
)
def test_every_status_has_its_meaning(status: str, kind: str) -> None:
    """By name in any case, and by number (S1)."""
    assert tracking.meaning(tracking.normal(status)) == kind


@given(st.text(max_size=40))
def test_any_text_has_a_meaning(status: str) -> None:
    """Whatever D365 says."""
    assert tracking.meaning(tracking.normal(status)) in {
        "running",
        "succeeded",
        "failed",
        "unknown",
    }


def test_a_running_file_is_asked_after_again(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """The status and the time of the check stand with it, and the next check is due."""
    tracking.check_status(bridge, sent(bridge, d365, "Processing", "Processed"))
    record = only(account, blobs.PROCESSING).record
    assert (record.status, record.checks) == ("Processing", 1)
    assert record.due > record.checked
    work_queue(bridge)
    done = only(account, blobs.SUCCEEDED).record
    assert (done.state, done.status, done.checks) == ("succeeded", "Processed", 2)


def test_an_unknown_status_counts_as_running_and_is_told(
    bridge: Bridge, d365: Simulator, events: Events
) -> None:
    """S1."""
    tracking.check_status(bridge, sent(bridge, d365, "Suspended", "Processed"))
    assert only(bridge.account, blobs.PROCESSING).record.status == "Suspended"
    assert events("status.unknown")[0]["status"] == "Suspended"


def test_checks_back_off() -> None:
    """Seconds at first, minutes later, never beyond five (S3)."""
    delays = [importing.check_delay(n).total_seconds() for n in range(12)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (5, 300)


@pytest.mark.parametrize("status", ["ProcessedWithErrors", "PreProcessingError"])
def test_a_failure_is_filed_with_what_d365_says(
    bridge: Bridge, d365: Simulator, account: DataAccount, status: str
) -> None:
    """Errors, log, counts for each entity and the execution id; the file's own bytes beside it."""
    message = sent(bridge, d365, status)
    d365.received[0].errors = ["Account 999999 does not exist."]
    tracking.check_status(bridge, message)
    said = report(account)
    assert (said["reason"], said["status"]) == ("not-imported", status)
    assert "Account 999999 does not exist." in said["error"]
    assert said["d365"]["executionId"] == d365.received[0].execution_id
    assert said["d365"]["entities"][0]["TargetErrorCount"] == 1
    assert said["d365"]["log"]
    assert said["d365"]["errors"] == ["Account 999999 does not exist."]
    assert b"1;2;3" in contents(account, blobs.FAILED).values()


def test_a_failure_whose_errors_can_not_be_had_is_filed_all_the_same(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """The report says why they are missing."""
    for operation in ("job_status", "execution_errors"):
        d365.add_fault(operation, "answer", status=500, body='{"Message": "Down."}', times=-1)
    tracking.check_status(bridge, sent(bridge, d365, "ProcessedWithErrors"))
    said = report(account)["d365"]
    assert "500: Down" in said["jobStatusUnavailable"]
    assert "500: Down" in said["errorsUnavailable"]


def test_a_repeated_message_changes_nothing(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """S2: the second finds that the file has gone on; so does one that comes after the end."""
    message = sent(bridge, d365, "Processing", "Processing", "ProcessedWithErrors")
    for _ in range(3):
        tracking.check_status(bridge, message)
    assert only(account, blobs.PROCESSING).record.checks == 1
    assert d365.count("message_status") == 1
    assert account.queue(blobs.STATUS_QUEUE).get_queue_properties().approximate_message_count == 2
    work_queue(bridge)
    failed = contents(account, blobs.FAILED)
    tracking.check_status(bridge, message)
    assert contents(account, blobs.FAILED) == failed
    assert not contents(account, blobs.PROCESSING)


@pytest.mark.parametrize(
    "message", [{}, {"file": "no/such.csv"}, {"file": "", "etag": ""}, {"file": 7, "etag": None}]
)
def test_a_message_that_names_no_file_changes_nothing(
    bridge: Bridge, message: dict[str, object], events: Events
) -> None:
    """Whoever put it there."""
    tracking.check_status(bridge, message)
    assert events("message.ignored")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_question_that_fails_says_nothing_of_the_file(
    bridge: Bridge, d365: Simulator, account: DataAccount, status: int
) -> None:
    """It stays in processing with the reason, and is asked after again."""
    message = sent(bridge, d365, "Processed")
    d365.add_fault("message_status", "answer", status=status, times=4)
    tracking.check_status(bridge, message)
    assert str(status) in only(account, blobs.PROCESSING).record.reason
    d365.faults.clear()
    work_queue(bridge)
    assert only(account, blobs.SUCCEEDED).record.reason == ""


def test_no_final_status_has_an_end(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Callable[[timedelta], None]
) -> None:
    """After three days the file is filed under failed, and the report warns of sending it again."""
    message = sent(bridge, d365, "Processing")
    later(timedelta(days=3, minutes=1))
    tracking.check_status(bridge, message)
    said = report(account)
    assert (said["reason"], said["status"]) == ("no-final-status", "Processing")
    assert "Do not send the file again before you know" in said["todo"]


def test_a_file_whose_job_is_gone_is_still_tracked(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """D365 has it; what becomes of it does not depend on our jobs file."""
    message = sent(bridge, d365, "Processed")
    file = only(account, blobs.PROCESSING)
    from dataclasses import replace

    renamed = blobs.update(account, file, replace(file.record, job="gone"))
    tracking.check_status(bridge, {**message, "etag": renamed.etag})
    assert json.dumps(only(account, blobs.SUCCEEDED).record.status) == '"Processed"'
