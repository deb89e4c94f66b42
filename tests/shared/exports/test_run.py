"""An export run: the queues by turns, each to its end, whatever becomes of a message, a job or an offer."""

import io
import json
import random
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from threading import Event, Timer
from typing import Any
from uuid import UUID

import pytest

from local import samples
from local.simulator import Simulator
from shared import clock
from shared.bridge import Bridge
from shared.config import jobs
from shared.config.settings import EXPORT_PARALLELISM
from shared.d365 import DequeuedMessage, Download
from shared.d365.errors import Rejected
from shared.exports import package as packages
from shared.exports import run
from shared.exports.run import Totals, export_packages
from shared.storage.account import EXPORT_JOBS_QUEUE, EXPORTS, DataAccount
from shared.storage.transfer import BLOCK
from tests.helpers import EXPORT_ID, PATIENCE, Events, client_of, contents, wait_for

SMALL = samples.package("small", [samples.Part(samples.VENDORS, 5)])
OTHER = samples.package("other", [samples.Part(samples.VENDORS, 6)])


@pytest.fixture(scope="module")
def large() -> bytes:
    """A package of several blocks."""
    buffer = io.BytesIO(SMALL)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("Large.csv", random.Random(1).randbytes(2 * BLOCK + 99))
    return buffer.getvalue()


def exported(account: DataAccount) -> dict[str, bytes]:
    return contents(account, EXPORTS)


def test_every_package_of_the_queue_is_stored_and_acknowledged(
    bridge: Bridge, d365: Simulator, large: bytes
) -> None:
    """Until the queue is empty; the acknowledgement is the answer as it came (E5)."""
    packages = [d365.add_package(EXPORT_ID, content) for content in (SMALL, large, OTHER)]
    assert export_packages(bridge) == Totals(3, 0)
    assert exported(bridge.account) == {
        f"vendors/{package.correlation_id}.zip": package.content for package in packages
    }
    for package in packages:
        assert package.acknowledgements == [{"asItCame": True, "receipt": package.pop_receipt}]


def test_an_empty_queue_costs_one_request(bridge: Bridge, d365: Simulator) -> None:
    """Most runs find nothing."""
    assert export_packages(bridge) == Totals()
    assert [request.operation for request in d365.requests if request.operation != "token"] == [
        "dequeue"
    ]


def test_a_package_that_fails_keeps_none_of_its_queue_waiting(
    bridge: Bridge, d365: Simulator
) -> None:
    """E3: however many stand behind it."""
    bad = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", "answer", status=404, path=bad.correlation_id)
    good = [d365.add_package(EXPORT_ID, OTHER) for _ in range(3 * EXPORT_PARALLELISM)]
    d365.latency["download"] = 0.05
    assert export_packages(bridge) == Totals(len(good), 1)
    assert [package.acknowledged for package in (bad, *good)] == [0] + [1] * len(good)


def test_an_unknown_activity_id_is_told_and_other_jobs_go_on(
    d365: Simulator, bridge: Bridge, events: Events
) -> None:
    """404: the message says where the id comes from."""
    d365.export_jobs.clear()
    assert export_packages(bridge) == Totals(0, 1)
    (failed,) = events("export.failed")
    assert "404" in failed["error"]
    assert "activity id" in failed["error"]


def test_an_unregistered_application_is_told_what_to_do(
    d365: Simulator, bridge: Bridge, events: Events
) -> None:
    """403: the step to take, in D365's own words."""
    d365.registered = False
    assert export_packages(bridge) == Totals(0, 1)
    assert "Microsoft Entra applications" in events("export.failed")[0]["error"]
    assert events("d365.denied")


def test_a_revoked_token_is_renewed_once(d365: Simulator, bridge: Bridge) -> None:
    """A2: a 401 costs one more token, not the run."""
    export_packages(bridge)
    d365.revoke_tokens()
    d365.add_package(EXPORT_ID, SMALL)
    assert export_packages(bridge) == Totals(1, 0)
    assert d365.count("token") == 2


def test_a_message_that_fails_and_comes_again_at_once_does_not_turn_in_a_circle(
    d365: Simulator, bridge: Bridge
) -> None:
    """Once a run."""
    d365.reoffer_seconds = 0
    d365.add_package(EXPORT_ID, b"")
    assert export_packages(bridge) == Totals(0, 1)
    assert d365.count("download") == packages.DOWNLOADS


def test_two_runs_at_once_give_one_blob_each(bridge: Bridge, d365: Simulator, large: bytes) -> None:
    """The same message to both: one blob; the acknowledgement that comes late is D365's to refuse."""
    d365.reoffer_seconds = 0
    d365.strict_receipts = False
    d365.latency["download"] = 0.2
    package = d365.add_package(EXPORT_ID, large)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: export_packages(bridge), range(2)))
    assert exported(bridge.account) == {f"vendors/{package.correlation_id}.zip": large}
    assert package.acknowledged >= 1


def test_a_download_that_outlasts_the_run_is_given_up(
    bridge: Bridge, d365: Simulator, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host would end the run; we end it first, in good order."""
    package = d365.add_package(EXPORT_ID, large)
    monotonic, download = clock.monotonic, client_of(bridge).download

    def slow(message: DequeuedMessage) -> AbstractContextManager[Download]:
        monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + 27 * 60 + 20)
        return download(message)

    monkeypatch.setattr(client_of(bridge), "download", slow)
    assert export_packages(bridge) == Totals(0, 1)
    assert package.acknowledged == 0
    assert exported(bridge.account) == {}


def test_a_download_that_drips_is_given_up(bridge: Bridge, d365: Simulator) -> None:
    """E6: however little comes at a time, it never outlasts the run."""
    in_a_moment = replace(bridge.settings, function_timeout=timedelta(seconds=2))
    package = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", "drip", bytes=10, seconds=0.1, times=-1)
    assert export_packages(replace(bridge, settings=in_a_moment)) == Totals(0, 1)
    assert (package.acknowledged, exported(bridge.account)) == (0, {})


def test_each_line_of_a_queue_names_its_job(
    bridge: Bridge, d365: Simulator, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing but asking it failed."""
    monkeypatch.setattr(clock, "sleep", lambda _: None)
    d365.add_fault("dequeue", "answer", status=429)
    export_packages(bridge)
    assert [line["job"] for line in events("d365.retry")] == ["vendors"]


def test_a_paused_job_is_not_asked(d365: Simulator, bridge: Bridge) -> None:
    """`enabled: false`."""
    raw = {"exports": [{"name": "vendors", "activityId": EXPORT_ID, "enabled": False}]}
    object.__setattr__(bridge.settings, "jobs", jobs.parse(json.dumps(raw).encode()))
    d365.add_package(EXPORT_ID, SMALL)
    assert export_packages(bridge) == Totals()
    assert d365.count("dequeue") == 0


@pytest.mark.parametrize("at_once", [1, 8])
def test_a_long_queue_uses_all_turns_and_keeps_no_job_waiting(
    d365: Simulator, bridge: Bridge, at_once: int
) -> None:
    """Twelve packages of one job and one of another, three requests each, and the end of each queue seen."""
    other = str(UUID(int=5))
    raw = {
        "exports": [
            {"name": "many", "activityId": EXPORT_ID},
            {"name": "one", "activityId": other},
        ]
    }
    object.__setattr__(bridge.settings, "jobs", jobs.parse(json.dumps(raw).encode()))
    object.__setattr__(bridge.settings, "export_parallelism", at_once)
    d365.latency["*"] = 0.02
    packages = [d365.add_package(EXPORT_ID, SMALL) for _ in range(12)]
    last = d365.add_package(other, OTHER)
    assert export_packages(bridge) == Totals(13, 0)
    assert all(package.acknowledged == 1 for package in [*packages, last])
    if at_once == 1:  # more at once overtake one another as the machine has it
        order = [r.path.rsplit("/", 1)[-1] for r in d365.requests if r.operation == "dequeue"]
        assert order[:4] == [EXPORT_ID, other, EXPORT_ID, other]
    empty = d365.count("dequeue") - 13
    assert 2 <= empty <= 2 + at_once


def test_what_nobody_expected_ends_the_job_and_not_the_run(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """A mistake of ours is reported like any other failure."""
    d365.add_package(EXPORT_ID, SMALL)
    monkeypatch.setattr(packages, "deliver", lambda *_: 1 / 0)
    assert export_packages(bridge) == Totals(0, 1)
    assert events("export.failed")[0]["error"] == "division by zero"


def test_what_is_reported_belongs_to_its_invocation(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker knows by the context which invocation a log line is of: the run's threads carry it."""
    invocation: ContextVar[str] = ContextVar("invocation")
    invocation.set("this one")
    seen: list[str | None] = []
    for module in (run, packages):
        monkeypatch.setattr(module, "emit", lambda *_, **__: seen.append(invocation.get(None)))
    for _ in range(3):
        d365.add_package(EXPORT_ID, SMALL)
    export_packages(bridge)
    assert len(seen) == 7
    assert set(seen) == {"this one"}


# -- several offers of one message ----------------------------------------------------------------


def two_at_once(bridge: Bridge) -> Bridge:
    return replace(bridge, settings=replace(bridge.settings, export_parallelism=2))


def test_of_several_pop_receipts_the_newest_is_good(bridge: Bridge, d365: Simulator) -> None:
    """D365 offers the message again while it is served: its first receipt is void then."""
    d365.reoffer_seconds = 0
    d365.latency["download"] = 0.3
    package = d365.add_package(EXPORT_ID, SMALL)
    assert export_packages(two_at_once(bridge)) == Totals(1, 0)
    assert package.offered > 1
    assert package.acknowledged == 1


def test_a_message_that_is_being_offered_again_is_waited_for(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest receipt is on its way, in the answer to a dequeue."""
    d365.reoffer_seconds = 0
    package = d365.add_package(EXPORT_ID, SMALL)
    refused, offered = Event(), Event()
    dequeue, acknowledge = client_of(bridge).dequeue, client_of(bridge).acknowledge

    def slow_dequeue(activity_id: str) -> DequeuedMessage | None:
        message = dequeue(activity_id)
        if package.offered == 2 and not refused.is_set():
            offered.set()
            assert refused.wait(PATIENCE)
        return message

    def watched_acknowledge(activity_id: str, message: DequeuedMessage) -> None:
        assert offered.wait(PATIENCE)
        try:
            acknowledge(activity_id, message)
        except Rejected:
            # The answer to the dequeue comes a moment after the refusal.
            Timer(0.2, refused.set).start()
            raise

    monkeypatch.setattr(client_of(bridge), "dequeue", slow_dequeue)
    monkeypatch.setattr(client_of(bridge), "acknowledge", watched_acknowledge)
    assert export_packages(two_at_once(bridge)) == Totals(1, 0)
    assert package.acknowledged == 1


def test_what_is_offered_again_at_once_is_not_asked_for_by_every_turn(
    bridge: Bridge, d365: Simulator
) -> None:
    """One turn is enough for a queue that offers what is being served."""
    d365.reoffer_seconds = 0
    d365.latency["download"] = 0.3
    offered = [d365.add_package(EXPORT_ID, with_number(n)) for n in range(5)]
    assert export_packages(bridge).failed == 0
    assert all(package.acknowledged for package in offered)
    assert d365.count("dequeue") <= len(offered) + 3


def test_two_messages_under_one_id_are_two_packages(bridge: Bridge, d365: Simulator) -> None:
    """Served side by side, each is stored, and acknowledged for itself."""
    d365.latency["download"] = 0.2
    both = [
        d365.add_package(EXPORT_ID, content, correlation_id="one") for content in (SMALL, OTHER)
    ]
    assert export_packages(bridge) == Totals(2, 0)
    assert sorted(exported(bridge.account).values()) == sorted([SMALL, OTHER])
    assert [package.acknowledged for package in both] == [1, 1]


def test_messages_without_an_id_are_told_apart_by_their_locations(
    bridge: Bridge, d365: Simulator
) -> None:
    """By path and query."""
    for content in (SMALL, OTHER):
        d365.add_package(EXPORT_ID, content, correlation_id="")
    assert export_packages(bridge) == Totals(2, 0)
    names = exported(bridge.account)
    assert sorted(names.values()) == sorted([SMALL, OTHER])
    assert all(name.count(".") == 1 for name in names)


# -- many jobs ------------------------------------------------------------------------------------


def with_jobs(
    bridge: Bridge, d365: Simulator, count: int, name: str = "job", **changes: Any
) -> Bridge:
    """A bridge with so many export jobs, named by their numbers."""
    ids = [str(UUID(int=n + 1)) for n in range(count)]
    for id_ in ids:
        d365.add_export_job(id_)
    raw = {"exports": [{"name": f"{name}-{n}", "activityId": id_} for n, id_ in enumerate(ids)]}
    settings = replace(bridge.settings, jobs=jobs.parse(json.dumps(raw).encode()), **changes)
    return replace(bridge, settings=settings)


def activity_id(number: int) -> str:
    return str(UUID(int=number + 1))


def held_up(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> tuple[Event, Event]:
    """Let the downloads of `job-0` wait: the events that one waits, and that all may go on."""
    waiting, go_on = Event(), Event()
    download = client_of(bridge).download

    def slow(message: DequeuedMessage, start: int = 0) -> AbstractContextManager[Download]:
        if activity_id(0) in message.download_location:
            waiting.set()
            assert go_on.wait(PATIENCE)
        return download(message, start)

    monkeypatch.setattr(client_of(bridge), "download", slow)
    return waiting, go_on


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_slow_package_holds_up_no_other_job(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """While a run lasts, each queue is asked again at the schedule's pace, whoever has all the slots."""
    monkeypatch.setenv("EXPORT_SCHEDULE", "* * * * * *")
    monkeypatch.setattr(run, "LONG", 0.1)
    two = with_jobs(bridge, d365, 2, export_parallelism=at_once)
    waiting, go_on = held_up(two, monkeypatch)
    slow = [d365.add_package(activity_id(0), with_number(n)) for n in range(at_once)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(export_packages, two)
        try:
            assert waiting.wait(PATIENCE)
            wait_for(lambda: d365.count("dequeue") > at_once)
            payment = d365.add_package(activity_id(1), SMALL)
            wait_for(lambda: payment.acknowledged == 1)
            assert not any(package.acknowledged for package in slow)
        finally:
            go_on.set()
        assert running.result() == Totals(1 + at_once, 0)


def test_a_job_is_asked_again_while_its_own_package_is_under_way(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long transfer takes one place, and not the queue."""
    monkeypatch.setenv("EXPORT_SCHEDULE", "* * * * * *")
    one = with_jobs(bridge, d365, 1)
    waiting, go_on = held_up(one, monkeypatch)
    d365.add_package(activity_id(0), SMALL)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(export_packages, one)
        try:
            assert waiting.wait(PATIENCE)
            wait_for(lambda: d365.count("dequeue") == 2)
            later = d365.add_package(activity_id(0), OTHER)
            wait_for(lambda: later.offered == 1)
        finally:
            go_on.set()
        assert running.result() == Totals(2, 0)


def with_number(number: int) -> bytes:
    return samples.package(f"p{number}", [samples.Part(samples.VENDORS, 7 + number)])


def handed_on(bridge: Bridge) -> list[str]:
    """The jobs for which there is a message, which are taken from the queue."""
    queue = bridge.account.queue(EXPORT_JOBS_QUEUE)
    names = []
    for message in queue.receive_messages():
        names.append(json.loads(message.content)["job"])
        queue.delete_message(message)
    return sorted(names)


def test_what_a_run_has_no_time_for_is_said_and_handed_on(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """A queue that was not asked, or that has more, is not finished; another invocation goes on at once."""
    three = with_jobs(bridge, d365, 3, export_parallelism=1)
    for number in range(3):
        d365.add_package(activity_id(number), SMALL)
    monotonic, serve = clock.monotonic, packages.serve

    def slow(*args: Any) -> Any:
        outcome = serve(*args)
        monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + 19 * 60)
        return outcome

    monkeypatch.setattr(packages, "serve", slow)
    assert export_packages(three) == Totals(1, 0)
    unfinished = {event["job"]: event["packages"] for event in events("export.unfinished")}
    assert sorted(unfinished.values()) == [0, 0, 1]
    assert events("export.finished") == []
    assert handed_on(three) == ["job-0", "job-1", "job-2"]
    monkeypatch.setattr(packages, "serve", serve)
    totals = [run.export_job(three, {"job": name}) for name in unfinished]
    assert sum(each.packages for each in totals) == 2
    assert sorted(event["job"] for event in events("export.finished")) == sorted(unfinished)
    assert all(package.acknowledged == 1 for package in d365.packages)
    assert handed_on(three) == []


def test_a_run_begins_where_the_last_one_ended(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is not always the same jobs that are left."""
    three = with_jobs(bridge, d365, 3, "rotated", export_parallelism=1)
    monotonic, dequeue = clock.monotonic, client_of(three).dequeue
    activity_ids: list[str] = []

    def slow(activity_id: str) -> DequeuedMessage | None:
        activity_ids.append(activity_id)
        monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + len(activity_ids) * 19 * 60)
        return dequeue(activity_id)

    monkeypatch.setattr(client_of(three), "dequeue", slow)
    for _ in range(3):
        export_packages(three)
    assert sorted(activity_ids) == [activity_id(number) for number in range(3)]


@pytest.mark.parametrize("enabled", [True, False])
def test_a_message_of_a_job_that_is_gone_is_left(
    bridge: Bridge, d365: Simulator, enabled: bool
) -> None:
    """It was paused, or taken out of the jobs file, since the message was sent."""
    raw = {"exports": [{"name": "vendors", "activityId": EXPORT_ID, "enabled": enabled}]}
    settings = replace(bridge.settings, jobs=jobs.parse(json.dumps(raw).encode()))
    name = "other" if enabled else "vendors"
    assert run.export_job(replace(bridge, settings=settings), {"job": name}) == Totals()
    assert d365.count("dequeue") == 0


def test_an_end_that_can_not_be_reported_does_not_hang_the_run(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with that error."""
    three = with_jobs(bridge, d365, 3)

    def failing(event: str, *_: object, **__: object) -> None:
        if event == "export.finished":
            raise OSError("no log")

    monkeypatch.setattr(run, "emit", failing)
    with pytest.raises(OSError, match="no log"):
        export_packages(three)


def test_no_job_waits_for_the_line_that_tells_of_another(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event goes to the journal as well, and storage may be slow: no lock is held meanwhile."""
    two = with_jobs(bridge, d365, 2)
    package = d365.add_package(activity_id(1), SMALL)
    d365.latency["download"] = 0.3
    signal = Event()

    def slow(event: str, *_: object, **fields: object) -> None:
        if event == "export.finished" and fields["job"] == "job-0":
            wait_for(lambda: package.acknowledged == 1)
            signal.set()

    monkeypatch.setattr(run, "emit", slow)
    assert export_packages(two) == Totals(1, 0)
    assert signal.is_set()


def test_a_turn_that_hangs_does_not_keep_the_run_from_its_end(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """Whatever it hangs in."""
    soon = with_jobs(bridge, d365, 2, function_timeout=timedelta(seconds=2))
    d365.add_package(activity_id(1), SMALL)
    go_on = Event()
    dequeue = client_of(soon).dequeue

    def hanging(id_: str) -> DequeuedMessage | None:
        if id_ == activity_id(0):
            go_on.wait(PATIENCE)
        return dequeue(id_)

    monkeypatch.setattr(client_of(soon), "dequeue", hanging)
    try:
        assert export_packages(soon).packages == 1
        assert not go_on.is_set()
        assert [event["job"] for event in events("export.failed")] == ["job-0"]
    finally:
        go_on.set()
