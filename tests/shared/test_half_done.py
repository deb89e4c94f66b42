"""A worker died between a copy and the delete that belongs to it: the file ends in one place, and truly.

What comes after the crash is made to differ from what came before it (a mended jobs file, a bad moment of
D365's), since a repetition of the same would hide which of the two ends stands.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from local.simulator import Simulator
from shared import blobs, importing, jobs, reconciling, replaying
from shared.blobs import DataAccount
from shared.bridge import Bridge
from tests.conftest import drop, make_bridge, only, report, work_queue

type Later = Callable[[timedelta], None]
type Dies = Callable[[Callable[[], object]], None]

MISSED = timedelta(minutes=6)


class Died(BaseException):
    """As SIGKILL: nothing of ours catches it."""


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Dies:
    """Do a step up to its first delete of a blob."""

    def until_the_delete(step: Callable[[], object]) -> None:
        def die(*_: object) -> None:
            raise Died

        with monkeypatch.context() as patch:
            patch.setattr(blobs, "_delete", die)
            with pytest.raises(Died):
                step()

    return until_the_delete


def places(account: DataAccount) -> list[str]:
    """Where files lie."""
    containers = (blobs.IMPORTS, blobs.PROCESSING, blobs.SUCCEEDED, blobs.FAILED)
    return [found.container for name in containers for found in blobs.listed(account, name)]


def without_jobs(bridge: Bridge) -> Bridge:
    """As after a deployment with a jobs file from which the jobs are gone."""
    return replace(bridge, settings=replace(bridge.settings, jobs=jobs.Jobs()))


def settle(bridge: Bridge, account: DataAccount, later: Later) -> None:
    """The dead worker's message is lost too; reconcile and the queue do what is left to do."""
    account.queue(blobs.STATUS_QUEUE).clear_messages()
    for _ in range(2):
        later(MISSED)
        reconciling.reconcile(bridge)
        work_queue(bridge)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_claimed_file_filed_as_failed_is_not_sent_after_all(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    dies: Dies,
    ordered: bool,
) -> None:
    """Its job was gone, and is back: whoever reads the report sends the file again, so we must not."""
    bridge = make_bridge(d365, account, ordered=ordered)
    dropped = blobs.find(account, blobs.IMPORTS, drop(account, "journals/may.csv"))
    assert dropped
    claimed = importing.claim(bridge, dropped, bridge.settings.jobs.imports[0])
    assert claimed
    importing.look_again(bridge, claimed, timedelta(0))
    dies(lambda: work_queue(without_jobs(bridge)))
    settle(bridge, account, later)
    assert places(account) == [blobs.FAILED]
    assert (report(account)["reason"], d365.received) == ("no-such-job", [])


def test_a_refused_file_is_not_sent_after_all(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    dies: Dies,
) -> None:
    """The same before it was claimed."""
    name = drop(account, "journals/may.csv")
    dies(lambda: importing.import_file(without_jobs(bridge), name))
    settle(bridge, account, later)
    assert places(account) == [blobs.FAILED]
    assert (report(account)["reason"], d365.received) == ("no-such-job", [])


def test_a_file_that_succeeded_is_never_given_up(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    dies: Dies,
) -> None:
    """D365 took three days, and can't be asked when the worker is back."""
    d365.statuses = ("Processed",)
    importing.import_file(bridge, drop(account, "journals/may.csv"))
    later(timedelta(days=3))
    file = only(account, blobs.PROCESSING)
    dies(lambda: work_queue(bridge))
    d365.add_fault("message_status", "answer", status=503, times=4)
    # The message comes again before reconcile has looked.
    account.queue(blobs.STATUS_QUEUE).clear_messages()
    importing.look_again(bridge, file, timedelta(0))
    work_queue(bridge)
    assert places(account) == [blobs.SUCCEEDED]


def test_a_held_file_that_was_received_is_held_no_longer(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    dies: Dies,
) -> None:
    """It stopped its job, and must not for ever."""
    bridge = make_bridge(d365, account, ordered=True, onFailure="stop")
    d365.statuses = ("Processed",)
    d365.add_fault("enqueue", "reset-after")
    importing.import_file(bridge, drop(account, "journals/10.csv"))
    drop(account, "journals/20.csv")
    held = only(account, blobs.FAILED)
    order = replaying.Order(held.name, held.etag, "me", "found", d365.received[0].message_id)
    dies(lambda: replaying.receive(bridge, order))
    settle(bridge, account, later)
    assert places(account) == [blobs.SUCCEEDED, blobs.SUCCEEDED]
    assert len(d365.received) == 2


@pytest.mark.parametrize("stops", ["continue", "stop"])
def test_a_file_that_was_sent_again_is_not_left_under_failed(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    dies: Dies,
    stops: str,
) -> None:
    """It has a new version, on its way; and what it stopped goes on."""
    bridge = make_bridge(d365, account, ordered=True, onFailure=stops)
    d365.add_fault("enqueue", "answer", status=400, body='{"Message": "no"}')
    importing.import_file(bridge, drop(account, "journals/10.csv"))
    failed = only(account, blobs.FAILED)
    order = replaying.Order(failed.name, failed.etag, "me", "mended")
    dies(lambda: replaying.resend(bridge, order))
    settle(bridge, account, later)
    assert places(account) == [blobs.SUCCEEDED]
    assert len(d365.received) == 1
