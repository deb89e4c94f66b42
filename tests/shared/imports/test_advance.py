"""Status: asked until it ends, filed where it belongs; a message that is late or repeated changes nothing."""

import json
from datetime import timedelta

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.d365 import statuses
from shared.imports import advance
from shared.storage import files
from shared.storage.account import FAILED, PROCESSING, STATUS_QUEUE, SUCCEEDED, DataAccount
from tests.helpers import (
    Events,
    Later,
    contents,
    make_bridge,
    only,
    report,
    sent,
    try_on,
    work_queue,
)

ENUM = "Microsoft.Dynamics.DataEntities.DMFMessageStatus"


@pytest.mark.parametrize(
    "body",
    [
        '{"value": "Processed"}',
        '{"Value": "Processed"}',
        '{"value": {"value": "processed"}}',
        f'{{"value": "{ENUM}\'Processed\'"}}',
        f'{{"value": "{ENUM}.Processed"}}',
        '{"value": ["Processed"]}',
        '["Processed"]',
        '"Processed"',
        "Processed",
        "\ufeffProcessed\r\n",
        '{"value": 5}',
        "5",
        '{"value": "5"}',
        '{"status": "Processed"}',
        "<string>Processed</string>",
    ],
)
def test_every_form_of_a_status_ends_the_file(
    bridge: Bridge, d365: Simulator, account: DataAccount, body: str
) -> None:
    """How D365 writes it is its to change."""
    message = sent(bridge, d365, "Processing")
    d365.add_fault("message_status", "answer", status=200, body=body)
    advance.check_status(bridge, message)
    assert only(account, SUCCEEDED).record.status.lower() in ("processed", "5")


def test_a_page_is_no_status(bridge: Bridge, d365: Simulator, account: DataAccount) -> None:
    """A gateway's or a sign-in's; the file is asked after again."""
    message = sent(bridge, d365, "Processed")
    page = "<!DOCTYPE html><html><title>Processed</title></html>"
    d365.add_fault("message_status", "answer", status=200, body=page)
    advance.check_status(bridge, message)
    assert "not JSON" in only(account, PROCESSING).record.reason


def test_a_running_file_is_asked_after_again(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """The status and the time of the check stand with it, and the next check is due."""
    advance.check_status(bridge, sent(bridge, d365, "Processing", "Processed"))
    record = only(account, PROCESSING).record
    assert (record.status, record.checks) == ("Processing", 1)
    assert record.due > record.checked
    work_queue(bridge)
    done = only(account, SUCCEEDED).record
    assert (done.state, done.status, done.checks) == ("succeeded", "Processed", 2)


def test_an_unknown_status_counts_as_running_and_is_told(
    bridge: Bridge, d365: Simulator, events: Events
) -> None:
    """S1."""
    advance.check_status(bridge, sent(bridge, d365, "Suspended", "Processed"))
    assert only(bridge.account, PROCESSING).record.status == "Suspended"
    assert events("status.unknown")[0]["status"] == "Suspended"


@pytest.mark.parametrize("status", ["ProcessedWithErrors", "PreProcessingError"])
def test_a_failure_is_filed_with_what_d365_says(
    bridge: Bridge, d365: Simulator, account: DataAccount, status: str
) -> None:
    """Errors, log, counts for each entity and the execution id; the file's own bytes beside it."""
    message = sent(bridge, d365, status)
    d365.received[0].errors = ["Account 999999 does not exist."]
    advance.check_status(bridge, message)
    error_report = report(account)
    assert (error_report["reason"], error_report["status"]) == ("not-imported", status)
    assert "Account 999999 does not exist." in error_report["error"]
    assert error_report["d365"]["executionId"] == d365.received[0].execution_id
    (entity,) = error_report["d365"]["entities"]
    assert (entity["entity"], entity["records"], entity["imported"]) == ("General journal", 20, 0)
    assert error_report["d365"]["log"]
    assert error_report["d365"]["errors"] == ["Account 999999 does not exist."]
    assert b"1;2;3" in contents(account, FAILED).values()


def test_a_file_of_which_a_part_got_in_is_told_apart(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """18 of 20: sent again as it is, these would be posted twice. Record, report and event have the counts."""
    message = sent(bridge, d365, "ProcessedWithErrors")
    d365.received[0].errors, d365.received[0].imported = ["Account 9 does not exist."], 18
    advance.check_status(bridge, message)
    file, error_report = only(account, FAILED), report(account)
    assert (file.record.reason, file.record.records) == ("partly-imported", "18")
    assert file.record.entities == "General journal: 18 of 20"
    assert (error_report["reason"], error_report["records"]) == ("partly-imported", 18)
    assert error_report["counts"] == "General journal: 18 of 20"
    assert "General journal: 18 of 20 records are in" in error_report["error"]
    assert "posted twice" in error_report["todo"]
    assert events("file.failed")[0]["records"] == 18


@pytest.mark.parametrize("code", ["DMF1996", "DMF2025", "DMF042", "DMF2048", "DMF2039"])
def test_imports_at_the_same_time_need_no_correction(
    bridge: Bridge, d365: Simulator, account: DataAccount, code: str
) -> None:
    """An update conflict, a deadlock, a second Excel file: the advice is to send it again as it is."""
    message = sent(bridge, d365, "ProcessedWithErrors")
    d365.received[0].errors = [f"{code}: An update conflict occurred."]
    advance.check_status(bridge, message)
    assert report(account)["reason"] == "conflict"
    assert "Resend the file as it is" in report(account)["todo"]


@pytest.mark.parametrize(
    ("errors", "imported", "reason"),
    [
        (["DMF2048: A deadlock.", "Account 9 does not exist."], 0, "not-imported"),
        (["DMF2048: A deadlock."], 3, "partly-imported"),
        (["DMF20480 is none of these codes."], 0, "not-imported"),
    ],
)
def test_what_needs_a_correction_is_no_mere_conflict(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    errors: list[str],
    imported: int,
    reason: str,
) -> None:
    """Nor is that of which a part is in sent again as it is."""
    message = sent(bridge, d365, "ProcessedWithErrors")
    d365.received[0].errors, d365.received[0].imported = errors, imported
    advance.check_status(bridge, message)
    assert report(account)["reason"] == reason


def test_a_job_can_want_a_file_of_which_nothing_got_in_as_failed(
    d365: Simulator, account: DataAccount, bridge: Bridge
) -> None:
    """Its option whenNoRecords."""
    bridge = make_bridge(d365, account, whenNoRecords="fail")
    message = sent(bridge, d365, "Processed")
    d365.received[0].imported = 0
    advance.check_status(bridge, message)
    assert report(account)["reason"] == "no-records"
    assert only(account, FAILED).record.status == "Processed"


def test_a_success_is_asked_after_once(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """Its record has the counts and the company."""
    advance.check_status(bridge, sent(bridge, d365, "Processed"))
    record = only(account, SUCCEEDED).record
    assert (record.records, record.entities) == ("20", "General journal: 20 of 20")
    assert (record.d365company, d365.count("job_status")) == ("DAT", 1)
    (event,) = events("file.succeeded")
    assert (event["records"], event["remark"]) == (20, "")


def test_a_success_that_can_not_be_counted_is_one_all_the_same(
    d365: Simulator, account: DataAccount, bridge: Bridge
) -> None:
    """What is not known is not zero."""
    bridge = make_bridge(d365, account, whenNoRecords="fail")
    d365.add_fault("job_status", "answer", status=404, times=-1)
    advance.check_status(bridge, sent(bridge, d365, "Processed"))
    assert only(account, SUCCEEDED).record.records == ""


def test_a_failure_whose_errors_can_not_be_had_is_filed_all_the_same(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """The report says why they are missing."""
    for operation in ("job_status", "execution_id", "execution_errors"):
        d365.add_fault(operation, "answer", status=500, body='{"Message": "Down."}', times=-1)
    advance.check_status(bridge, sent(bridge, d365, "ProcessedWithErrors"))
    d365_account = report(account)["d365"]
    assert "500: Down" in d365_account["jobStatusUnavailable"]
    assert "500: Down" in d365_account["errorsUnavailable"]


def test_a_repeated_message_changes_nothing(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """S2: the second finds that the file has gone on; so does one that comes after the end."""
    message = sent(bridge, d365, "Processing", "Processing", "ProcessedWithErrors")
    for _ in range(3):
        advance.check_status(bridge, message)
    assert only(account, PROCESSING).record.checks == 1
    assert d365.count("message_status") == 1
    assert account.queue(STATUS_QUEUE).get_queue_properties().approximate_message_count == 2
    work_queue(bridge)
    failed = contents(account, FAILED)
    advance.check_status(bridge, message)
    assert contents(account, FAILED) == failed
    assert not contents(account, PROCESSING)


@pytest.mark.parametrize(
    "message", [{}, {"file": "no/such.csv"}, {"file": "", "etag": ""}, {"file": 7, "etag": None}]
)
def test_a_message_that_names_no_file_changes_nothing(
    bridge: Bridge, message: dict[str, object], events: Events
) -> None:
    """Whoever put it there."""
    advance.check_status(bridge, message)
    assert events("message.ignored")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_question_that_fails_says_nothing_of_the_file(
    bridge: Bridge, d365: Simulator, account: DataAccount, status: int
) -> None:
    """It stays in processing with the reason, and is asked after again."""
    message = sent(bridge, d365, "Processed")
    d365.add_fault("message_status", "answer", status=status, times=4)
    advance.check_status(bridge, message)
    assert str(status) in only(account, PROCESSING).record.reason
    d365.faults.clear()
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.reason == ""


def test_a_pause_of_the_app_is_no_time_that_d365_took(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Nobody asked meanwhile, so nothing is known of how long it would have taken."""
    message = sent(bridge, d365, "Processing")
    later(timedelta(days=30))
    advance.check_status(bridge, message)
    assert only(account, PROCESSING).record.state == "sent"


def test_no_final_status_has_an_end(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After three days the file is filed under failed, and the report warns of sending it again."""
    assert timedelta(days=3) == statuses.GIVE_UP
    monkeypatch.setattr(statuses, "GIVE_UP", timedelta(hours=1))
    sent(bridge, d365, "Processing")
    try_on(bridge, later, timedelta(minutes=50), timedelta(minutes=8))
    assert only(account, PROCESSING).record.state == "sent"
    try_on(bridge, later, timedelta(hours=1), timedelta(minutes=8))
    error_report = report(account)
    assert (error_report["reason"], error_report["status"]) == ("no-final-status", "Processing")
    assert "Do not resend the file before you know" in error_report["todo"]


def test_a_file_whose_job_is_gone_is_still_tracked(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """D365 has it; what becomes of it does not depend on our jobs file."""
    message = sent(bridge, d365, "Processed")
    file = only(account, PROCESSING)
    from dataclasses import replace

    renamed = files.update(account, file, replace(file.record, job="gone"))
    advance.check_status(bridge, {**message, "etag": renamed.etag})
    assert json.dumps(only(account, SUCCEEDED).record.status) == '"Processed"'
