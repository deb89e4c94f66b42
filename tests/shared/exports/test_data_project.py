"""Exports of data projects: each due time once, fetched to its end, and every end is told."""

import io
import itertools
import json
import random
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.storage.blob import BlobClient

from local import samples
from local.simulator import Simulator
from local.simulator.executions import Execution as D365Execution
from shared import clock
from shared.bridge import Bridge
from shared.config import jobs
from shared.d365 import transport
from shared.exports import data_project, deliveries, execution, handover
from shared.exports.execution import Execution
from shared.exports.run import export_job, export_packages
from shared.operations import actions, health, views
from shared.operations.actions import Action, NotDone
from shared.storage import block_copy
from shared.storage.account import DELIVERED, EXPORT_JOBS_QUEUE, EXPORTS, STATE
from tests.helpers import Events, client_of, contents

PROJECT = "Vendors out"
RAW = {
    "name": "suppliers",
    "api": "package",
    "dataProject": PROJECT,
    "schedule": "0 0 2 * * *",
    "company": "USMF",
}
NIGHT = datetime(2030, 5, 17, 2, tzinfo=UTC)
"""A due time."""


class Clock:
    """The app's clock, which a test moves on."""

    def __init__(self) -> None:
        self.now = NIGHT - timedelta(hours=12)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Noon before the night."""
    fake_clock = Clock()
    monkeypatch.setattr(clock, "now", fake_clock)
    return fake_clock


@pytest.fixture
def project(
    bridge: Bridge, d365: Simulator, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> Bridge:
    """A bridge whose job exports a data project each night; its messages are visible at once."""
    d365.projects[PROJECT] = "plain"
    block_copy._refused.clear()
    return with_visible(with_job(bridge), monkeypatch)


def with_job(bridge: Bridge, **changes: object) -> Bridge:
    text = json.dumps({"exports": [{**RAW, **changes}]})
    return replace(bridge, settings=replace(bridge.settings, jobs=jobs.parse(text.encode())))


def work(bridge: Bridge, rounds: int = 12) -> None:
    """Play the timer once, then the queue trigger until no message is left, or so often."""
    export_packages(bridge)
    queue = bridge.account.queue(EXPORT_JOBS_QUEUE)
    for _ in range(rounds):
        messages = list(queue.receive_messages(visibility_timeout=30))
        if not messages:
            return
        for message in messages:
            queue.delete_message(message)
            export_job(bridge, json.loads(message.content))


def state(bridge: Bridge) -> Execution:
    execution_and_etag = execution.read(bridge.account, "suppliers")
    assert execution_and_etag
    return execution_and_etag[0]


def due(bridge: Bridge, time: Clock) -> None:
    """The job is known to the app, and then its time comes."""
    export_packages(bridge)
    time.now = NIGHT + timedelta(minutes=1)


def stored(bridge: Bridge) -> dict[str, bytes]:
    return contents(bridge.account, EXPORTS)


def content_of(d365_execution: D365Execution) -> bytes:
    assert isinstance(d365_execution.content, bytes)
    return d365_execution.content


def expected(d365: Simulator) -> dict[str, bytes]:
    """What is to lie in `exports`: each package that D365 made, under its execution's id."""
    return {f"suppliers/{each.execution_id}.zip": content_of(each) for each in d365.executions}


# -- due times ------------------------------------------------------------------------------------


def test_a_due_time_is_exported_once(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    """However often the timer looks: one execution, its package under the execution's id."""
    due(project, time)
    for _ in range(3):
        work(project)
        time.now += timedelta(minutes=5)
    assert len(d365.executions) == 1
    assert stored(project) == expected(d365)
    (d365_execution,) = d365.executions
    assert d365_execution.execution_id.startswith("suppliers-20300517T020000Z-")
    (event,) = events("execution.stored")
    assert (event["blob"], event["moved"]) == (
        f"suppliers/{d365_execution.execution_id}.zip",
        "app",
    )
    (noted,) = execution.last(project.account, "suppliers", 10)
    assert (noted.executionid, noted.outcome, noted.due) == (
        d365_execution.execution_id,
        "stored",
        clock.text(NIGHT),
    )


def test_a_new_job_waits_for_its_first_due_time(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    """What was due before the app knew the job is not made up for."""
    work(project)
    time.now = NIGHT - timedelta(minutes=1)
    work(project)
    assert d365.executions == []
    time.now = NIGHT
    work(project)
    assert len(d365.executions) == 1


def test_each_night_has_an_execution_of_its_own(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    due(project, time)
    for _ in range(3):
        work(project)
        time.now += timedelta(days=1)
    assert [each.execution_id[10:18] for each in d365.executions] == [
        "20300517",
        "20300518",
        "20300519",
    ]
    assert stored(project) == expected(d365)


def test_times_that_passed_unseen_are_made_up_for_by_one_export(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    """After three days without the app the latest is exported."""
    due(project, time)
    time.now = NIGHT + timedelta(days=3, hours=4)
    work(project)
    assert [each.execution_id[10:18] for each in d365.executions] == ["20300520"]


def test_a_time_that_comes_while_an_execution_runs_waits_for_its_end(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    """A data project runs one execution at a time."""
    d365.package_api.statuses = ("Executing",)
    due(project, time)
    work(project)
    time.now += timedelta(days=1)
    work(project)
    assert len(d365.executions) == 1
    d365.executions[0].statuses.append("Succeeded")
    d365.executions[0].statuses.popleft()
    d365.package_api.statuses = ("Succeeded",)
    time.now += timedelta(hours=1)
    work(project)
    assert len(d365.executions) == 2
    assert stored(project) == expected(d365)


def test_a_paused_job_is_not_exported(project: Bridge, d365: Simulator, time: Clock) -> None:
    due(project, time)
    work(with_job(project, enabled=False))
    assert d365.executions == []
    work(project)
    assert len(d365.executions) == 1


def test_what_is_asked_for_is_what_the_job_says(
    project: Bridge, d365: Simulator, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parameters, in the order of the client that is known to work."""
    bodies: list[dict[str, Any]] = []
    packages = client_of(project).packages
    call = packages._transport.call

    def note(operation: str, method: str, path: str, body: bytes, *rest: Any) -> Any:
        if operation == "ExportToPackage":
            bodies.append(json.loads(body))
        return call(operation, method, path, body, *rest)

    monkeypatch.setattr(packages._transport, "call", note)
    due(project, time)
    work(with_job(project, reExecute=True))
    (body,) = bodies
    id_ = d365.executions[0].execution_id
    assert list(body.items()) == [
        ("definitionGroupId", PROJECT),
        ("packageName", id_),
        ("executionId", id_),
        ("reExecute", True),
        ("legalEntityId", "USMF"),
    ]


# -- lost answers and crashes ---------------------------------------------------------------------


def test_an_export_whose_answer_was_lost_is_asked_after(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    """D365 has it under the id that was written down before: it is not begun again."""
    d365.add_fault("export_package", "reset-after")
    due(project, time)
    work(project)
    assert d365.count("export_package") == 1
    assert stored(project) == expected(d365)


def test_an_export_that_did_not_reach_d365_is_asked_for_again_with_the_same_id(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    """But only once D365 had an hour in which to know it."""
    d365.add_fault("export_package", "answer", status=504, body="<html>Gateway</html>")
    due(project, time)
    work(project)
    our_execution = state(project)
    assert (our_execution.state, d365.count("export_package")) == ("asking", 1)
    time.now += timedelta(minutes=59)
    work(project)
    assert d365.count("export_package") == 1
    time.now += timedelta(minutes=2)
    work(project)
    (d365_execution,) = d365.executions
    assert d365_execution.execution_id == our_execution.executionid
    assert stored(project) == expected(d365)


def ask_in_vain(project: Bridge, d365: Simulator, time: Clock) -> None:
    """Ask for an export: the answer is lost, and D365 hides for an hour that it has it."""
    d365.package_api.hidden_seconds = d365.package_api.hidden_details_seconds = 3600
    d365.add_fault("export_package", "reset-after")
    due(project, time)
    work(project)


def test_an_export_that_d365_hides_for_a_minute_is_not_asked_for_again(
    project: Bridge, d365: Simulator, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not found proves nothing at first, neither after a lost answer nor after a 200."""
    ask_in_vain(project, d365, time)
    time.now += timedelta(minutes=1)
    work(project)
    assert (state(project).state, d365.count("export_package")) == ("asking", 1)
    d365.executions[0].visible_at = 0.0
    time.now += timedelta(minutes=9)
    work(project)
    assert d365.count("export_package") == 1
    assert stored(project) == expected(d365)


def test_the_second_witness_of_an_export_is_asked_too(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    """D365's entity of executions knows one whose status it does not find."""
    d365.package_api.hidden_seconds = 3600
    d365.add_fault("export_package", "reset-after")
    due(project, time)
    work(project)
    assert (state(project).state, d365.count("export_package")) == ("running", 1)


def test_an_export_that_came_through_after_all_is_not_rejected(
    project: Bridge, d365: Simulator, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D365 hid it for an hour, and turns the second request down, since it has that id."""
    ask_in_vain(project, d365, time)
    call = transport.Transport.call

    def show(self: transport.Transport, operation: str, *rest: Any) -> Any:
        if operation == "ExportToPackage":
            d365.executions[0].visible_at = 0.0
        elif d365.count("export_package") == 1:
            d365.executions[0].visible_at = 1e12
        return call(self, operation, *rest)

    monkeypatch.setattr(transport.Transport, "call", show)
    time.now += timedelta(minutes=61)
    work(project)
    assert d365.count("export_package") == 2
    assert (state(project).outcome, stored(project)) == ("stored", expected(d365))


def test_an_export_that_d365_has_begun_is_not_rejected(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    """Whatever the answer to the first request says, D365 knows the execution."""
    body = '{"error": {"innererror": {"message": "No."}}}'
    d365.add_fault("export_package", "answer-after", status=400, body=body)
    due(project, time)
    work(project)
    assert d365.count("export_package") == 1
    assert (state(project).outcome, stored(project)) == ("stored", expected(d365))


def test_an_export_that_vanishes_is_reported(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    """D365 took it and knows nothing of it an hour later. The next night has a fresh id."""
    d365.package_api.vanishing = 1
    due(project, time)
    work(project)
    assert events("execution.failed") == []
    time.now += timedelta(hours=1, minutes=1)
    work(project)
    (failed,) = events("execution.failed")
    assert "knows nothing of it" in failed["error"]
    assert "ResetVersionToken" in failed["error"]
    assert [each["job"] for each in events("export.failed")] == ["suppliers"]
    time.now += timedelta(days=1)
    work(project)
    assert stored(project) == expected(d365)
    assert len(d365.executions) == 1


def test_a_lost_queue_message_is_found_by_the_timer(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    """Five minutes after its time."""
    due(project, time)
    work(project, rounds=1)
    assert state(project).state == "running"
    queue = project.account.queue(EXPORT_JOBS_QUEUE)
    queue.clear_messages()
    time.now += timedelta(minutes=4)
    work(project)
    assert stored(project) == {}
    time.now += timedelta(minutes=2)
    work(project)
    assert stored(project) == expected(d365)


def test_of_two_workers_one_goes_on(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    """The other one does nothing."""
    due(project, time)
    with execution.held(project.account, "suppliers"):
        work(project)
    assert d365.executions == []
    assert events("message.ignored")


def test_a_package_that_a_reader_took_is_not_stored_again(
    project: Bridge, d365: Simulator, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after it was stored and before that was written down (E7)."""
    due(project, time)
    monkeypatch.setattr(data_project, "_end", crash)
    with pytest.raises(Crashed):
        work(project)
    assert stored(project) == expected(d365)
    project.account.blobs.get_container_client(EXPORTS).delete_blob(next(iter(stored(project))))
    monkeypatch.undo()
    monkeypatch.setattr(clock, "now", time)
    time.now += timedelta(minutes=11)
    work(with_visible(project, monkeypatch))
    assert stored(project) == {}
    assert state(project).outcome == "stored"


class Crashed(BaseException):
    """The worker is gone."""


def crash(*_: object, **__: object) -> None:
    raise Crashed


def with_visible(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> Bridge:
    enqueue = handover.enqueue
    monkeypatch.setattr(handover, "enqueue", lambda bridge, job, _: enqueue(bridge, job, 0))
    return bridge


# -- what D365 says -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["Failed", "Canceled"])
def test_a_failed_execution_is_reported_with_d365s_errors(
    project: Bridge, d365: Simulator, time: Clock, events: Events, status: str
) -> None:
    d365.package_api.statuses = ("Executing", status)
    due(project, time)
    work(project)
    (failed,) = events("execution.failed")
    assert status in failed["error"]
    assert "Vendor 1 has no name." in failed["error"]
    assert stored(project) == {}
    assert execution.last(project.account, "suppliers", 1)[0].outcome == "failed"


def test_what_succeeded_in_part_is_stored_and_reported(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    d365.package_api.statuses = ("Executing", "PartiallySucceeded")
    due(project, time)
    work(project)
    assert stored(project) == expected(d365)
    (partial,) = events("execution.partial")
    assert "Vendor 1 has no name." in partial["error"]


def test_a_status_that_nobody_knows_counts_as_running_and_is_reported(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    d365.package_api.statuses = ("Pondering", "Succeeded")
    due(project, time)
    work(project)
    assert events("execution.unknown")[0]["status"] == "Pondering"
    assert stored(project) == expected(d365)


def test_an_execution_that_runs_for_ever_is_reported_once_and_given_up_after_days(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    """With what to do in Job history; and then another one is begun."""
    d365.package_api.statuses = ("Executing",)
    due(project, time)
    work(project)
    assert events("execution.overdue") == []
    for _ in range(3):
        time.now += timedelta(hours=1, minutes=1)
        work(project, rounds=2)
    (overdue,) = events("execution.overdue")
    assert "Job history" in overdue["error"]
    d365.executions[0].statuses.append("Executing")
    time.now += timedelta(days=3)
    work(project, rounds=2)
    assert "no final status" in events("execution.failed")[0]["error"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataProject": "No such project"}, "The definition group No such project does not exist"),
        ({"company": "XXXX"}, "The legal entity XXXX does not exist"),
    ],
)
def test_what_d365_refuses_is_reported_and_not_tried_again(
    project: Bridge,
    d365: Simulator,
    time: Clock,
    events: Events,
    changes: dict[str, str],
    words: str,
) -> None:
    """Until the next due time."""
    bridge = with_job(project, **changes)
    due(bridge, time)
    for _ in range(3):
        work(bridge)
        time.now += timedelta(minutes=5)
    assert d365.count("export_package") == 1
    assert words in events("execution.failed")[0]["error"]


def test_d365_that_can_not_be_reached_is_tried_again(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    """It has surely not begun the execution: each look is reported, and the first that gets through goes on."""
    d365.add_fault("export_package", "answer", status=429, times=2)
    due(project, time)
    for _ in range(6):
        work(project, rounds=1)
        time.now += timedelta(minutes=11)
    assert len(events("export.failed")) == 2
    assert stored(project) == expected(d365)
    assert len(d365.executions) == 1


# -- the package ----------------------------------------------------------------------------------


def test_a_package_that_can_not_be_fetched_is_tried_again(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    """By a fresh address, until the seven days are over for which D365 keeps it."""
    d365.package_api.url_lifetime = timedelta(seconds=-1)
    due(project, time)
    work(project, rounds=6)
    failed = events("package.failed")
    assert failed
    assert "sig=" not in str(failed)
    assert stored(project) == {}
    d365.package_api.url_lifetime = timedelta(minutes=30)
    time.now += timedelta(minutes=11)
    work(project)
    assert stored(project) == expected(d365)


@pytest.mark.parametrize("minutes", [10, 30])
def test_a_package_is_fetched_as_long_as_d365_keeps_it(
    project: Bridge, d365: Simulator, time: Clock, events: Events, minutes: int
) -> None:
    """Seven days, whatever time-out the functions have."""
    settings = replace(project.settings, function_timeout=timedelta(minutes=minutes))
    bridge = replace(project, settings=settings)
    d365.package_api.url_lifetime = timedelta(seconds=-1)
    due(bridge, time)
    work(bridge, rounds=6)
    time.now += timedelta(days=6)
    work(with_job(bridge, schedule="0 0 0 1 1 *"), rounds=1)
    assert events("execution.failed") == []
    d365.package_api.url_lifetime = timedelta(minutes=30)
    time.now += timedelta(minutes=11)
    work(with_job(bridge, schedule="0 0 0 1 1 *"))
    assert stored(project) == expected(d365)


def test_a_package_that_was_lost_is_reported(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    d365.package_api.url_lifetime = timedelta(seconds=-1)
    due(project, time)
    work(project, rounds=6)
    time.now += timedelta(days=8)
    work(project, rounds=1)
    (failed,) = events("execution.failed")
    assert "seven days" in failed["error"]
    assert "ResetVersionToken" in failed["error"]


def test_an_address_that_is_not_https_is_not_fetched(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    d365.package_api.url_form = "ftp://elsewhere/x?sig=S3cret"
    due(project, time)
    work(project, rounds=6)
    assert "only a signed address over https" in events("package.failed")[0]["error"]
    assert "S3cret" not in str(events("package.failed"))
    assert stored(project) == {}


def test_a_job_that_unzips_has_the_files_too(project: Bridge, d365: Simulator, time: Clock) -> None:
    bridge = with_job(project, unzip=True)
    due(bridge, time)
    work(bridge)
    id_ = d365.executions[0].execution_id
    assert f"suppliers/{id_}/Manifest.xml" in stored(bridge)


# -- by storage -----------------------------------------------------------------------------------


def large_package(seed: int = 1) -> bytes:
    """A package of several blocks of a test."""
    buffer = io.BytesIO(samples.package("large", [samples.Part(samples.VENDORS, 5)]))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("Large.csv", random.Random(seed).randbytes(300_000))
    return buffer.getvalue()


@pytest.fixture
def large(project: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The project's package is large, as far as the app can tell."""
    monkeypatch.setattr(data_project, "BY_STORAGE", 64 * 1024)
    monkeypatch.setattr(block_copy, "BLOCK", 64 * 1024)
    data = large_package()  # two would differ: a zip has the time to two seconds
    d365.package_api.exports[PROJECT] = data
    return data


@pytest.mark.parametrize("unzip", [False, True])
def test_a_large_package_is_fetched_by_storage(
    project: Bridge, d365: Simulator, time: Clock, large: bytes, events: Events, unzip: bool
) -> None:
    """No byte of it comes through the app, and its record says so; what was staged for it is gone."""
    bridge = with_job(project, unzip=unzip)
    due(bridge, time)
    work(bridge)
    name = f"suppliers/{d365.executions[0].execution_id}"
    blobs = stored(bridge)
    assert blobs[f"{name}.zip"] == large
    assert (f"{name}/Manifest.xml" in blobs) == unzip
    assert state(bridge).moved == "storage"
    assert events("execution.stored")[0]["moved"] == "storage"
    assert [blob for blob in contents(bridge.account, STATE) if "staging" in blob] == []
    assert d365.executions[0].fetched == 1


def test_where_storage_may_not_fetch_the_app_carries(
    project: Bridge,
    d365: Simulator,
    time: Clock,
    large: bytes,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Decided by itself, said in the record."""

    def refused(*_: object, **__: object) -> None:
        raise block_copy.NotCopied("storage does not fetch from there: 403")

    monkeypatch.setattr(block_copy, "copy", refused)
    due(project, time)
    work(project)
    assert stored(project) == expected(d365)
    assert state(project).moved == "app"
    assert "403" in events("execution.carried")[0]["reason"]


def test_an_address_that_expires_while_storage_fetches_is_asked_for_anew(
    project: Bridge, d365: Simulator, time: Clock, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage refuses the first one after two blocks."""
    stage = BlobClient.stage_block_from_url
    urls = list[str]()

    def expire(self: BlobClient, id_: str, url: str, *args: Any, **options: Any) -> Any:
        urls.append(url)
        late = url == urls[0] and len(urls) > 2
        return stage(self, id_, url.replace("sig=", "sig=A") if late else url, *args, **options)

    monkeypatch.setattr(BlobClient, "stage_block_from_url", expire)
    # Signed in the same second, two addresses would be the same.
    package_url, numbers = d365.package_url, itertools.count()
    monkeypatch.setattr(d365, "package_url", lambda *of: f"{package_url(*of)}&n={next(numbers)}")
    due(project, time)
    work(project)
    assert (state(project).moved, stored(project)) == ("storage", expected(d365))
    assert d365.executions[0].fetched == 2


def test_another_package_than_d365_has_is_not_shown(
    project: Bridge,
    d365: Simulator,
    time: Clock,
    large: bytes,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole, but not of the length that D365's storage says."""

    def copy(_: object, __: str, ___: int, target: BlobClient, **____: object) -> None:
        target.upload_blob(samples.package("other", [samples.Part(samples.VENDORS, 3)]))

    monkeypatch.setattr(block_copy, "copy", copy)
    due(project, time)
    work(project)
    assert stored(project) == expected(d365)
    assert f"of {len(large)}" in events("execution.carried")[0]["reason"]


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_a_copy_that_takes_its_time_or_fails_is_not_taken_for_a_package(
    project: Bridge,
    d365: Simulator,
    time: Clock,
    large: bytes,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
) -> None:
    """Storage may copy in the background. What did not become whole is deleted, and copied again."""
    start, copies = BlobClient.start_copy_from_url, list[str]()

    def copy(self: BlobClient, *args: Any, **options: Any) -> Any:
        answer = start(self, *args, **options)
        copies.append(str(self.blob_name))
        return {**answer, "copy_status": status} if len(copies) == 1 else answer

    monkeypatch.setattr(BlobClient, "start_copy_from_url", copy)
    due(project, time)
    work(project)
    if status == "failed":
        assert "ended as failed" in events("package.failed")[0]["error"]
        time.now += timedelta(minutes=11)
        work(project)
    assert (state(project).outcome, stored(project)) == ("stored", expected(d365))
    assert len(copies) == (2 if status == "failed" else 1)


@pytest.mark.parametrize("damage", ["cut", "directory"])
def test_what_storage_fetched_is_verified_before_it_is_shown(
    project: Bridge, d365: Simulator, time: Clock, large: bytes, events: Events, damage: str
) -> None:
    """A package that is no whole zip is read to its end by the app, which stores it marked as unreadable."""
    broken = large[:-30] if damage == "cut" else large[:-200] + bytes(100) + large[-100:]
    d365.package_api.exports[PROJECT] = broken
    due(project, time)
    work(project)
    assert list(stored(project).values()) == [broken]
    assert "no whole package" in events("execution.carried")[0]["reason"]
    assert events("package.unreadable")
    assert state(project).moved == "app"


def test_a_crash_between_the_copy_and_its_note_stores_it_once(
    project: Bridge, d365: Simulator, time: Clock, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next worker meets the copy, and is content with it."""
    due(project, time)
    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "note_message", crash)
        with pytest.raises(Crashed):
            work(project)
    assert list(stored(project).values()) == [large]
    time.now += timedelta(minutes=11)
    work(project)
    assert list(stored(project).values()) == [large]
    assert state(project).outcome == "stored"
    notes = contents(project.account, DELIVERED)
    assert sum("/messages/" in name for name in notes) == 1


# -- what people see and do -----------------------------------------------------------------------


def test_a_person_can_export_now(
    project: Bridge, d365: Simulator, time: Clock, events: Events
) -> None:
    """Once, however often the button is pressed; the next due time is exported all the same."""
    work(project)
    runs = views.runs(project, "suppliers")
    assert runs
    action = Action("suppliers", runs.etag, "Eva", "the auditors ask")
    actions.run_now(project, action)
    with pytest.raises(NotDone, match="gone on since"):
        actions.run_now(project, action)
    assert events("execution.requested")[0]["by"] == "Eva"
    work(project)
    assert stored(project) == expected(d365)
    after = views.runs(project, "suppliers")
    assert after
    assert [(each.by, each.why, each.outcome) for each in after.last] == [
        ("Eva", "the auditors ask", "stored")
    ]
    due(project, time)
    work(project)
    assert len(d365.executions) == 2


def test_nobody_exports_what_is_under_way(project: Bridge, d365: Simulator, time: Clock) -> None:
    d365.package_api.statuses = ("Executing",)
    due(project, time)
    work(project, rounds=2)
    runs = views.runs(project, "suppliers")
    assert runs
    with pytest.raises(NotDone, match="under way"):
        actions.run_now(project, Action("suppliers", runs.etag, "Eva", "I can't wait"))
    with (
        execution.held(project.account, "suppliers"),
        pytest.raises(NotDone, match="another worker has"),
    ):
        actions.run_now(project, Action("suppliers", runs.etag, "Eva", "I can't wait"))
    paused = with_job(project, enabled=False)
    with pytest.raises(NotDone, match="paused"):
        actions.run_now(paused, Action("suppliers", runs.etag, "Eva", "now"))
    with pytest.raises(NotDone, match="no job that exports a data project"):
        actions.run_now(project, Action("vendors", runs.etag, "Eva", "now"))


def health_of(bridge: Bridge) -> tuple[str, str]:
    lines = health.check(bridge, 0.0)
    return next((each.verdict, each.text) for each in lines if each.what == "export job suppliers")


def test_the_check_says_how_the_last_export_ended(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    assert health_of(project)[0] == "can't tell"
    due(project, time)
    work(project)
    assert health_of(project)[0] == "ok"
    d365.package_api.statuses = ("Failed",)
    time.now += timedelta(days=1)
    work(project)
    verdict, text = health_of(project)
    assert (verdict, "Vendor 1 has no name." in text) == ("wrong", True)


def test_the_check_sees_a_schedule_that_the_app_can_not_keep(
    project: Bridge, d365: Simulator, time: Clock
) -> None:
    """The app looks every five minutes."""
    verdict, text = health_of(with_job(project, schedule="0 * * * * *"))
    assert (verdict, "more often than the app looks" in text) == ("wrong", True)
