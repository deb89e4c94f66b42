"""A worker died between a copy and the delete that belongs to it: the file ends in one place, and truly.

What comes after the crash is made to differ from what came before it (a mended jobs file, a bad moment of
D365's), since a repetition of the same would hide which of the two ends stands.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.config import jobs
from shared.imports import advance, claim, intake, outcome, reconciliation, schedule
from shared.operations import actions
from shared.storage import files
from shared.storage.account import (
    FAILED,
    IMPORTS,
    NOTIFICATIONS_QUEUE,
    PROCESSING,
    STATUS_QUEUE,
    SUCCEEDED,
    DataAccount,
)
from shared.storage.errors import Conflict
from shared.storage.records import File
from tests.helpers import Later, drop, make_bridge, only, report, work_queue


class Dies(Protocol):
    """Does a step up to a delete."""

    def __call__(self, step: Callable[[], object], after: int = 0) -> None: ...


MISSED = timedelta(minutes=6)


class Died(BaseException):
    """As SIGKILL: nothing of ours catches it."""


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Dies:
    """Do a step up to a delete of a blob: its first, or as many later."""

    def until_the_delete(step: Callable[[], object], after: int = 0) -> None:
        delete, deletes = files.delete, list[int]()

        def die(account: DataAccount, file: File) -> bool:
            if len(deletes) == after:
                raise Died
            deletes.append(1)
            return delete(account, file)

        with monkeypatch.context() as patch:
            patch.setattr(files, "delete", die)
            with pytest.raises(Died):
                step()

    return until_the_delete


def places(account: DataAccount) -> list[str]:
    """Where files lie."""
    containers = (IMPORTS, PROCESSING, SUCCEEDED, FAILED)
    return [file.container for name in containers for file in files.listed(account, name)]


def without_jobs(bridge: Bridge) -> Bridge:
    """As after a deployment with a jobs file from which the jobs are gone."""
    return replace(bridge, settings=replace(bridge.settings, jobs=jobs.Jobs()))


def settle(bridge: Bridge, account: DataAccount, later: Later) -> None:
    """The dead worker's message is lost too; reconcile and the queue do what is left to do."""
    account.queue(STATUS_QUEUE).clear_messages()
    for _ in range(2):
        later(MISSED)
        reconciliation.reconcile(bridge)
        work_queue(bridge)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_claimed_file_filed_as_failed_is_not_sent_after_all(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, dies: Dies, ordered: bool
) -> None:
    """Its job was gone, and is back: whoever reads the report sends the file again, so we must not."""
    bridge = make_bridge(d365, account, ordered=ordered)
    dropped = files.find(account, IMPORTS, drop(account, "journals/may.csv"))
    assert dropped
    claimed = claim.claim(bridge, dropped)
    assert claimed
    schedule.check_file(bridge, claimed, timedelta(0))
    dies(lambda: work_queue(without_jobs(bridge)), after=1)
    settle(bridge, account, later)
    assert places(account) == [FAILED]
    assert (report(account)["reason"], d365.received) == ("no-such-job", [])


def test_a_refused_file_is_not_sent_after_all(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, dies: Dies
) -> None:
    """The same before it was claimed."""
    name = drop(account, "journals/may.csv")
    dies(lambda: intake.import_file(without_jobs(bridge), name), after=1)
    settle(bridge, account, later)
    assert places(account) == [FAILED]
    assert (report(account)["reason"], d365.received) == ("no-such-job", [])


def test_a_file_that_was_only_claimed_is_decided_by_who_goes_on(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, dies: Dies
) -> None:
    """An instance with an older jobs file died before it could refuse it: nothing was said of it yet."""
    name = drop(account, "journals/may.csv")
    dies(lambda: intake.import_file(without_jobs(bridge), name))
    settle(bridge, account, later)
    assert places(account) == [SUCCEEDED]
    assert len(d365.received) == 1


def test_two_instances_that_differ_about_a_file_never_both_act(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has a jobs file without the job; while it refuses the file, the other is sending it."""
    name = drop(account, "journals/may.csv")
    fail = outcome.fail

    def after_the_other_has_sent(*args: Any, **kw: Any) -> None:
        file = only(account, PROCESSING)
        monkeypatch.setattr(outcome, "fail", fail)
        advance.check_status(bridge, {"file": file.name, "etag": file.etag})
        fail(*args, **kw)

    monkeypatch.setattr(outcome, "fail", after_the_other_has_sent)
    with suppress(Conflict):
        intake.import_file(without_jobs(bridge), name)
    work_queue(bridge)
    assert len(d365.received) == 1
    assert places(account) == [SUCCEEDED]
    assert not list(account.queue(NOTIFICATIONS_QUEUE).peek_messages())


def test_a_file_that_succeeded_is_never_given_up(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, dies: Dies
) -> None:
    """D365 can't be asked when the worker is back; but what it said is written down."""
    d365.statuses = ("Processed",)
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    dies(lambda: work_queue(bridge))
    assert places(account) == [PROCESSING, SUCCEEDED]
    d365.add_fault("message_status", "answer", status=503, times=-1)
    settle(bridge, account, later)
    assert places(account) == [SUCCEEDED]


def test_a_held_file_that_was_received_is_held_no_longer(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, dies: Dies
) -> None:
    """It stopped its job, and must not for ever."""
    bridge = make_bridge(d365, account, ordered=True, onFailure="stop")
    d365.statuses = ("Processed",)
    d365.add_fault("enqueue", "reset-after")
    intake.import_file(bridge, drop(account, "journals/10.csv"))
    drop(account, "journals/20.csv")
    held = only(account, FAILED)
    action = actions.Action(held.name, held.etag, "me", "found", d365.received[0].message_id)
    dies(lambda: actions.receive(bridge, action))
    settle(bridge, account, later)
    assert places(account) == [SUCCEEDED, SUCCEEDED]
    assert len(d365.received) == 2


@pytest.mark.parametrize("stops", ["continue", "stop"])
def test_a_resent_file_is_not_left_under_failed(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, dies: Dies, stops: str
) -> None:
    """It has a new version, on its way; and what it stopped goes on."""
    bridge = make_bridge(d365, account, ordered=True, onFailure=stops)
    d365.add_fault("enqueue", "answer", status=400, body='{"Message": "no"}')
    intake.import_file(bridge, drop(account, "journals/10.csv"))
    failed = only(account, FAILED)
    action = actions.Action(failed.name, failed.etag, "me", "mended")
    dies(lambda: actions.resend(bridge, action))
    settle(bridge, account, later)
    assert places(account) == [SUCCEEDED]
    assert len(d365.received) == 1
