"""The alerts and the workbook ask for what the app really logs: their queries run over the lines of a run."""

import io
import json
import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from azure.core.exceptions import ResourceExistsError

from local import samples
from local.simulator import Simulator
from shared import clock
from shared.bridge import Bridge
from shared.config import jobs
from shared.exports import data_project, execution, run
from shared.exports.run import export_packages
from shared.imports import intake, reconciliation, turns
from shared.storage.account import POISON_QUEUES, DataAccount
from tests.helpers import EXPORT_ID, IMPORT_ID, drop, make_bridge, work_queue
from tests.infra import compiler, kql
from tests.infra.check_queries import longest, queries_in
from tests.infra.variants import INFRA, at, whole

pytestmark = compiler.needed


@cache
def queries() -> dict[str, str]:
    """Every query that is deployed, by its name."""
    return dict(queries_in(whole(INFRA)))


@cache
def about() -> dict[str, list[str]]:
    """The columns that an alert's e-mail names."""
    return {
        rule["name"]: [each["name"] for each in at(rule, "properties.criteria.allOf.0.dimensions")]
        for rule in whole(INFRA).resources("Microsoft.Insights/scheduledQueryRules")
    }


SILENT, FILES, EXPORT, DENIED, POISON = (
    f"bridge-{name}"
    for name in ("job-silent", "file-failed", "export-failing", "d365-denied", "poison")
)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)

type Lines = list[tuple[datetime, str]]
type Log = Callable[[], Lines]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    """The app's lines so far, as if they came just now; each call takes them away."""
    caplog.set_level(logging.INFO, "bridge")

    def taken() -> Lines:
        lines = [each.getMessage() for each in caplog.records if each.name == "bridge"]
        caplog.clear()
        return [(datetime.now(UTC), line) for line in lines]

    return taken


def ago(lines: Lines, past: timedelta) -> Lines:
    """The same lines, logged so long ago."""
    return [(time - past, line) for time, line in lines]


def only(lines: Lines, event: str) -> Lines:
    """The lines of an event."""
    return [each for each in lines if each[1].startswith(f"{event} ")]


@contextmanager
def refusing(d365: Simulator) -> Iterator[None]:
    """D365 does not know the application."""
    d365.registered = False
    yield
    d365.registered = True


def everything(bridge: Bridge, d365: Simulator, account: DataAccount) -> None:
    """A run in which everything happens that the queries ask for."""
    bad_package(bridge, d365)
    with refusing(d365):
        export_packages(bridge)
    d365.add_package(EXPORT_ID, samples.package("small", [samples.Part(samples.VENDORS, 5)]))
    d365.add_package(EXPORT_ID, b"PK\3\4, but no package")
    d365.add_package(EXPORT_ID, b"", file_exists=False)
    export_packages(bridge)
    raw = {"exports": [{"name": "vendors", "activityId": EXPORT_ID, "unzip": True}]}
    unzipping = replace(bridge.settings, jobs=jobs.parse(json.dumps(raw).encode()))
    unsafe = io.BytesIO()
    with zipfile.ZipFile(unsafe, "w") as archive:
        for name in ("Manifest.xml", "folder./vendors.csv"):
            archive.writestr(name, name)
    d365.add_package(EXPORT_ID, unsafe.getvalue())
    export_packages(replace(bridge, settings=unzipping))
    late = run._Run(bridge, bridge.settings.jobs.exports)
    late._take_until = 0.0
    late.serve()
    project_exports(bridge, d365)
    files_end(bridge, d365, account)
    d365.company_from_message = False
    intake.import_file(bridge, drop(account, "journals/USMF/elsewhere.csv"))
    work_queue(bridge)
    stopped = make_bridge(d365, account, ordered=True, onFailure="stop")
    for name, data in (("a.csv", b"REJECT"), ("b.csv", b"1")):
        intake.import_file(stopped, drop(account, f"journals/USMF/{name}", data))
        work_queue(stopped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "enqueue_next", fail)
        reconciliation.reconcile(stopped)
    poison(account)
    reconciliation.reconcile(bridge)


def project_exports(bridge: Bridge, d365: Simulator) -> None:
    """Of a data project: one that is stored, one that lacks records, one that fails, one that does not end."""
    job = {"name": "suppliers", "api": "package", "dataProject": "Out", "schedule": "0 0 0 1 1 *"}
    served = jobs.parse(json.dumps({"exports": [job]}).encode())
    one = replace(bridge, settings=replace(bridge.settings, jobs=served))
    d365.projects["Out"] = "plain"
    for status in ("Succeeded", "PartiallySucceeded", "Failed", "Executing"):
        d365.package_api.statuses = (status,)
        with execution.held(bridge.account, "suppliers") as held:
            data_project.plan(held, served.exports[0], clock.now())
        for _ in range(3):
            run.export_job(one, {"job": "suppliers"})
        export_packages(one)
    with execution.held(bridge.account, "suppliers") as held:
        long_ago = clock.text(clock.now() - timedelta(hours=2))
        held.write(replace(held.execution, running=long_ago))
    run.export_job(one, {"job": "suppliers"})


def bad_package(bridge: Bridge, d365: Simulator) -> str:
    """A package that never comes whole: its correlation id."""
    package = d365.add_package(EXPORT_ID, b"")
    export_packages(bridge)
    d365.packages.clear()
    return package.correlation_id


def files_end(bridge: Bridge, d365: Simulator, account: DataAccount) -> None:
    """One succeeds after an odd status, one has no job, one has to wait, of one nobody knows where it is."""
    intake.import_file(bridge, drop(account, "journals/USMF/may.csv"))
    d365.received[0].statuses.appendleft("Suspended")
    intake.import_file(bridge, drop(account, "nobody/may.csv"))
    intake.import_file(bridge, drop(account, "may.csv"))
    with refusing(d365):
        intake.import_file(bridge, drop(account, "journals/USMF/waits.csv"))
    d365.add_fault("enqueue", "reset-after", activity_id=IMPORT_ID)
    intake.import_file(bridge, drop(account, "journals/USMF/lost.csv"))
    work_queue(bridge)


def poison(account: DataAccount) -> None:
    """The host gave up a message."""
    queue = account.queue(POISON_QUEUES[0])
    with suppress(ResourceExistsError):
        queue.create_queue()
    queue.send_message(json.dumps({"file": "journals/may.csv", "etag": "1"}))


def fail(*_: object) -> None:
    raise RuntimeError("storage hiccup")


def test_every_query_names_what_a_run_logs(
    bridge: Bridge, d365: Simulator, account: DataAccount, log: Log
) -> None:
    """Each event that a query names is logged, and each field that it looks at is in one of them."""
    everything(bridge, d365, account)
    fields_by_event: dict[str, set[str]] = {}
    for _, line in log():
        event, _, fields = line.partition(" ")
        fields_by_event.setdefault(event, set()).update(json.loads(fields))
    for name, query in queries().items():
        used = kql.events_in(query)
        assert used <= fields_by_event.keys(), name
        assert kql.fields_in(query) <= set[str]().union(
            *(fields_by_event[each] for each in used)
        ), name


def test_every_query_answers(
    bridge: Bridge, d365: Simulator, account: DataAccount, log: Log
) -> None:
    """With what a person needs; what happened is told when it does, and not again an hour later."""
    everything(bridge, d365, account)
    lines = log()
    expected = {
        FILES: (
            *("journals/USMF/lost", "file.held", "no-such-job", "nobody/may", "(none)"),
            *("journals/USMF/elsewhere", "other-company", "into DAT, not into USMF"),
        ),
        DENIED: ("dequeue", "Microsoft Entra applications"),
        POISON: ("import-status-poison", "journals/may.csv"),
        "Files, by job and outcome": ("journals: succeeded", "journals: held", "(none): failed"),
        "Packages, by job and outcome": ("vendors: acknowledged", "vendors: failed"),
        "Jobs": ("vendors", "journals"),
        "Failures and their reasons": ("storage hiccup", "vendors", "not acknowledged"),
    }
    assert expected.keys() < queries().keys()
    for name in queries().keys() - {SILENT, EXPORT}:
        answer = json.dumps(kql.answer(queries()[name], lines), default=str)
        assert answer != "[]", name
        for each in expected.get(name, ()):
            assert each in answer, name
        for row in kql.answer(
            queries()[name], lines
        ):  # what an e-mail is about is never left blank
            assert all(row[column] for column in about().get(name, ())), name
    for name in (FILES, DENIED, POISON):
        assert kql.answer(queries()[name], ago(lines, HOUR)) == []


def test_a_silent_job_is_told(bridge: Bridge, log: Log) -> None:
    """And the app itself, when it does not run at all; while both run, nothing."""
    export_packages(bridge)
    reconciliation.reconcile(bridge)
    lines = log()
    query = queries()[SILENT]
    assert kql.answer(query, lines) == []
    assert [row["job"] for row in kql.answer(query, ago(lines, timedelta(minutes=90)))] == [
        "vendors",
        "(the app itself)",
    ]
    assert [row["job"] for row in kql.answer(query, [])] == ["(the app itself)"]
    assert kql.answer(query, [*ago(lines, 26 * HOUR), *only(lines, "reconcile.finished")]) == []


def test_a_silence_of_a_day_is_told_within_the_rule_s_window(bridge: Bridge, log: Log) -> None:
    """The longest that may be set: the window must still hold the run after which there was silence."""
    export_packages(bridge)
    lines = log()
    (rule,) = (
        each
        for each in longest(INFRA).resources("Microsoft.Insights/scheduledQueryRules")
        if each["name"] == SILENT
    )
    window = kql.period(at(rule, "properties.windowSize"))
    for past, silent in ((23 * HOUR, False), (25 * HOUR, True), (47 * HOUR, True)):
        seen = [each for each in ago(lines, past) if each[0] > datetime.now(UTC) - window]
        rows = kql.answer(dict(queries_in(longest(INFRA)))[SILENT], seen)
        assert ("vendors" in [row["job"] for row in rows]) == silent, past


@pytest.mark.parametrize("what", ["package", "queue"])
def test_an_export_that_has_failed_for_a_day_is_told(
    bridge: Bridge, d365: Simulator, log: Log, what: str
) -> None:
    """One package, or the whole queue, with the error; not on the first day, nor once it is well again."""
    if what == "package":
        package = bad_package(bridge, d365)
    else:
        with refusing(d365):
            export_packages(bridge)
        package = ""
    failed = log()
    query = queries()[EXPORT]
    assert kql.answer(query, failed) == []
    assert kql.answer(query, [*ago(failed, 20 * HOUR), *failed]) == []
    (row,) = kql.answer(query, [*ago(failed, DAY), *failed])
    assert (row["job"], row["correlationId"]) == ("vendors", package or "(the whole queue)")
    assert row["error"]

    good = samples.package("small", [samples.Part(samples.VENDORS, 5)])
    if package:
        d365.add_package(EXPORT_ID, good, correlation_id=package)
    export_packages(bridge)
    well = log()
    assert kql.answer(query, [*ago(failed, DAY), *ago(failed, HOUR), *well]) == []
    assert kql.answer(query, [*ago(failed, DAY), *ago(well, 12 * HOUR), *failed]) == []
