"""What the page knows: paging that misses nothing, bounded requests, what people are told of a file."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import escape
from uuid import uuid4

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobClient,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)

from local.samples import VENDORS, Part, package
from local.simulator import Simulator
from shared import clock
from shared.bridge import Bridge
from shared.config import jobs
from shared.config.environments import ONLY, Environment
from shared.exports.run import export_packages
from shared.imports import intake
from shared.observability.events import emit
from shared.operations import actions, journal, pages, views, web
from shared.operations.actions import Action, NotDone
from shared.operations.pages import Links
from shared.operations.views import Filter
from shared.storage import files
from shared.storage.account import EXPORTS, FAILED, IMPORTS, SUCCEEDED, DataAccount
from tests.helpers import EXPORT_ID, drop, succeed, work_queue

LINKS = Links("/api/operate", "", (Environment(ONLY, "https://d365.example.com"),))


def page(bridge: Bridge, view: str, **query: str) -> str:
    """A view as HTML."""
    return pages.render(view, LINKS, {**web.VIEWS[view](bridge, query), "user": ""}, view, query)


def test_pages_together_show_each_file_once(
    bridge: Bridge, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In name order, no page longer than asked for."""
    monkeypatch.setattr(views, "ROWS", 7)
    names = [drop(account, f"journals/{number:03}.csv") for number in range(25)]
    seen: list[str] = []
    token = ""
    while True:
        listing = views.listing(bridge, Filter("waiting", token=token))
        assert len(listing.rows) <= 7
        seen += [row.name for row in listing.rows]
        token = listing.next_token
        if not token:
            break
    assert seen == names


def test_a_filter_reads_no_more_than_its_limit(
    bridge: Bridge, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it looks for lies at the end: the view says how far it looked, and goes on from there."""
    monkeypatch.setattr(views, "STEP", 5)
    monkeypatch.setattr(views, "LOOKED_AT", 10)
    for number in range(25):
        drop(account, f"journals/{number:03}.csv")
    drop(account, "journals/z.csv")
    query = Filter("waiting", name="Z.CSV")
    first = views.listing(bridge, query)
    assert (first.rows, first.looked_at) == ([], 10)
    second = views.listing(bridge, Filter("waiting", name="Z.CSV", token=first.next_token))
    third = views.listing(bridge, Filter("waiting", name="Z.CSV", token=second.next_token))
    assert [row.name for row in third.rows] == ["journals/z.csv"]
    assert not third.next_token


def test_a_file_is_found_by_the_name_that_the_page_shows(bridge: Bridge) -> None:
    """Without its stamp, with its suffix; and by the stamped one too."""
    # y, since a stamp ends with a hexadecimal digit
    dropped = ("unknown/y.b.csv", "unknown/y.csv", "unknown/y.csv.bak", "unknown/y")
    for name in dropped:
        drop(bridge.account, name)
        intake.import_file(bridge, name)
    (file,) = [f for f in files.listed(bridge.account, FAILED) if f.record.source == dropped[0]]

    def paths(name: str) -> set[str]:
        return {row.path for row in views.listing(bridge, Filter("failed", name=name)).rows}

    assert paths("Y.CSV") == {"unknown/y.csv", "unknown/y.csv.bak"}
    assert paths("unknown/y.csv") == {"unknown/y.csv", "unknown/y.csv.bak"}
    assert paths("unknown/y.b") == paths(file.name) == paths(file.name[8:]) == {dropped[0]}
    assert paths("unknown/y") == paths("unknown/") == set(dropped)
    assert paths("unknown/y.bc") == set()


def test_a_date_is_a_whole_day(bridge: Bridge, account: DataAccount) -> None:
    """Both ends included."""
    drop(account, "journals/may.csv")
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)

    def count(**days: object) -> int:
        return len(views.listing(bridge, Filter("waiting", **days)).rows)  # type: ignore[arg-type]

    assert count(since=today, until=today) == 1
    assert count(until=yesterday) == 0
    assert count(since=yesterday, until=today) == 1


def test_of_a_busy_hour_the_end_is_shown_and_that_is_said(
    noted: DataAccount, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line that is left is whole, and the numbers of it are shown as the least."""
    monkeypatch.setattr(journal, "TAIL", 1000)
    for number in range(30):
        succeed(str(number), "journals")
    recent = journal.recent(noted)
    assert not recent.complete
    assert [entry.fields["file"] for entry in recent.entries][-1] == "29"
    assert 1 < len(recent.entries) < 30
    shown = page(bridge, "jobs")
    assert f'data-label="Last hour">≥ {len(recent.entries)}<' in shown
    of = 'href="/api/operate/recent?job=journals"'
    assert f'data-label="24 hours"><a {of}>≥ {len(recent.entries)}</a>' in shown


def test_the_first_page_says_when_the_exports_run_next(
    noted: DataAccount, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the host reads the schedule: both days must hold; and one that never comes is said to be so."""
    monkeypatch.setattr(clock, "now", lambda: datetime(2026, 11, 25, 18, 30, 7, tzinfo=UTC))
    for schedule, when in (
        ("0 0 0 13 * FRI", "2027-08-13 00:00:00Z"),
        ("0 0 8 * * Sun", "2026-11-29 08:00:00Z"),
        ("", "2026-11-25 18:35:00Z"),
        ("0 0 0 30 2 *", "never"),
    ):
        monkeypatch.setenv("EXPORT_SCHEDULE", schedule)
        shown = page(bridge, "jobs")
        assert when in shown.partition("Next run of the export jobs: ")[2].partition("</p>")[0]


def test_jobs_of_one_group_stand_together_with_their_descriptions(bridge: Bridge) -> None:
    """As the jobs file has them within a group; what people wrote is text, never HTML."""
    pages_of = {"b1": ("Finance", "<b>Cash</b>"), "a1": ("Retail", ""), "b2": ("Finance", "Bank")}
    raw = [
        {"name": name, "activityId": f"8b7d4c52-1e9a-4f63-8c2b-{number:012}"}
        | {"group": group, "description": description}
        for number, (name, (group, description)) in enumerate(pages_of.items())
    ]
    jobs_file = jobs.parse(json.dumps({"exports": raw}).encode())
    grouped = replace(bridge, settings=replace(bridge.settings, jobs=jobs_file))
    assert [job.name for job in views.overview(grouped).jobs] == ["b1", "b2", "a1"]
    assert "Finance · &lt;b&gt;Cash&lt;/b&gt;" in page(grouped, "jobs")


def test_the_job_of_a_data_project_leads_to_its_exports(bridge: Bridge) -> None:
    """Where a person can export it now; a job with a queue has no such page."""
    raw = [
        {"name": "queue", "activityId": EXPORT_ID},
        {
            "name": "project",
            "api": "package",
            "dataProject": "Vendors",
            "schedule": "0 0 2 * * *",
        },
    ]
    jobs_file = jobs.parse(json.dumps({"exports": raw}).encode())
    both = replace(bridge, settings=replace(bridge.settings, jobs=jobs_file))
    shown = page(both, "jobs")
    assert re.findall(r'export\?job=(\w+)[^"]*">exports</a>', shown) == ["project"]


def test_what_came_last_stands_first(
    noted: DataAccount, bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and packages, each with a link to where it lies, or its error; of one job alone, too."""
    d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 1)]))
    export_packages(bridge)
    for name, data in (("journals/may.csv", b"1"), ("journals/june.csv", b"REJECT")):
        intake.import_file(bridge, drop(noted, name, data))
        work_queue(bridge)
    recent = views.recent(bridge)
    assert [(e.outcome, e.container) for e in recent] == [
        ("failed", FAILED),
        ("succeeded", SUCCEEDED),
        ("exported", EXPORTS),
    ]
    assert [each.outcome for each in views.recent(bridge, "vendors")] == ["exported"]
    shown = page(bridge, "recent")
    assert shown.index("june.csv") < shown.index("may.csv") < shown.index("vendors/")
    for each in recent:
        assert f'href="{escape(LINKS.file(each.container, each.name))}"' in shown
    assert d365.reject_errors[0] in shown
    monkeypatch.setattr(views, "ROWS", 2)
    assert views.recent(bridge) == recent[:2]


def test_dismissed_files_are_listed_by_themselves(
    bridge: Bridge, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not among those that wait for a person, however many lie before them."""
    for number in range(6):
        intake.import_file(bridge, drop(account, f"unknown/{number}.csv"))
    for file in list(files.listed(account, FAILED))[:5]:
        actions.dismiss(bridge, Action(file.name, file.etag, "Ada", "none of ours"))

    def paths(state: str) -> list[str]:
        return [row.path for row in views.listing(bridge, Filter(state)).rows]

    monkeypatch.setattr(views, "ROWS", 2)
    assert paths("failed") == ["unknown/5.csv"]
    assert paths("held") == []
    assert paths("dismissed") == [f"unknown/{number}.csv" for number in range(5)]
    assert page(bridge, "jobs").count("unknown/</a> (1)") == 1


def test_a_package_that_keeps_failing_is_seen_until_it_is_exported(
    noted: DataAccount, bridge: Bridge, d365: Simulator
) -> None:
    """With its id and its error, also after runs that found nothing; and each run that failed in its colour."""
    broken = d365.add_package(EXPORT_ID, b"")
    d365.reoffer_seconds = 0
    for _ in range(2):
        export_packages(bridge)
    overview = views.overview(bridge)
    (vendors,) = (job for job in overview.jobs if job.name == "vendors")
    assert (vendors.last_text, vendors.last_outcome) == ("0 packages, 1 failed", "failed")
    assert 'class="error failed">0 packages, 1 failed<' in page(bridge, "jobs")
    (failing,) = views.failing(overview.recent)
    assert (failing.job, failing.correlation_id, failing.tries) == (
        "vendors",
        broken.correlation_id,
        2,
    )
    assert {each.name for each in views.ended(overview.recent)} == {broken.correlation_id}
    named = f'<span>vendors <span class="dim">{broken.correlation_id}</span></span>'
    assert named in page(bridge, "recent")
    emit("export.finished", job="vendors", packages=0, failed=0, seconds=0)
    shown = page(bridge, "jobs")
    for text in (broken.correlation_id, escape(failing.error), "Packages that fail"):
        assert text in shown
    correlation_id = broken.correlation_id
    emit(
        "package.acknowledged", job="vendors", correlationId=correlation_id, blob="x.zip", remark=""
    )
    assert "Packages that fail" not in page(bridge, "jobs")


def test_one_job_s_many_files_do_not_hide_another_s(
    bridge: Bridge, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own counts are then at least so many, and say so."""
    for name in [f"journals/{n}.csv" for n in range(3)] + ["steps/x.csv", "unknown/x.csv", "x.csv"]:
        drop(account, name, b"REJECT")
        intake.import_file(bridge, name)
    work_queue(bridge)

    def failed() -> dict[str, tuple[int, bool]]:
        overview = views.overview(bridge)
        (alone,) = [name for name in overview.elsewhere if name != "unknown/"]
        assert overview.elsewhere == {"unknown/": 1, alone: 1}
        for name, path in (("unknown/", "unknown/x.csv"), (alone, "x.csv")):
            (row,) = views.listing(bridge, Filter(name=name)).rows
            assert row.path == path
            link = f'href="{escape(LINKS.to("files", name=name))}"'
            assert link in page(bridge, "jobs")
        return {job.name: (job.failed, "failed" in job.at_least) for job in overview.jobs}

    whole = {
        "journals": (3, False),
        "steps": (1, False),
        "packages": (0, False),
        "projects": (0, False),
        "vendors": (0, False),
    }
    assert failed() == whole
    monkeypatch.setattr(views, "COUNTED", 2)  # a file and its report
    assert failed() == whole | {"journals": (1, True)}
    assert ">≥ 1</a>" in page(bridge, "jobs")


@pytest.fixture
def private(bridge: Bridge) -> Iterator[tuple[Bridge, BlobClient]]:
    """A bridge whose credential signs no path, and a blob beside its containers."""
    blobs_, queues = bridge.account.blobs, bridge.account.queues
    sas = generate_account_sas(
        str(blobs_.account_name),
        blobs_.credential.account_key,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, write=True, delete=True, list=True, create=True),
        datetime.now(UTC) + timedelta(hours=1),
    )
    account = DataAccount(BlobServiceClient(blobs_.url, sas), queues)
    container = account.blobs.create_container(f"private-{uuid4()}")
    blob = container.upload_blob("a/salaries.csv", b"1;2")
    yield Bridge(bridge.settings, bridge.clients, account), blob
    container.delete_container()


def test_a_name_leads_to_no_other_container(private: tuple[Bridge, BlobClient]) -> None:
    """Storage's answer to such a name would be another blob, which nobody asked for by its own name."""
    bridge, blob = private
    drop(bridge.account, "journals/may.csv")
    before = blob.get_blob_properties()
    path = f"{blob.container_name}/a/salaries.csv"
    for name in (
        f"../{path}",
        f"x/../../{path}",
        f"..\\{path}",
        "journals/./may.csv",
        "..",
        ".",
        "a\0b",
    ):
        assert views.detail(bridge, FAILED, name) is None
        assert views.detail(bridge, IMPORTS, name) is None
        with pytest.raises(NotDone, match="is not there"):
            actions.dismiss(bridge, Action(name, str(before.etag), "Eve", "curious"))
    assert blob.get_blob_properties().etag == before.etag
    for name in ("journals/..may.csv", "journals/may..csv", "journals/.may", "journals/a\\b.csv"):
        drop(bridge.account, name)
        assert views.detail(bridge, IMPORTS, name)


def test_a_held_file_s_page_leads_into_d365(bridge: Bridge, d365: Simulator) -> None:
    """Beside the advice to look under Manage messages; a file that D365 has refused needs no such look."""
    d365.add_fault("enqueue", "reset-after")
    drop(bridge.account, "journals/may.csv")
    intake.import_file(bridge, "journals/may.csv")
    drop(bridge.account, "unknown/may.csv")
    intake.import_file(bridge, "unknown/may.csv")
    held, refused = (
        page(bridge, "file", **{"in": FAILED, "name": file.name})
        for file in files.listed(bridge.account, FAILED)
    )
    assert 'href="https://d365.example.com"' in held
    assert 'href="https://d365.example.com"' not in refused


def test_whoever_sends_a_file_again_is_told_what_d365_has_of_it(
    bridge: Bridge, d365: Simulator
) -> None:
    """Also where it ended there with errors, or with no end: without counts, some of its records may be in."""
    d365.add_fault("job_status", "answer", status=404, times=-1)
    drop(bridge.account, "journals/may.csv", b"REJECT")
    intake.import_file(bridge, "journals/may.csv")
    work_queue(bridge)
    drop(bridge.account, "unknown/may.csv")
    intake.import_file(bridge, "unknown/may.csv")
    rejected, refused = (
        page(bridge, "file", **{"in": FAILED, "name": file.name})
        for file in files.listed(bridge.account, FAILED)
    )
    assert f"D365 has this file already, as the message {d365.received[0].message_id}" in rejected
    assert rejected.count("posted twice") == 1
    assert "posted twice" not in refused


def test_who_sent_a_file_again_stands_on_its_page_in_words(bridge: Bridge) -> None:
    """As it was typed, whatever a header can carry; and harmless."""
    intake.import_file(bridge, drop(bridge.account, "unknown/ä.csv"))
    (file,) = files.listed(bridge.account, FAILED)
    actions.resend(bridge, Action(file.name, file.etag, "Müller <b>", "100 % sure: ö & é"))
    detail = views.detail(bridge, IMPORTS, "unknown/ä.csv")
    assert detail
    shown = page(bridge, "file", **{"in": IMPORTS, "name": "unknown/ä.csv"})
    for label, text in (
        ("Resent by", "Müller &lt;b&gt;"),
        ("Why", "100 % sure: ö &amp; é"),
        ("Of", file.name),
        ("On", detail.file.user_metadata["resent"]),
    ):
        assert f"<dt>{label}</dt><dd>{text}</dd>" in shown
    assert "resent" not in shown


def test_what_is_odd_about_a_success_is_seen(
    bridge: Bridge, d365: Simulator, noted: DataAccount
) -> None:
    """In the list, under recent ends, and on the file's page with its counts and company."""
    d365.company_from_message = False
    intake.import_file(bridge, drop(noted, "journals/USMF/may.csv"))
    d365.received[0].imported = 0
    work_queue(bridge)
    remark = "D365 imported no record of it; D365 imported it into DAT, not into USMF"
    (row,) = views.listing(bridge, Filter("succeeded")).rows
    (ended,) = views.recent(bridge)
    assert (row.error, ended.error) == (remark, remark)
    shown = page(bridge, "file", **{"in": SUCCEEDED, "name": row.name})
    assert "General journal: 0 of 20" in shown
    assert "<dt>Company in D365</dt><dd>DAT</dd>" in shown
    assert escape(remark) in shown
