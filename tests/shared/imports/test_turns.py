"""Ordered jobs: one file at a time in name order, and what a failed one does to those behind it."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.config import jobs
from shared.imports import advance, claim, intake, reconciliation, send, turns
from shared.storage import files, names
from shared.storage.account import FAILED, IMPORTS, PROCESSING, SUCCEEDED, DataAccount
from shared.storage.errors import Conflict
from shared.storage.records import File
from tests.helpers import ORDERED_ID, Events, Later, contents, drop, make_bridge, work_queue

NAMES = ("10 first.csv", "20 second.csv", "30 third.csv")


def ordered(d365: Simulator, account: DataAccount, **changes: object) -> Bridge:
    """A bridge whose job `journals` is ordered."""
    return make_bridge(d365, account, ordered=True, **changes)


def drop_all(account: DataAccount, *data: bytes) -> None:
    """The files of `NAMES`, the last one first."""
    for name, each in reversed(list(zip(NAMES, data or (b"1", b"2", b"3"), strict=True))):
        drop(account, f"journals/{name}", each)


def arrived(d365: Simulator) -> list[str]:
    """The files that D365 took, as they were named when dropped."""
    return [names.unstamped(received.external_id) for received in d365.received]


def test_files_go_one_by_one_in_name_order(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """The last one's event comes first, and still the first one is sent; each next one when it has ended."""
    bridge = ordered(d365, account)
    drop_all(account)
    for name in reversed(NAMES):
        intake.import_file(bridge, f"journals/{name}")
        assert arrived(d365) == [NAMES[0]]
        # Nor is the next one taken yet: one that comes later may go before it.
        assert len(contents(account, PROCESSING)) == 1
    work_queue(bridge)
    assert arrived(d365) == list(NAMES)
    assert len(contents(account, SUCCEEDED)) == 3


def test_the_next_one_may_go_when_one_is_accepted(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """nextAfter accepted: none waits for the end of the one before, and the order stays."""
    bridge = ordered(d365, account, nextAfter="accepted")
    drop_all(account)
    intake.import_file(bridge, f"journals/{NAMES[2]}")
    assert arrived(d365) == list(NAMES)
    assert len(contents(account, PROCESSING)) == 3


@pytest.mark.parametrize("bad", [b"REJECT", b""], ids=["rejected", "empty"])
def test_a_failed_file_lets_the_others_go_on(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, bad: bytes
) -> None:
    """onFailure continue, which is the default."""
    bridge = ordered(d365, account)
    drop_all(account, b"1", bad, b"3")
    later(timedelta(hours=2))  # so long what is empty may get its content
    for name in reversed(NAMES):
        intake.import_file(bridge, f"journals/{name}")
    work_queue(bridge)
    assert arrived(d365)[-1] == NAMES[2]
    assert len(contents(account, SUCCEEDED)) == 2


@pytest.mark.parametrize("bad", [b"REJECT", b""], ids=["rejected", "empty"])
def test_a_failed_file_stops_its_job_until_it_is_gone(
    bridge: Bridge, d365: Simulator, account: DataAccount, bad: bytes, later: Later, events: Events
) -> None:
    """onFailure stop: nothing behind it is sent, however often it is tried, until a person has moved it."""
    bridge = ordered(d365, account, onFailure="stop")
    drop_all(account, b"1", bad, b"3")
    later(timedelta(hours=2))
    for name in NAMES[:2]:
        intake.import_file(bridge, f"journals/{name}")
    work_queue(bridge)
    intake.import_file(bridge, f"journals/{NAMES[2]}")
    reconciliation.reconcile(bridge)
    assert NAMES[2] not in arrived(d365)
    assert list(contents(account, IMPORTS)) == [f"journals/{NAMES[2]}"]
    failed = contents(account, FAILED)
    report = next(text for name, text in failed.items() if name.endswith(".error.json"))
    assert b"The job is stopped" in report
    assert events("job.stopped")
    for name in failed:
        account.blobs.get_blob_client(FAILED, name).delete_blob()
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert arrived(d365)[-1] == NAMES[2]


def test_an_empty_file_keeps_its_place(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Its content may be on its way (SFTP): the others wait for it, and go on when it is whole."""
    bridge = ordered(d365, account)
    drop_all(account, b"", b"2", b"3")
    intake.import_file(bridge, f"journals/{NAMES[2]}")
    reconciliation.reconcile(bridge)
    assert not d365.received
    intake.import_file(bridge, drop(account, f"journals/{NAMES[0]}"))
    work_queue(bridge)
    assert arrived(d365) == list(NAMES)


def test_a_file_of_another_name_stops_nothing(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """It is none of the job's, neither while it may be renamed nor when it has failed."""
    bridge = ordered(d365, account, onFailure="stop", pattern="*.csv")
    drop(account, "journals/00 read me.txt")
    drop_all(account)
    for name in ("00 read me.txt", NAMES[1]):
        intake.import_file(bridge, f"journals/{name}")
    assert arrived(d365) == [NAMES[0]]
    later(timedelta(hours=2))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert arrived(d365) == list(NAMES)
    assert [file.record.reason for file in files.listed(account, FAILED)] == ["no-match"]


def test_a_failure_from_before_the_job_was_ordered_stops_nothing(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Only a file that failed as part of the order holds it up."""
    plain = make_bridge(d365, account)
    intake.import_file(plain, drop(account, "journals/old.csv", b"REJECT"))
    work_queue(plain)
    bridge = ordered(d365, account, onFailure="stop")
    intake.import_file(bridge, drop(account, "journals/new.csv"))
    assert len(d365.received) == 2


def test_a_file_that_d365_does_not_take_now_keeps_its_place(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """429 with a long wait: those behind it wait too."""
    bridge = ordered(d365, account)
    drop_all(account)
    d365.add_fault("enqueue", "answer", status=429, headers={"Retry-After": "600"})
    intake.import_file(bridge, f"journals/{NAMES[0]}")
    intake.import_file(bridge, f"journals/{NAMES[1]}")
    reconciliation.reconcile(bridge)
    assert not d365.received


def test_workers_side_by_side_keep_the_order(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Eight workers, each with an event of its own, on a slow D365: never two at once, none out of order."""
    bridge = ordered(d365, account)
    names = [f"journals/{number:02}.csv" for number in range(8)]
    for name in names:
        drop(account, name, name.encode())
    d365.latency["enqueue"] = 0.1

    def run(name: str) -> None:
        try:
            intake.import_file(bridge, name)
        except Conflict:
            return

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(d365.received) <= 1
    for _ in range(20):
        later(timedelta(seconds=5))  # so long at most one waits that met another
        work_queue(bridge)
        reconciliation.reconcile(bridge)
    assert [f"journals/{each}" for each in arrived(d365)] == names
    assert len(contents(account, SUCCEEDED)) == 8


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({"orderBy": "size"}, "bca"),
        ({"orderBy": "size", "reverseOrder": True}, "acb"),
        ({"reverseOrder": True}, "cba"),
        ({"orderBy": "time"}, "cab"),
        ({"orderBy": "time", "reverseOrder": True}, "bac"),
    ],
    ids=["size", "largest first", "last name first", "time", "newest first"],
)
def test_files_go_in_the_order_that_the_job_says(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    order: dict[str, object],
    expected: str,
    dropped_apart: Callable[[dict[str, bytes]], None],
) -> None:
    """By size or by time, up or down; and so whoever brings the event."""
    bridge = ordered(d365, account, **order)
    dropped_apart({"c": b"22", "a": b"333", "b": b"1"})
    intake.import_file(bridge, "journals/a.csv")
    work_queue(bridge)
    assert [name.split(".")[0] for name in arrived(d365)] == list(expected)


@pytest.fixture
def dropped_apart(
    account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, bytes]], None]:
    """Drops files one after the other, an hour between each: their times are to the second."""
    times: dict[str, datetime] = {}
    file = files._file

    def with_time(container: str, name: str, properties: Any) -> File:
        if container == IMPORTS and name in times:
            properties.last_modified = times[name]
        return file(container, name, properties)

    def drop_them(dropped: dict[str, bytes]) -> None:
        for hour, (name, data) in enumerate(dropped.items()):
            times[drop(account, f"journals/{name}.csv", data)] = datetime(
                2026, 11, 23, hour, tzinfo=UTC
            )
        monkeypatch.setattr(files, "_file", with_time)

    return drop_them


@pytest.mark.parametrize("order_by", ["name", "time", "size"])
def test_a_file_that_another_worker_has_claimed_keeps_its_place(
    bridge: Bridge, d365: Simulator, account: DataAccount, order_by: str
) -> None:
    """Two workers have claimed a file each, and the second is about to send: it lets the first go."""
    bridge = ordered(d365, account, orderBy=order_by)
    job = bridge.settings.jobs.imports[0]
    first, second = (
        claim.claim(bridge, file)
        for name, data in ((NAMES[0], b"1"), (NAMES[1], b"22"))
        if (file := files.find(account, IMPORTS, drop(account, f"journals/{name}", data)))
    )
    assert first
    assert second
    send.send(bridge, job, second)
    assert not d365.received
    send.send(bridge, job, first)
    assert arrived(d365) == [NAMES[0]]


def test_of_claimed_files_the_first_in_order_goes(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """As after a crash of two workers: the order is the job's, not that of the names."""
    bridge = ordered(d365, account, reverseOrder=True)
    job = bridge.settings.jobs.imports[0]
    for name in NAMES:
        file = files.find(account, IMPORTS, drop(account, f"journals/{name}"))
        assert file
        assert claim.claim(bridge, file)
    send.send_next(bridge, job)
    assert arrived(d365) == [NAMES[2]]


def test_a_pause_is_kept_before_each_file(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Counted from when the one before has ended; no event, however many, makes it shorter."""
    bridge = ordered(d365, account, pauseBetweenFiles=60)
    drop_all(account)
    for count in range(1, 4):
        for name in NAMES:
            intake.import_file(bridge, f"journals/{name}")
            reconciliation.reconcile(bridge)
            work_queue(bridge)
        assert len(d365.received) == count - 1
        later(timedelta(seconds=60))
        reconciliation.reconcile(bridge)
        work_queue(bridge)
        assert arrived(d365) == list(NAMES[:count])
        end(account, bridge)
    assert len(contents(account, SUCCEEDED)) == 3


def end(account: DataAccount, bridge: Bridge) -> None:
    """D365 ends what it has, and the bridge learns of it."""
    for _ in range(5):
        for file in files.listed(account, PROCESSING):
            if file.record.state == "sent":
                advance.check_status(bridge, {"file": file.name, "etag": file.etag})


def test_order_settings_need_ordered() -> None:
    """A setting that would do nothing is a mistake."""
    settings = {
        "nextAfter": "accepted",
        "onFailure": "stop",
        "orderBy": "time",
        "reverseOrder": True,
        "pauseBetweenFiles": 5,
    }
    job = {"name": "a", "activityId": ORDERED_ID, **settings}
    raw = json.dumps({"imports": [job]}).encode()
    with pytest.raises(jobs.InvalidJobs) as failed:
        jobs.parse(raw)
    assert [mistake.split(":")[0] for mistake in failed.value.mistakes] == [
        f"imports[0].{setting}" for setting in settings
    ]


def test_a_job_that_stopped_meanwhile_sends_no_other(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker has looked and goes to send the second file; another sends the first, which is refused."""
    bridge = ordered(d365, account, onFailure="stop")
    for name in NAMES[:2]:
        drop(account, f"journals/{name}")
    d365.add_fault("enqueue", "answer", status=400, body='{"Message": "no"}')
    stopping, looked = turns._stopping, list[int]()

    def then_another(at: Bridge, job: jobs.ImportJob) -> Iterator[File]:
        failed = list(stopping(at, job))
        if not looked:
            looked.append(1)
            intake.import_file(bridge, f"journals/{NAMES[0]}")
        return iter(failed)

    monkeypatch.setattr(turns, "_stopping", then_another)
    intake.import_file(bridge, f"journals/{NAMES[1]}")
    assert d365.received == []
    work_queue(bridge)
    assert d365.received == []


def test_what_is_not_named_for_the_job_keeps_nobody_waiting(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Callable[[str], list[Any]]
) -> None:
    """An empty marker that a program writes with each load. An empty file of the job's own does."""
    bridge = ordered(d365, account, pattern="*.csv")
    drop(account, "journals/_SUCCESS", b"")
    intake.import_file(bridge, drop(account, "journals/a.csv"))
    work_queue(bridge)
    assert len(d365.received) == 1
    drop(account, "journals/b.csv", b"")
    intake.import_file(bridge, drop(account, "journals/c.csv"))
    assert len(d365.received) == 1
    assert [each["file"] for each in events("message.ignored")][-1] == "journals/b.csv"
