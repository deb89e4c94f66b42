"""Notifications: whoever is to know of a failed or held file need not look."""

from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.imports import intake, outcome
from shared.storage.account import FAILED, NOTIFICATIONS_QUEUE, PROCESSING, DataAccount
from tests.helpers import contents, drop, notifications, only, work_queue


def test_a_rejected_file_is_told_with_what_to_do(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Its job, its report, D365's first error and id."""
    intake.import_file(bridge, drop(account, "journals/USMF/may.csv", b"1;REJECT"))
    work_queue(bridge)
    (notification,) = notifications(account)
    assert notification.type == "d365-blob-bridge.file.failed"
    assert (notification.data.job, notification.data.company) == ("journals", "USMF")
    assert (notification.data.reason, notification.data.file) == (
        "not-imported",
        "journals/USMF/may.csv",
    )
    assert notification.data.message_id == d365.received[0].message_id
    assert d365.reject_errors[0] in notification.data.error
    assert notification.data.todo
    there = {f"{FAILED}/{name}" for name in contents(account, FAILED)}
    assert there == {notification.data.blob, notification.data.report}


def test_a_held_file_is_told_as_held(bridge: Bridge, d365: Simulator, account: DataAccount) -> None:
    """With what to look for in D365."""
    d365.add_fault("enqueue", "reset-after")
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    (notification,) = notifications(account)
    assert notification.type == "d365-blob-bridge.file.held"
    assert notification.data.external_identifier == d365.received[0].external_id


def test_a_misplaced_file_is_told(bridge: Bridge, account: DataAccount) -> None:
    """Nobody else would look there."""
    intake.import_file(bridge, drop(account, "nobody/may.csv"))
    (notification,) = notifications(account)
    assert notification.data.reason == "no-such-job"


def test_a_file_that_succeeds_is_no_news(bridge: Bridge, account: DataAccount) -> None:
    """Only what someone must act on."""
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    work_queue(bridge)
    assert notifications(account) == []


def test_a_repeated_notification_has_the_same_id(
    bridge: Bridge, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the news and the end of the move tells it twice; whoever takes it can tell."""

    def die(*_: object) -> Any:
        raise KeyboardInterrupt

    name = drop(account, "nobody/may.csv")
    with monkeypatch.context() as patch:
        patch.setattr(outcome, "announce", die)
        with pytest.raises(KeyboardInterrupt):
            intake.import_file(bridge, name)
    outcome.finish(account, only(account, PROCESSING))
    one, two = notifications(account)
    assert one.id == two.id


def test_a_missing_queue_is_made(bridge: Bridge, account: DataAccount) -> None:
    """A file is not left unfiled because nobody made it."""
    queue = account.queue(NOTIFICATIONS_QUEUE)
    queue.delete_queue()
    with pytest.raises(ResourceNotFoundError):
        queue.get_queue_properties()
    intake.import_file(bridge, drop(account, "nobody/may.csv"))
    assert len(notifications(account)) == 1


def test_a_long_error_is_cut_to_fit(bridge: Bridge, d365: Simulator, account: DataAccount) -> None:
    """The report has all of it."""
    d365.reject_errors = ["ä" * 100_000]
    intake.import_file(bridge, drop(account, "journals/may.csv", b"1;REJECT"))
    work_queue(bridge)
    (notification,) = notifications(account)
    assert len(notification.data.error) < 3000
