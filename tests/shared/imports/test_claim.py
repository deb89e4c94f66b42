"""Claim: however many events, workers and versions there are, one file comes of one version."""

import threading
from datetime import timedelta

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.imports import advance, claim, intake, reconciliation
from shared.storage import files, moves
from shared.storage.account import IMPORTS, PROCESSING, SUCCEEDED, DataAccount
from shared.storage.errors import Conflict
from shared.storage.records import Record, State
from tests.helpers import Events, Later, contents, drop, make_bridge, only, work_queue


def test_a_leased_file_is_told_of_once(
    bridge: Bridge, account: DataAccount, later: Later, events: Events
) -> None:
    """What can't be taken away is not decided yet; the lease is what is told, and the end is told once."""
    name = drop(account, "nobody/may.csv")
    lease = account.blobs.get_blob_client(IMPORTS, name).acquire_lease()
    for _ in range(3):
        later(timedelta(minutes=10))
        reconciliation.reconcile(bridge)
    assert not events("file.failed")
    assert "has a lease" in events("reconcile.failed")[0]["error"]
    lease.release()
    reconciliation.reconcile(bridge)
    assert not contents(account, IMPORTS)
    assert len(events("file.failed")) == 1


def test_each_file_of_an_ordered_job_has_its_own_trace(
    bridge: Bridge, account: DataAccount, events: Events
) -> None:
    """Though one invocation ends a file and begins the next; each line bears its own file's."""
    for number in "123":
        drop(account, f"steps/{number}.csv")
    intake.import_file(bridge, "steps/1.csv")
    work_queue(bridge)
    ended = list(files.listed(account, SUCCEEDED))
    traces = {file.name: file.record.traceparent.split("-")[1] for file in ended}
    assert len(set(traces.values())) == 3
    for name in ("file.claimed", "file.sent", "status.checked", "file.succeeded"):
        assert {each["file"]: each["traceId"] for each in events(name)} == traces


def test_a_repeated_event_changes_nothing(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """Before, while and after the file is with D365."""
    name = drop(account, "journals/may.csv")
    for _ in range(3):
        intake.import_file(bridge, name)
    work_queue(bridge)
    intake.import_file(bridge, name)
    assert len(d365.received) == 1
    assert len(contents(account, SUCCEEDED)) == 1
    assert {each["reason"] for each in events("message.ignored")}


def test_many_workers_with_one_event_send_one_file(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Eight at once."""
    name = drop(account, "journals/may.csv")

    def run() -> None:
        try:
            intake.import_file(bridge, name)
        except Conflict:
            return

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(d365.received) == 1


def test_a_name_dropped_twice_stays_two_files(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Neither hides the other."""
    for data in (b"one", b"two"):
        intake.import_file(bridge, drop(account, "journals/may.csv", data))
    work_queue(bridge)
    assert sorted(contents(account, SUCCEEDED).values()) == [b"one", b"two"]
    assert len(d365.received) == 2


def test_a_file_overwritten_before_its_claim_is_never_mixed_up(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """A claim of a version that is gone takes nothing, and deletes nothing."""
    name = drop(account, "journals/may.csv", b"old")
    old = files.find(account, IMPORTS, name)
    assert old
    drop(account, name, b"new")
    assert claim.claim(bridge, old) is None
    assert contents(account, IMPORTS) == {name: b"new"}
    assert not contents(account, PROCESSING)


def test_a_paused_job_leaves_its_files_alone(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """They wait where they were dropped."""
    bridge = make_bridge(d365, account, enabled=False)
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    assert list(contents(account, IMPORTS)) == ["journals/may.csv"]
    assert not d365.requests


def test_what_the_dropper_wrote_on_it_stays(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Its own metadata and content type; and none of it can pass for ours."""
    blob = account.blobs.get_blob_client(IMPORTS, "journals/may.csv")
    blob.upload_blob(b"1", metadata={"author": "Ann", "state": "sent", "messageid": "x"})
    intake.import_file(bridge, "journals/may.csv")
    work_queue(bridge)
    (properties,) = account.blobs.get_container_client(SUCCEEDED).list_blobs(include=["metadata"])
    assert properties.metadata["author"] == "Ann"
    assert properties.metadata["messageid"] == d365.received[0].message_id


@pytest.mark.parametrize("ordered", [False, True])
def test_a_claimed_file_of_a_paused_job_is_not_sent(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, ordered: bool
) -> None:
    """It was taken before the job was paused; once it is paused no more, it goes on."""
    paused = make_bridge(d365, account, ordered=ordered, enabled=False)
    dropped = files.find(account, IMPORTS, drop(account, "journals/may.csv"))
    assert dropped
    assert claim.claim(paused, dropped)
    for each, sent in ((paused, 0), (make_bridge(d365, account, ordered=ordered), 1)):
        later(timedelta(minutes=10))
        file = only(account, PROCESSING)
        advance.check_status(each, {"file": file.name, "etag": file.etag})
        reconciliation.reconcile(each)
        work_queue(each)
        assert len(d365.received) == sent


@pytest.mark.parametrize("ordered", [False, True])
def test_whoever_goes_on_with_a_claim_lets_the_dropped_version_go_first(
    bridge: Bridge, d365: Simulator, account: DataAccount, ordered: bool
) -> None:
    """A worker died between copy and delete: what lies in imports was never sent, so it must be gone first."""
    bridge = make_bridge(d365, account, ordered=ordered)
    dropped = files.find(account, IMPORTS, drop(account, "journals/may.csv"))
    assert dropped
    claimed = moves.copy_claim(account, dropped, Record(state=State.CLAIMED))
    assert claimed
    advance.check_status(bridge, {"file": claimed.name, "etag": claimed.etag})
    assert not contents(account, IMPORTS)
    assert len(d365.received) == 1
