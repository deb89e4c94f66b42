"""What D365 says of a failed import: the keys of failed records are kept beside the file, if asked for."""

import json
from typing import Any

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.d365.statuses import EntityCounts, JobStatus
from shared.imports import diagnosis, intake
from shared.storage.account import FAILED, DataAccount
from tests.helpers import IMPORT_ID, contents, drop, make_bridge, only, report, work_queue

BAD = b"1;2;REJECT"


def fail(d365: Simulator, account: DataAccount, **changes: object) -> dict[str, Any]:
    """Let a file fail in D365; what its report has of D365."""
    bridge = make_bridge(d365, account, **changes)
    intake.import_file(bridge, drop(account, "journals/may.csv", BAD))
    work_queue(bridge)
    return dict(report(account)["d365"])


def test_error_keys_are_kept_beside_the_file(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """The report names the blob; and it is no file of its own: nothing lists it, or stops for it."""
    d365_account = fail(d365, account, errorKeys=True)
    file = only(account, FAILED)
    name = f"{file.name}.error.keys/General journal.txt"
    assert d365_account["errorKeys"] == [name]
    execution = d365.received[0].execution_id
    assert contents(account, FAILED)[name].decode() == f"LINENUMBER\r\n17 of {execution}\r\n"


def test_error_keys_are_not_asked_for_otherwise(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """D365 makes the file only when told to."""
    assert "errorKeys" not in fail(d365, account)
    assert not any("ErrorKeys" in request.path for request in d365.requests)


@pytest.mark.parametrize(
    ("operation", "fault", "says"),
    [
        ("error_keys", {"do": "answer", "status": 403}, "403"),
        ("error_keys", {"do": "reset"}, "no answer from"),
        ("action", {"do": "answer", "status": 404}, "404"),
    ],
)
def test_a_failure_without_its_keys_is_filed_all_the_same(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    caplog: pytest.LogCaptureFixture,
    operation: str,
    fault: dict[str, Any],
    says: str,
) -> None:
    """The report says why they are missing; the signature is told nowhere (A3)."""
    d365.add_fault(operation, **fault, times=-1)
    d365_account = fail(d365, account, errorKeys=True)
    assert says in d365_account["errorKeysUnavailable"]
    assert d365_account["errors"]
    assert "S3cret" not in caplog.text + json.dumps(d365_account)


def test_keys_that_are_never_made_are_not_waited_for_without_end(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Half a minute, then the file is filed."""
    d365.keys_polls = 1000
    assert "has not made the file" in fail(d365, account, errorKeys=True)["errorKeysUnavailable"]


@pytest.mark.parametrize(
    ("counts", "entities"),
    [
        ([], ["Own"]),
        ([EntityCounts("A", "", 5, 5)], []),
        ([EntityCounts("A", "", 5, 3), EntityCounts("B", "", 5, 5)], ["A"]),
        ([EntityCounts("A", "", 5, 3), EntityCounts("", "", 5, 0)], ["A"]),
        ([EntityCounts(str(n), "", 5, 0) for n in range(99)], list(map(str, range(20)))),
    ],
)
def test_the_entities_are_those_with_errors(
    counts: list[EntityCounts], entities: list[str]
) -> None:
    """As D365 counts them; the job's own where it gives none; never without end."""
    status = JobStatus(entities=tuple(counts))
    assert (
        diagnosis._failed_entities(ImportJob(name="a", activity_id=IMPORT_ID, entity="Own"), status)
        == entities
    )


@pytest.mark.parametrize("parameter", ["_messageId", "messageId"])
def test_without_a_job_status_the_execution_is_asked_for(
    bridge: Bridge, d365: Simulator, account: DataAccount, parameter: str
) -> None:
    """GetExecutionIdByMessageId leads to the errors, however it calls its parameter."""
    d365.execution_parameter = parameter
    d365.add_fault("job_status", "answer", status=404, times=-1)
    d365_account = fail(d365, account)
    assert d365_account["executionId"] == d365.received[0].execution_id
    assert d365_account["errors"] == d365.reject_errors


@pytest.mark.parametrize("form", ['{{"Value": "{}"}}', '["{}"]', '{{"value": ["{}"]}}'])
def test_an_execution_id_is_read_in_every_form(
    bridge: Bridge, d365: Simulator, account: DataAccount, form: str
) -> None:
    """As any other value of an action."""
    d365.add_fault("job_status", "answer", status=404, times=-1)
    d365.add_fault("execution_id", "answer", status=200, body=form.format("DMF-7"))
    assert fail(d365, account)["executionId"] == "DMF-7"


def test_the_log_has_the_reason_where_there_are_no_errors(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """As with what fails before staging."""
    d365.add_fault("execution_errors", "answer", status=200, body='{"value": "[]"}', times=-1)
    d365.reject_errors = ["The file has\nno heading."]
    fail(d365, account)
    assert report(account)["error"].endswith(": The file has no heading.")


def test_errors_as_objects_are_told_in_words(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """The first stands in the file's error, all in its report."""
    errors = [
        {"RecordId": "17", "Field": "Amount", "ErrorMessage": "Not\r\nbalanced."},
        {"Field": "X"},
    ]
    body = json.dumps({"value": json.dumps(errors)})
    d365.add_fault("execution_errors", "answer", status=200, body=body, times=-1)
    d365_account = fail(d365, account)
    assert d365_account["errors"] == ["Not balanced. (record 17, field Amount)", "Field: X"]
    error = "Not balanced. (record 17, field Amount) (and 1 more)"
    assert report(account)["error"].endswith(error)


def test_an_entitys_name_stays_in_its_folder(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A4: it comes from outside."""
    monkeypatch.setattr(
        diagnosis, "_failed_entities", lambda *_: ["../../exports/a\\b\n" + "x" * 200]
    )
    d365.keys_location = "{base}/keys/{execution}/x?sig=1"
    (name,) = fail(d365, account, errorKeys=True)["errorKeys"]
    file = only(account, FAILED)
    assert name == f"{file.name}.error.keys/.._.._exports_a_b_{'x' * 62}.txt"
