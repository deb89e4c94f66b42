"""Several environments in one deployment: what one of them does is nothing to the others."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from math import inf
from threading import Event, Semaphore
from typing import Any

import pytest

from local import samples
from local.simulator import Simulator, identity_settings, running_simulator
from shared import clock
from shared.bridge import MOST_HANGING, Bridge, new_clients
from shared.config import jobs, settings
from shared.config.environments import Environment
from shared.d365 import client
from shared.d365.errors import Unavailable
from shared.exports import run
from shared.exports.run import Totals, export_packages
from shared.imports import advance, intake, schedule
from shared.operations import health, pages, views, web
from shared.operations.pages import Links
from shared.storage import files, moves
from shared.storage.account import FAILED, PROCESSING, SUCCEEDED, DataAccount
from shared.storage.records import File, Record, State
from tests.helpers import (
    EXPORT_ID,
    IMPORT_ID,
    PATIENCE,
    Events,
    contents,
    drop,
    wait_for,
    work_queue,
)

PACKAGE = samples.package("p", [samples.Part(samples.VENDORS, 7)])


@dataclass
class Two:
    """A bridge between one storage account and two environments."""

    bridge: Bridge
    good: Simulator
    bad: Simulator

    @property
    def simulators(self) -> dict[str, Simulator]:
        """By the environments' names."""
        return {"good": self.good, "bad": self.bad}


@pytest.fixture(scope="module")
def other() -> Iterator[Simulator]:
    """A second environment."""
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture
def two(
    d365: Simulator, other: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> Two:
    """Both have the same jobs under the same ids, as a copied database has them."""
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(clock, "sleep", lambda _: None)
    check_file = schedule.check_file
    monkeypatch.setattr(
        schedule, "check_file", lambda bridge, file, _: check_file(bridge, file, timedelta(0))
    )
    other.reset()
    other.issuer = d365
    other.add_export_job(EXPORT_ID)
    other.add_import_job(IMPORT_ID)
    urls = {"good": d365.base_url, "bad": other.base_url}
    return Two(bridge_of(urls, account), d365, other)


def bridge_of(urls: dict[str, str], account: DataAccount) -> Bridge:
    """A bridge to the environments of these addresses, each with an export and an import job."""
    environments = tuple(Environment(name, url) for name, url in urls.items())
    raw = {
        "environments": [{"name": each.name, "url": each.url} for each in environments],
        "exports": [
            {"name": f"vendors-{each.name}", "activityId": EXPORT_ID, "environment": each.name}
            for each in environments
        ],
        "imports": [
            {
                "name": f"journals-{each.name}",
                "activityId": IMPORT_ID,
                "entity": "General journal",
                "environment": each.name,
            }
            for each in environments
        ],
    }
    app_settings = settings.Settings(
        environments,
        settings.Storage("", None, None, None),
        jobs.parse(json.dumps(raw).encode()),
        settings.EXPORT_PARALLELISM,
        timedelta(minutes=30),
    )
    return Bridge(app_settings, new_clients(app_settings), account)


def test_each_job_is_served_by_its_own_environment(two: Two, events: Events) -> None:
    """Packages and files go where they belong, though both environments have the same ids, and each line of the
    log says where."""
    two.good.add_package(EXPORT_ID, PACKAGE)
    two.bad.add_package(EXPORT_ID, PACKAGE)
    assert export_packages(two.bridge) == Totals(2, 0)
    account = two.bridge.account
    for name in ("good", "bad"):
        intake.import_file(two.bridge, drop(account, f"journals-{name}/a.csv", name.encode()))
    work_queue(two.bridge)
    assert [received.length for received in two.good.received] == [len("good")]
    assert [received.length for received in two.bad.received] == [len("bad")]
    for event in (
        "package.stored",
        "export.finished",
        "file.claimed",
        "file.sent",
        "file.succeeded",
    ):
        pairs = {(each["environment"], each["job"].split("-")[1]) for each in events(event)}
        assert pairs == {("good", "good"), ("bad", "bad")}, event
    records = [file.record for file in files.listed(account, SUCCEEDED)]
    assert {record.environment for record in records} == {"good", "bad"}


def test_the_log_says_where_a_data_project_is_exported(two: Two, events: Events) -> None:
    """Also on lines of its run, which has no message."""
    project = {
        "name": "suppliers",
        "api": "package",
        "dataProject": "Suppliers",
        "schedule": "0 0 0 1 1 *",
        "environment": "bad",
    }
    environments = [{"name": name, "url": each.base_url} for name, each in two.simulators.items()]
    raw = {"environments": environments, "exports": [project]}
    served = jobs.parse(json.dumps(raw).encode())
    bridge = replace(two.bridge, settings=replace(two.bridge.settings, jobs=served))
    run.export_job(bridge, {"job": "suppliers"})
    (finished,) = events("export.finished")
    assert finished["environment"] == "bad"


def test_a_file_is_asked_after_where_it_was_sent(two: Two) -> None:
    """Also when its job has moved to another environment since, or is gone; only where that environment is gone
    as well is there nobody to ask, and the file waits for it."""
    intake.import_file(two.bridge, drop(two.bridge.account, "journals-good/a.csv"))
    (sent,) = files.listed(two.bridge.account, PROCESSING)
    without = replace(two.bridge.settings, jobs=jobs.Jobs())
    gone = Bridge(without, two.bridge.clients, two.bridge.account)
    assert gone.d365_of(sent) is two.bridge.clients["good"]
    elsewhere = replace(sent, record=replace(sent.record, environment="elsewhere"))
    assert two.bridge.d365_of(elsewhere) is two.bridge.clients["good"]  # its job's
    with pytest.raises(Unavailable, match=r"neither the job journals-good nor its environment"):
        gone.d365_of(elsewhere)


FAULTS = {
    "down": {"do": "reset"},
    "refusing": {"do": "answer", "status": 403},
    "throttling": {"do": "answer", "status": 429, "headers": {"Retry-After": "600"}},
    "broken": {"do": "answer", "status": 500},
}


@pytest.mark.parametrize("trouble", FAULTS)
def test_an_environment_in_trouble_changes_nothing_for_the_other(two: Two, trouble: str) -> None:
    """The other's requests and outcomes are those that it has alone."""
    figures = []
    for in_trouble in (False, True):
        if in_trouble:
            two.bad.add_fault("*", times=10_000, **FAULTS[trouble])  # type: ignore[arg-type]
        two.good.requests.clear()
        two.good.add_package(EXPORT_ID, PACKAGE)
        two.bad.add_package(EXPORT_ID, PACKAGE)
        totals = export_packages(two.bridge)
        number = int(in_trouble)
        for name in ("bad", "good"):
            drop(two.bridge.account, f"journals-{name}/{number}.csv")
            intake.import_file(two.bridge, f"journals-{name}/{number}.csv")
        work_queue(two.bridge, rounds=6)
        operations = [request.operation for request in two.good.requests]
        figures.append({name: operations.count(name) for name in operations if name != "token"})
        assert totals == (Totals(1, 1) if in_trouble else Totals(2, 0))
    alone, beside = figures
    assert alone == beside
    done = contents(two.bridge.account, SUCCEEDED)
    assert len([name for name in done if name.startswith("journals-good/")]) == 2
    assert len([name for name in done if name.startswith("journals-bad/")]) == 1


def hanging(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, method: str
) -> tuple[Semaphore, Event]:
    """Let the bad environment's client take a question and not answer it: how often, and until when."""
    client = bridge.clients["bad"]
    questions, go_on, real = Semaphore(0), Event(), getattr(client, method)

    def hang(*args: Any, **options: Any) -> Any:
        questions.release()
        assert go_on.wait(PATIENCE)
        return real(*args, **options)

    monkeypatch.setattr(client, method, hang)
    return questions, go_on


def test_an_export_run_serves_one_environment_while_the_other_hangs(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where all slots of the one are taken, and as often as the schedule says: the run is as long as the
    slower one takes."""
    monkeypatch.setenv("EXPORT_SCHEDULE", "* * * * * *")
    monkeypatch.setattr(run, "LONG", inf)  # so that no turn gives way to another
    one_place = replace(two.bridge.settings, export_parallelism=1)
    bridge = Bridge(one_place, two.bridge.clients, two.bridge.account)
    questions, go_on = hanging(bridge, monkeypatch, "dequeue")
    packages = [two.good.add_package(EXPORT_ID, PACKAGE)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(export_packages, bridge)
        try:
            assert questions.acquire(timeout=PATIENCE)
            wait_for(lambda: packages[0].acknowledged == 1)
            packages.append(two.good.add_package(EXPORT_ID, PACKAGE))
            wait_for(lambda: packages[1].acknowledged == 1)
        finally:
            go_on.set()
        assert running.result() == Totals(2, 0)


@pytest.mark.parametrize("asks", ["message_status", "enqueue"])
def test_files_of_one_environment_go_on_while_the_other_hangs(
    two: Two, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    """With as many invocations as an instance has, and more files of the hanging one than those: it never has
    all of them, and what finds no place waits as it was."""
    account = two.bridge.account
    questions, go_on = hanging(two.bridge, monkeypatch, asks)
    names = [f"journals-bad/{number}.csv" for number in range(4 * MOST_HANGING)]
    for name in names:
        drop(account, name)
    work = [partial(intake.import_file, two.bridge, name) for name in names]
    if asks == "message_status":
        for send in work:
            send()
        sent = list(files.listed(account, PROCESSING))
        work = [partial(check, two.bridge, file) for file in sent]
    with ThreadPoolExecutor(2 * MOST_HANGING) as pool:
        invocations = [pool.submit(step) for step in work]
        try:
            most = MOST_HANGING
            for _ in range(most):
                assert questions.acquire(timeout=PATIENCE)
            good = pool.submit(intake.import_file, two.bridge, drop(account, "journals-good/a.csv"))
            good.result(timeout=PATIENCE)
            assert len(two.good.received) == 1
            assert not questions.acquire(blocking=False)
            assert sum(each.done() for each in invocations) == len(names) - most
        finally:
            go_on.set()
    for each in invocations:
        each.result()
    assert contents(account, FAILED) == {}
    work_queue(two.bridge)
    assert len(contents(account, SUCCEEDED)) == len(names) + 1
    assert len(two.bad.received) == len(names)


def test_many_environments_that_do_not_answer_leave_the_one_that_does_its_part(
    d365: Simulator, account: DataAccount, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five of six, with more files than there are invocations: they share what may hang."""
    monkeypatch.setattr(client, "PROMPT", 0.2)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(5)]
        ports = [each.getsockname()[1] for each in silent]
        urls = {"good": d365.base_url}
        urls |= {f"bad{number}": f"http://127.0.0.1:{port}" for number, port in enumerate(ports)}
        bridge = bridge_of(urls, account)
        names = [f"journals-{bad}/{each}.csv" for each in range(3) for bad in list(urls)[1:]]
        for name in names:
            drop(account, name)
        with ThreadPoolExecutor(2 * MOST_HANGING + 1) as pool:  # an instance's invocations
            for name in names:
                pool.submit(intake.import_file, bridge, name)
            good = pool.submit(intake.import_file, bridge, drop(account, "journals-good/a.csv"))
            try:
                good.result(timeout=PATIENCE)
                assert len(d365.received) == 1
            finally:
                stack.close()  # whoever waits for an answer gets a reset


def check(bridge: Bridge, file: File) -> None:
    advance.check_status(bridge, {"file": file.name, "etag": file.etag})


def test_the_check_tells_of_each_environment(two: Two) -> None:
    """Of one that is down, and of the other as if it were alone."""
    two.bad.add_fault("*", "reset", times=10_000)
    lines = {line.what: line.verdict for line in health.check(two.bridge, 0.0)}
    assert lines["token of good"] == "ok"
    assert lines["D365 of good"] == "ok"
    assert lines["D365 of bad"] == "wrong"
    assert lines["import job journals-good"] != "wrong"


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "reset"},
        {"do": "answer", "status": 302},
        {"do": "answer", "status": 401},
        {"do": "answer", "status": 404, "body": "<html>"},
        {"do": "answer", "status": 200, "body": "<html>"},
    ],
    ids=["no answer", "302", "401", "404 with a page", "200 with a page"],
)
def test_an_error_names_where_the_address_is_set(two: Two, fault: dict[str, Any]) -> None:
    """The jobs file has it, and which of its environments is meant is told."""
    two.bad.add_fault("message_status", times=10_000, **fault)
    (text,) = (line.text for line in health.check(two.bridge, 0.0) if line.what == "D365 of bad")
    assert "the url of bad in the jobs file" in text
    assert "D365_URL" not in text


def test_the_page_tells_the_environments_of_the_jobs(two: Two) -> None:
    """Each job under its own, in the jobs file's order, in a colour of its own, which the head of each page has
    too; an only one is not told."""
    environments = two.bridge.settings.environments
    rows = views.overview(two.bridge).jobs
    assert [job.environment for job in rows] == ["good", "good", "bad", "bad"]

    def shown(*served: Environment) -> str:
        links = Links("/api/operate", "", served)
        return pages.render("jobs", links, {**web.VIEWS["jobs"](two.bridge, {})})

    assert shown(*environments).count('<span class="environment e0">good</span>') == 3
    assert shown(*environments).count('<span class="environment e1">bad</span>') == 3
    assert "environment e0" not in shown(environments[0])


def test_a_file_that_was_being_sent_is_no_question(two: Two) -> None:
    """What became of its worker is known without D365: it takes no place, and its time is not moved."""
    with (
        two.bridge.slot("files", "bad") as first,
        ThreadPoolExecutor(1) as pool,
    ):
        assert first
        record = Record(
            job="journals-bad", environment="bad", state=State.SENDING, due="2000-01-01T00:00:00Z"
        )
        drop(two.bridge.account, "journals-bad/a.csv")
        dropped = files.find(two.bridge.account, "imports", "journals-bad/a.csv")
        assert dropped is not None
        claimed = moves.claim(two.bridge.account, dropped, record)
        assert claimed is not None
        pool.submit(check, two.bridge, claimed).result()
    (name,) = (name for name in contents(two.bridge.account, FAILED) if name.endswith(".csv"))
    assert name.startswith("journals-bad/")
