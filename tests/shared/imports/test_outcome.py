"""How an import ends: what its report, its events and its record say, and what none of them may."""

from dataclasses import replace

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.imports import advance, claim, intake, outcome
from shared.storage import files
from shared.storage.account import (
    FAILED,
    IMPORTS,
    SUCCEEDED,
    DataAccount,
)
from shared.storage.errors import Conflict
from shared.storage.records import State
from tests.helpers import (
    Events,
    contents,
    drop,
    make_bridge,
    notifications,
    only,
    report,
    sent,
    work_queue,
)


def test_a_file_that_is_named_like_a_secret_keeps_its_name(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """In report, log and error: whoever looks for it, and for its external identifier, needs them."""
    d365.add_fault("enqueue", "answer", status=400, body='{"Message": "No code=17.csv"}', times=-1)
    intake.import_file(bridge, drop(account, "journals/sig=1.csv"))
    error_report = report(account)
    assert error_report["file"] == "journals/sig=1.csv"
    assert error_report["externalIdentifier"].startswith("sig=1.")
    assert events("file.failed")[0]["file"].startswith("journals/sig=1.")
    assert "No code=17.csv" in error_report["error"]


def test_a_signature_in_what_d365_says_is_not_kept(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """A3: neither in the report nor in the log, however D365 writes it."""
    d365.reject_errors = ["no access to https://x.blob/c/b?sv=1&sig=S3CRET%3D&se=2"]
    intake.import_file(bridge, drop(account, "journals/may.csv", b"REJECT"))
    work_queue(bridge)
    body = '{"odata.error": {"message": {"value": "see https://x/b?sv=1\\u0026sig=S3CRET"}}}'
    d365.add_fault("enqueue", "answer", status=400, body=body)
    intake.import_file(bridge, drop(account, "journals/june.csv"))
    reports = b"".join(contents(account, FAILED).values()).decode()
    assert reports.count("sig=[redacted]") >= 3
    assert "S3CRET" not in reports + str(events("file.failed"))
    records = [file.record for file in files.listed(account, FAILED)]
    assert "S3CRET" not in str(records)


def test_a_file_of_which_nothing_got_in_is_marked(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """Processed with 0 records: a manifest without a field map, say."""
    message = sent(bridge, d365, "Processed")
    d365.received[0].imported = 0
    advance.check_status(bridge, message)
    assert only(account, SUCCEEDED).record.records == "0"
    (event,) = events("file.succeeded")
    assert (event["records"], event["remark"]) == (0, "D365 imported no record of it")


@pytest.mark.parametrize("status", ["Processed", "ProcessedWithErrors"])
def test_another_company_than_the_one_asked_for_is_told(
    d365: Simulator, account: DataAccount, bridge: Bridge, events: Events, status: str
) -> None:
    """Without *Use company from message* D365 takes its own, and says nothing of it."""
    d365.company_from_message = False
    bridge = make_bridge(d365, account, company="USMF")
    advance.check_status(bridge, sent(bridge, d365, status))
    container = SUCCEEDED if status == "Processed" else FAILED
    record = only(account, container).record
    assert (record.company, record.d365company) == ("USMF", "DAT")
    (event,) = events("company.differs")
    assert (event["job"], event["reason"]) == ("journals", "other-company")
    assert "into DAT, not into USMF" in event["error"]
    if status == "Processed":
        assert "into DAT, not into USMF" in events("file.succeeded")[0]["remark"]


@pytest.mark.parametrize("company", ["", "dat"])
def test_the_company_that_was_asked_for_is_no_news(
    d365: Simulator, account: DataAccount, bridge: Bridge, events: Events, company: str
) -> None:
    """In whatever case; nor is any where none was asked for."""
    bridge = make_bridge(d365, account, **({"company": company} if company else {}))
    advance.check_status(bridge, sent(bridge, d365, "Processed"))
    assert only(account, SUCCEEDED).record.d365company.lower() == "dat"
    assert not events("company.differs")


def test_what_another_worker_has_decided_is_no_news(bridge: Bridge, account: DataAccount) -> None:
    """I7: nothing is told before the write that makes it true, and that one write is lost here."""
    dropped = files.find(account, IMPORTS, drop(account, "journals/may.csv", b"1"))
    assert dropped
    claimed = claim.claim(bridge, dropped)
    assert claimed
    files.update(account, claimed, replace(claimed.record, state=State.SENDING))
    with pytest.raises(Conflict):
        outcome.fail(account, claimed, claimed.record, "no-such-job", "there is no such job")
    assert not notifications(account)
    assert not contents(account, FAILED)
