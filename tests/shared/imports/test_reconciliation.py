"""Reconcile: whatever an event, a message or a worker left behind is taken up, and nothing else."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import ResourceExistsError

from local.simulator import Simulator
from shared import clock
from shared.bridge import Bridge
from shared.imports import claim, intake, reconciliation
from shared.storage import files, moves
from shared.storage.account import (
    FAILED,
    IMPORTS,
    NOTIFICATIONS_QUEUE,
    POISON_QUEUES,
    PROCESSING,
    STATUS_QUEUE,
    SUCCEEDED,
    DataAccount,
)
from shared.storage.records import File, State
from tests.helpers import (
    ORDERED_ID,
    Events,
    Later,
    contents,
    drop,
    make_bridge,
    only,
    report,
    work_queue,
)

MISSED = timedelta(minutes=6)
"""A sixth of the function's time-out, and a little."""


def queued(account: DataAccount) -> int:
    """Messages on the status queue, hidden ones included."""
    count = account.queue(STATUS_QUEUE).get_queue_properties().approximate_message_count
    return count or 0


def test_a_file_whose_event_never_came_is_imported(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, events: Events
) -> None:
    """Once it has lain there for longer than an event takes."""
    drop(account, "journals/may.csv")
    reconciliation.reconcile(bridge)
    assert list(contents(account, IMPORTS)) == ["journals/may.csv"]
    later(MISSED)
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1
    assert len(d365.received) == 1
    assert [each["found"] for each in events("reconcile.finished")] == [0, 1]


def test_a_file_that_is_worked_at_is_not_overdue(
    bridge: Bridge, account: DataAccount, later: Later, events: Events
) -> None:
    """Whatever it says of its next look: somebody has just written to it."""
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    file = only(account, PROCESSING)
    files.update(
        account, file, replace(file.record, due=clock.text(clock.now() - timedelta(hours=1)))
    )
    account.queue(STATUS_QUEUE).clear_messages()
    reconciliation.reconcile(bridge)
    assert queued(account) == 0
    later(MISSED)
    reconciliation.reconcile(bridge)
    assert [each["requeued"] for each in events("reconcile.finished")] == [0, 1]


def test_a_file_named_like_a_report_is_a_file(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Somebody's own export may be called so; only beside a failed file is it ours."""
    drop(account, "journals/may.error.json")
    later(MISSED)
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(d365.received) == 1
    assert len(contents(account, SUCCEEDED)) == 1


def test_an_event_that_comes_late_after_all_changes_nothing(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """The file was found before."""
    name = drop(account, "journals/may.csv")
    later(MISSED)
    reconciliation.reconcile(bridge)
    intake.import_file(bridge, name)
    work_queue(bridge)
    assert len(d365.received) == 1


def test_a_misplaced_file_without_an_event_is_explained(
    bridge: Bridge, account: DataAccount, later: Later
) -> None:
    """Nobody has to wait for it."""
    drop(account, "nobody/may.csv")
    later(MISSED)
    reconciliation.reconcile(bridge)
    assert report(account)["reason"] == "no-such-job"


def test_a_lost_status_message_is_made_again(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """And only one that is overdue."""
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    account.queue(STATUS_QUEUE).clear_messages()
    reconciliation.reconcile(bridge)
    assert queued(account) == 0
    later(MISSED)
    reconciliation.reconcile(bridge)
    assert queued(account) == 1
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1


def test_a_claim_whose_worker_died_before_sending_is_sent(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Claimed is surely not sent."""
    dropped = files.find(account, IMPORTS, drop(account, "journals/may.csv"))
    assert dropped
    claim.claim(bridge, dropped)
    later(MISSED)
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert (len(d365.received), len(contents(account, SUCCEEDED))) == (1, 1)


@pytest.mark.parametrize("when_uncertain", ["hold", "resend"])
def test_a_claim_whose_worker_died_while_sending_ends_as_the_job_says(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, when_uncertain: str
) -> None:
    """Held, or sent again; not before that worker's time is up."""
    bridge = make_bridge(d365, account, whenUncertain=when_uncertain)
    dropped = files.find(account, IMPORTS, drop(account, "journals/may.csv"))
    assert dropped
    claimed = claim.claim(bridge, dropped)
    assert claimed
    due = claimed.record.due
    files.update(account, claimed, replace(claimed.record, state=State.SENDING, due=due))
    later(MISSED)
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    if when_uncertain == "hold":
        assert (report(account)["outcome"], d365.received) == ("held", [])
    else:
        later(timedelta(minutes=1))
        reconciliation.reconcile(bridge)
        later(MISSED)
        reconciliation.reconcile(bridge)
        work_queue(bridge)
        assert (len(d365.received), len(contents(account, SUCCEEDED))) == (1, 1)


def test_a_claim_that_was_half_done_is_finished(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, monkeypatch: Any
) -> None:
    """The copy is made, the dropped file not yet deleted: one file comes of both."""
    name = drop(account, "journals/may.csv")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(moves, "release_source", die)
        with pytest.raises(KeyboardInterrupt):
            intake.import_file(bridge, name)
    assert (len(contents(account, IMPORTS)), len(contents(account, PROCESSING))) == (
        1,
        1,
    )
    later(MISSED)
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert not contents(account, IMPORTS)
    assert (len(d365.received), len(contents(account, SUCCEEDED))) == (1, 1)


def test_a_move_that_was_half_done_is_finished(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, monkeypatch: Any
) -> None:
    """The copy under succeeded is made, the one in processing not yet deleted."""
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    d365.received[0].statuses.clear()
    d365.received[0].statuses.append("Processed")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "delete", die)
        with pytest.raises(KeyboardInterrupt):
            work_queue(bridge)
    later(MISSED)
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert not contents(account, PROCESSING)
    assert len(contents(account, SUCCEEDED)) == 1


@pytest.mark.parametrize("queue", POISON_QUEUES)
def test_poison_messages_are_taken_up_and_told(
    bridge: Bridge, account: DataAccount, later: Later, events: Events, queue: str
) -> None:
    """Of every queue; the file that it was about goes on by what its container says."""
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    account.queue(STATUS_QUEUE).clear_messages()
    poison = account.queue(queue)
    with suppress(ResourceExistsError):
        poison.create_queue()
    file = only(account, PROCESSING)
    poison.send_message(json.dumps({"file": file.name, "etag": file.etag}))
    later(MISSED)
    reconciliation.reconcile(bridge)
    assert poison.get_queue_properties().approximate_message_count == 0
    assert [(each["queue"], file.name in each["message"]) for each in events("poison.found")] == [
        (queue, True)
    ]
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1


def test_one_file_that_fails_does_not_keep_the_others_waiting(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    events: Events,
    monkeypatch: Any,
) -> None:
    """It is reported, and tried again the next time."""
    drop(account, "journals/a.csv")
    drop(account, "journals/b.csv")
    real = claim.claim

    def broken(bridge: Bridge, dropped: File) -> Any:
        if dropped.name.endswith("a.csv"):
            raise RuntimeError("storage hiccup")
        return real(bridge, dropped)

    later(MISSED)
    with monkeypatch.context() as patch:
        patch.setattr(claim, "claim", broken)
        reconciliation.reconcile(bridge)
    assert "storage hiccup" in events("reconcile.failed")[0]["error"]
    assert len(contents(account, PROCESSING)) == 1
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(d365.received) == 2


def test_a_poison_message_that_cant_be_decoded_is_told_too(
    bridge: Bridge, account: DataAccount, events: Events
) -> None:
    """Somebody put plain text on our queue; the host gives it up as it is."""
    queue = account.queues.get_queue_client("import-status-poison")
    with suppress(ResourceExistsError):
        queue.create_queue()
    queue.send_message('{"file": "x"}')
    reconciliation.reconcile(bridge)
    assert [each["message"] for each in events("poison.found")] == ['{"file": "x"}']
    assert events("reconcile.finished")[0]["poison"] == 1


@pytest.mark.parametrize("due", ["tomorrow", "2026-01-01T00:00:00"])
def test_a_time_that_is_none_stops_no_other_file(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, due: str
) -> None:
    """Somebody put a file into processing by hand, with metadata of their own."""
    odd = account.blobs.get_blob_client(PROCESSING, "journals/a.csv")
    odd.upload_blob(b"1", metadata={"due": due})
    drop(account, "steps/b.csv")
    later(MISSED)
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert [received.activity_id for received in d365.received] == [ORDERED_ID]


def test_an_error_that_nobody_expected_stops_no_other_file(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told, with the file at which it came."""
    take = claim.claim_and_route

    def odd(at: Bridge, dropped: File) -> object:
        if dropped.name == "journals/a.csv":
            raise KeyError("odd")
        return take(at, dropped)

    monkeypatch.setattr(claim, "claim_and_route", odd)
    for name in ("journals/a.csv", "journals/b.csv", "steps/c.csv"):
        drop(account, name)
    later(MISSED)
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(d365.received) == 2
    assert [each["file"] for each in events("reconcile.failed")] == ["journals/a.csv"]


def test_reconcile_sends_nothing_itself(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """A send may take minutes, and the host ends a run that takes too long, in the midst of it."""
    for number in range(3):
        drop(account, f"steps/{number}.csv")
        drop(account, f"journals/{number}.csv")
    later(MISSED)
    reconciliation.reconcile(bridge)
    assert d365.count("enqueue") == 0
    work_queue(bridge)
    assert d365.count("enqueue") == 6


def test_reconcile_ends_in_time(
    bridge: Bridge, account: DataAccount, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had no time for is there for the next run."""
    for number in range(6):
        drop(account, f"journals/{number}.csv")
    later(MISSED)
    monotonic, real, claims = clock.monotonic, claim.claim, []

    def slow(*args: Any) -> File | None:
        claims.append(1)
        passed = 240.0 * len(claims)
        monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + passed)
        return real(*args)

    monkeypatch.setattr(claim, "claim", slow)
    reconciliation.reconcile(bridge)
    assert len(claims) == 3
    reconciliation.reconcile(bridge)
    assert len(claims) == 6


def test_metadata_of_a_program_stops_no_other_file(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """What looks like ours and is not."""
    odd = account.blobs.get_blob_client(IMPORTS, "journals/a.csv")
    odd.upload_blob(b"1", metadata={"checksum": "base64:1B2M2Y8AsgTpgAmY7PhCfg=="})
    drop(account, "journals/b.csv")
    later(timedelta(minutes=10))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(d365.received) == 2


def test_what_is_not_missed_yet_is_left_alone(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Four minutes old: an event may be on its way, and a worker at it. So is what was written just now."""
    intake.import_file(bridge, drop(account, "journals/sent.csv"))
    account.queue(STATUS_QUEUE).clear_messages()
    drop(account, "journals/may.csv")
    later(timedelta(minutes=4))
    reconciliation.reconcile(bridge)
    assert list(contents(account, IMPORTS)) == ["journals/may.csv"]
    assert queued(account) == 0


def test_an_end_that_a_crash_has_left_in_processing_is_brought_to_its_place(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, monkeypatch: Any
) -> None:
    """With its reason, with D365's own account, and with the news of it: it is told after it is so (I7)."""
    intake.import_file(bridge, drop(account, "journals/may.csv", b"1;REJECT"))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_error_report", die)
        with pytest.raises(KeyboardInterrupt):
            work_queue(bridge)
    assert not list(account.queue(NOTIFICATIONS_QUEUE).peek_messages())
    assert not contents(account, FAILED)
    account.queue(STATUS_QUEUE).clear_messages()
    later(MISSED)
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    error_report = report(account)
    assert (
        error_report["reason"],
        bool(error_report["error"]),
        bool(error_report["d365"]["errors"]),
    ) == (
        "not-imported",
        True,
        True,
    )
    assert len(list(account.queue(NOTIFICATIONS_QUEUE).peek_messages())) == 1
    assert not contents(account, PROCESSING)
