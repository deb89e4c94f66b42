"""Routing: the job and the company that a file is for, and what no job can take."""

from datetime import timedelta

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.imports import intake, reconciliation
from shared.storage.account import FAILED, IMPORTS, PROCESSING, DataAccount
from tests.helpers import Later, contents, drop, make_bridge, only, report


def test_the_company_of_the_job_is_taken(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """And a folder that says the same in another case is no contradiction."""
    bridge = make_bridge(d365, account, company="USMF")
    intake.import_file(bridge, drop(account, "journals/a.csv"))
    intake.import_file(bridge, drop(account, "journals/usmf/b.csv"))
    assert [(each.company or "").upper() for each in d365.received] == ["USMF", "USMF"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("may.csv", b"1", "no-job-in-path"),
        ("nobody/may.csv", b"1", "no-such-job"),
        ("journals/USMF/2026/may.csv", b"1", "bad-path"),
        ("journals/US MF/may.csv", b"1", "bad-path"),
        ("journals//may.csv", b"1", "bad-path"),
        ("packages/may.csv", b"1", "no-entity"),
    ],
)
def test_a_misplaced_file_is_explained_and_never_sent(
    bridge: Bridge, d365: Simulator, account: DataAccount, name: str, data: bytes, reason: str
) -> None:
    """Under failed, with the reason and what to do, its bytes as they were."""
    intake.import_file(bridge, drop(account, name, data))
    failed = only(account, FAILED)
    error_report = report(account)
    assert (error_report["reason"], error_report["file"], failed.record.state) == (
        reason,
        name,
        "failed",
    )
    assert error_report["todo"]
    assert contents(account, FAILED)[failed.name] == data
    assert not contents(account, IMPORTS)
    assert not d365.received


def test_only_files_that_match_the_pattern_are_taken(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """One of another name waits an hour, since programs rename what they have uploaded; then it has failed."""
    bridge = make_bridge(d365, account, pattern="gj[1]*.CSV")
    for name in ("journals/GJ[1] may.csv", "journals/USMF/GJ[1].csv.filepart", "journals/gj1.csv"):
        intake.import_file(bridge, drop(account, name))
    later(timedelta(minutes=59))
    reconciliation.reconcile(bridge)
    assert len(d365.received) == 1
    assert set(contents(account, IMPORTS)) == {
        "journals/USMF/GJ[1].csv.filepart",
        "journals/gj1.csv",
    }
    account.blobs.get_blob_client(IMPORTS, "journals/USMF/GJ[1].csv.filepart").delete_blob()
    intake.import_file(bridge, drop(account, "journals/USMF/GJ[1].csv"))
    assert len(d365.received) == 2
    later(timedelta(minutes=2))
    reconciliation.reconcile(bridge)
    error_report = report(account)
    assert (error_report["reason"], error_report["file"]) == ("no-match", "journals/gj1.csv")
    assert not contents(account, IMPORTS)


@pytest.mark.parametrize(
    ("name", "company"),
    [
        ("GJ_usmf_may.csv", "usmf"),
        ("GJ__DEMF.csv", "DEMF"),
        ("usmf/GJ_USMF.csv", "USMF"),
        ("GJ_USMF.2026", "USMF"),
    ],
)
def test_the_company_is_taken_from_the_files_name(
    bridge: Bridge, d365: Simulator, account: DataAccount, name: str, company: str
) -> None:
    """Its second part between underscores, whatever the suffix; a folder may say the same."""
    bridge = make_bridge(d365, account, companyFrom={"separator": "_", "position": 2})
    intake.import_file(bridge, drop(account, f"journals/{name}"))
    assert [each.company for each in d365.received] == [company]
    assert only(account, PROCESSING).record.company == company


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("may.csv", "no-company"),
        ("_may_.csv", "no-company"),
        ("GJ_US MF_may.csv", "bad-path"),
        ("DEMF/GJ_USMF.csv", "bad-path"),
    ],
)
def test_a_name_without_its_company_is_never_sent(
    bridge: Bridge, d365: Simulator, account: DataAccount, name: str, reason: str
) -> None:
    """Nor one that says another company than its folder: money in the wrong books is worse than none."""
    bridge = make_bridge(d365, account, companyFrom={"separator": "_", "position": 2})
    intake.import_file(bridge, drop(account, f"journals/{name}"))
    assert report(account)["reason"] == reason
    assert not d365.received
