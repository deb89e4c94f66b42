"""The page and its JSON, through the worker library, between Azurite and the simulator."""

import contextlib
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from local.host_process import RunningHost
from local.samples import VENDORS, Part, package
from local.simulator import Simulator
from shared.operations.journal import JOURNAL
from shared.storage.account import (
    CONTAINERS,
    EXPORTS,
    FAILED,
    IMPORTS,
    NOTIFICATIONS_QUEUE,
    STATUS_QUEUE,
    SUCCEEDED,
    DataAccount,
)
from tests.e2e.helpers import Start
from tests.helpers import EXPORT_ID, contents, drop, wait_for

BAD = b"1;2;REJECT"
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


class Page:
    """The page as a browser asks for it."""

    def __init__(self, host: RunningHost) -> None:
        self.root = f"{host.url}/api/operate"
        self.host = host
        self.key = {"x-functions-key": host.key}

    def get(self, view: str = "", **query: str) -> requests.Response:
        return requests.get(
            f"{self.root}/{view}".rstrip("/"),
            query,
            headers=self.key,
            timeout=60,
            allow_redirects=False,
        )

    def json(self, view: str, **query: str) -> Any:
        answer = self.get(f"api/{view}", **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def act(self, fields: dict[str, str], headers: dict[str, str] = OWN_PAGE) -> requests.Response:
        url = f"{self.root}/act"
        return requests.post(
            url, fields, headers={**self.key, **headers}, timeout=60, allow_redirects=False
        )

    def failed(self) -> Any:
        """The one failed file, as soon as there is one that is on its way no more."""
        rows = wait_for(lambda: self.json("files", state="failed")["files"], self.host.output)
        wait_for(lambda: not self.json("files", state="processing")["files"], self.host.output)
        assert len(rows) == 1
        return rows[0]


@pytest.fixture
def page(account: DataAccount, app: RunningHost) -> Page:
    """The page, with an empty journal."""
    with contextlib.suppress(ResourceNotFoundError):
        journal = account.blobs.get_container_client(JOURNAL)
        for blob in journal.list_blobs():
            journal.delete_blob(blob.name)
    return Page(app)


def by(row: Any, action: str, **fields: str) -> dict[str, str]:
    """A form about a file, filled in."""
    form = {"do": action, "name": row["name"], "etag": row["etag"], "confirm": "yes"}
    return {**form, "by": "Ada", "why": "account 999999 now exists", **fields}


def test_a_rejected_file_is_seen_with_its_reason(
    page: Page, account: DataAccount, d365: Simulator
) -> None:
    """In the list with D365's first error; on its own page with all of them and what to do."""
    drop(account, "journals/USMF/<b>may.csv", BAD)
    row = page.failed()
    assert (row["state"], row["job"], row["reason"]) == ("failed", "journals", "not-imported")
    assert d365.reject_errors[0] in row["error"]
    assert row["message_id"] == d365.received[0].message_id
    listed = page.get("files", state="failed").text
    assert "&lt;b&gt;may" in listed
    assert "<b>may" not in listed
    whole = page.get("file", **{"in": FAILED, "name": row["name"]}).text
    for text in (*d365.reject_errors, "What to do", d365.received[0].execution_id):
        assert text in whole


def test_a_person_resends_a_failed_file_and_is_recorded(
    page: Page, account: DataAccount, d365: Simulator
) -> None:
    """Mended in D365, sent again, it succeeds; who and why stand with the file, its report and in the log."""
    drop(account, "journals/USMF/may.csv", BAD)
    row = page.failed()
    d365.reject_text = b""
    answer = page.act(by(row, "resend"))
    assert answer.status_code == 303
    wait_for(lambda: contents(account, SUCCEEDED), page.host.output)
    assert len(d365.received) == 2
    (done,) = page.json("files", state="succeeded")["files"]
    html = page.get("file", **{"in": SUCCEEDED, "name": done["name"]}).text
    assert "account 999999 now exists" in html
    assert "Ada" in html
    ((name, report),) = contents(account, FAILED).items()
    assert name.endswith(".error.json")
    (resolution,) = json.loads(report)["resolutions"]
    assert (resolution["did"], resolution["by"]) == ("resent", "Ada")
    assert "file.resent" in page.host.output()


def test_nothing_is_resent_by_accident(
    page: Page, account: DataAccount, d365: Simulator, subtests: pytest.Subtests
) -> None:
    """Without each of these nothing changes."""
    drop(account, "journals/USMF/may.csv", BAD)
    row = page.failed()
    before = contents(account, FAILED)
    for name, change, status in (
        ("not confirmed", {"confirm": ""}, 400),
        ("another version", {"etag": '"0x1"'}, 409),
        ("by nobody", {"by": " "}, 400),
        ("for no reason", {"why": ""}, 400),
        ("what?", {"do": "erase"}, 400),
        ("not there", {"name": "journals/other.csv"}, 409),
    ):
        with subtests.test(name):
            assert page.act(by(row, "resend", **change)).status_code == status
            assert contents(account, FAILED) == before
            assert page.failed()["etag"] == row["etag"]
            assert len(d365.received) == 1


def test_a_form_from_elsewhere_does_nothing(
    page: Page, account: DataAccount, d365: Simulator, subtests: pytest.Subtests
) -> None:
    """A page elsewhere can't make a signed-in person send a file."""
    drop(account, "journals/USMF/may.csv", BAD)
    row = page.failed()
    for name, headers in (
        ("no origin", {}),
        ("cross-site", {"Sec-Fetch-Site": "cross-site"}),
        ("another origin", {"Origin": "https://evil.example"}),
        ("an origin that hides", {"Origin": "null"}),
    ):
        with subtests.test(name):
            assert page.act(by(row, "resend"), headers).status_code == 400
            assert page.failed()["etag"] == row["etag"]
    # JSON as another site's form can send it: as plain text.
    text, plain = json.dumps(by(row, "resend")), {"Content-Type": "text/plain"}
    answer = requests.post(f"{page.root}/api/act", text, headers={**page.key, **plain}, timeout=60)
    assert answer.status_code == 400
    assert len(d365.received) == 1
    assert page.failed()["etag"] == row["etag"]


def test_a_held_file_is_marked_as_received_and_tracked_on(
    page: Page, account: DataAccount, d365: Simulator
) -> None:
    """The answer was lost, a person finds the message in D365: no second enqueue, and it succeeds."""
    d365.add_fault("enqueue", "reset-after")
    drop(account, "journals/USMF/may.csv")
    row = page.failed()
    assert row["state"] == "held"
    wrong = page.act(by(row, "receive", message_id="99999999-9999-4999-8999-999999999999"))
    assert wrong.status_code == 409
    assert "does not know that message id" in wrong.text
    right = page.act(by(row, "receive", message_id=d365.received[0].message_id))
    assert right.status_code == 303
    wait_for(lambda: contents(account, SUCCEEDED), page.host.output)
    assert len(d365.received) == 1


def test_a_held_file_is_not_given_the_message_of_another(
    page: Page, account: DataAccount, d365: Simulator
) -> None:
    """D365 says of which file a message is."""
    drop(account, "journals/USMF/april.csv")
    wait_for(lambda: contents(account, SUCCEEDED), page.host.output)
    d365.add_fault("enqueue", "reset-after")
    drop(account, "journals/USMF/may.csv")
    answer = page.act(by(page.failed(), "receive", message_id=d365.received[0].message_id))
    assert answer.status_code == 409
    assert "another file" in answer.text


def test_a_dismissed_file_stays_and_says_so(page: Page, account: DataAccount) -> None:
    """It is not counted as failed any more."""
    drop(account, "journals/USMF/may.csv", BAD)
    row = page.failed()
    assert page.act(by(row, "dismiss")).status_code == 303
    (dismissed,) = page.json("files", state="dismissed")["files"]
    assert (dismissed["name"], dismissed["state"]) == (row["name"], "dismissed")
    assert not page.json("files", state="failed")["files"]
    (journals,) = (job for job in page.json("jobs")["jobs"] if job["name"] == "journals")
    assert journals["failed"] == 0


def test_a_package_is_redelivered_under_a_fresh_name(
    page: Page, account: DataAccount, d365: Simulator
) -> None:
    """The same bytes, beside the first, with who and why."""
    offered = d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 20)]))
    page.host.invoke("export_packages")
    (row,) = page.json("files", state="exported")["files"]
    assert page.act(by(row, "redeliver")).status_code == 303
    blobs = contents(account, EXPORTS)
    assert list(blobs.values()) == [b"".join(offered.chunks())] * 2
    assert any(re.fullmatch(r"vendors/.*\.redelivered-\d{8}T\d{6}Z\.zip", name) for name in blobs)


def test_jobs_are_shown_with_queue_rate_and_last_run(
    page: Page, account: DataAccount, d365: Simulator
) -> None:
    """From the containers and the journal."""
    d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 20)]))
    page.host.invoke("export_packages")
    drop(account, "journals/USMF/may.csv", BAD)
    drop(account, "journals/USMF/june.csv")
    wait_for(
        lambda: len(contents(account, FAILED)) == 2 and contents(account, SUCCEEDED),
        page.host.output,
    )

    def jobs() -> Any:
        return {job["name"]: job for job in page.json("jobs")["jobs"]}

    wait_for(lambda: jobs()["journals"]["ended"] == 2, page.host.output)
    journals, vendors = jobs()["journals"], jobs()["vendors"]
    assert (journals["failed"], journals["last_hour"], journals["waiting"]) == (1, 2, 0)
    assert (vendors["ended"], vendors["last_text"]) == (1, "1 package")
    shown = page.get()
    assert shown.status_code == 200
    assert "Time from drop to end" in shown.text
    policy = shown.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert shown.headers["Cache-Control"] == "no-store"


def test_the_summary_in_d365_is_asked_of_d365(
    page: Page, account: DataAccount, d365: Simulator
) -> None:
    """The link leads to the page that D365 names, on D365's own host."""
    drop(account, "journals/USMF/may.csv")
    wait_for(lambda: contents(account, SUCCEEDED), page.host.output)
    (row,) = page.json("files", state="succeeded")["files"]
    answer = page.get("d365", **{"in": SUCCEEDED, "name": row["name"]})
    assert answer.status_code == 302
    assert d365.received[0].execution_id in answer.headers["Location"]
    assert urlsplit(answer.headers["Location"]).netloc == urlsplit(d365.base_url).netloc


def test_links_carry_the_key_on_and_nothing_else_shows_it(page: Page) -> None:
    """The host asks for the key with each request, so each link has it; a link elsewhere never gets it."""
    shown = page.get("files", code="k3y&<")
    assert shown.headers["Referrer-Policy"] == "same-origin"
    for link in re.findall(r'href="(/[^"]*)"', shown.text):
        assert "code=k3y%26%3C" in link
    assert 'name="code" value="k3y&amp;&lt;"' in shown.text


def test_nonsense_is_answered_in_words(page: Page) -> None:
    """Never with a traceback; what is not there with 404, in JSON too."""
    for view, query, status in (
        ("files", {"state": "lost"}, 400),
        ("files", {"since": "yesterday"}, 400),
        ("file", {"in": "imports-failed", "name": "no/such.csv"}, 404),
        ("file", {"in": "azure-webjobs-secrets", "name": "x"}, 404),
        ("file", {"in": "exports", "name": ""}, 404),
        ("file", {}, 404),
        ("api/file", {"in": "imports-failed", "name": "no/such.csv"}, 404),
        ("api/file", {"in": "imports-failed"}, 404),
        ("nowhere", {}, 404),
        ("d365", {"in": "imports-failed"}, 400),
    ):
        answer = page.get(view, **query)
        assert answer.status_code == status, (view, query)
        assert "Traceback" not in answer.text


def test_the_filters_find_and_leave_out(page: Page, account: DataAccount) -> None:
    """By job, by a part of the name, by the beginning of the path, by day."""
    page.host.deliver_events(False)
    for name in ("journals/USMF/may.csv", "journals/DEMF/MAY.csv", "packages/june.zip"):
        drop(account, name)

    def names(**query: str) -> set[str]:
        rows = page.json("files", state="waiting", **query)["files"]
        return {row["name"] for row in rows}

    assert len(names()) == 3
    assert names(job="packages") == {"packages/june.zip"}
    assert names(name="may") == {"journals/USMF/may.csv", "journals/DEMF/MAY.csv"}
    assert names(job="journals", name="DEMF/") == {"journals/DEMF/MAY.csv"}
    assert names(name="journals/US") == {"journals/USMF/may.csv"}
    assert names(since="2026-01-01", until="2199-01-01") == names()
    assert names(since="2199-01-01") == set()
    assert set(contents(account, IMPORTS)) == names()


def verdicts(page: Page) -> dict[str, tuple[str, str]]:
    """What the check says of each thing."""
    lines = page.json("check")["lines"]
    return {line["what"]: (line["verdict"], line["text"]) for line in lines}


def test_the_check_of_a_sound_set_up_finds_nothing_wrong(
    page: Page, account: DataAccount, d365: Simulator
) -> None:
    """Every thing is tried, the probe's event comes, nothing is taken or left behind, nothing was sent."""
    results = verdicts(page)
    assert not [each for each in results.items() if each[1][0] == "wrong"]
    assert results["event of a dropped file"][0] == "ok"
    assert results["import job journals"][0] == "can't tell"
    assert results["export job vendors"][0] == "can't tell"
    page.host.invoke("export_packages")
    assert verdicts(page)["export job vendors"][0] == "ok"
    for container in CONTAINERS:
        assert not contents(account, container)
    assert account.queue(STATUS_QUEUE).get_queue_properties().approximate_message_count == 0
    assert not d365.received
    assert d365.count("dequeue") == 1
    assert "Will it work?" in page.get("check").text


def test_the_check_tells_401_from_403_and_both_from_silence(page: Page, d365: Simulator) -> None:
    """Each with the step to take."""
    d365.registered = False
    verdict, text = verdicts(page)["D365"]
    assert (verdict, "Microsoft Entra applications" in text) == ("wrong", True)
    d365.registered = True
    d365.add_fault("message_status", "answer", status=401, times=-1)
    verdict, text = verdicts(page)["D365"]
    assert (verdict, "D365_URL is this environment's own address" in text) == ("wrong", True)
    d365.faults.clear()
    d365.add_fault("message_status", "answer", status=302, times=-1)
    assert "sign-in page" in verdicts(page)["D365"][1]


def test_the_check_says_that_no_token_can_be_had(start: Start) -> None:
    """The identity endpoint refuses."""
    with start(IDENTITY_HEADER="another") as app:
        results = verdicts(Page(app))
    assert results["token"][0] == "wrong"
    assert "managed identity" in results["token"][1]


def test_the_check_misses_a_container_an_event_and_sees_poison(
    page: Page, account: DataAccount
) -> None:
    """What each means stands beside it, and the probe that found no event is gone."""
    page.host.deliver_events(False)
    poison = account.queue("import-status-poison")
    with contextlib.suppress(ResourceExistsError):
        poison.create_queue()
    poison.send_message("{}")
    account.blobs.delete_container(SUCCEEDED)
    account.queue(NOTIFICATIONS_QUEUE).delete_queue()
    try:
        results = verdicts(page)
    finally:
        wait_for(lambda: _made(account, SUCCEEDED), page.host.output)
        account.queue(NOTIFICATIONS_QUEUE).create_queue()
    assert results[f"container {SUCCEEDED}"][0] == "wrong"
    assert "it is missing" in results[f"container {SUCCEEDED}"][1]
    assert results[f"queue {NOTIFICATIONS_QUEUE}"][0] == "wrong"
    assert "(QueueNotFound): it is missing" in results[f"queue {NOTIFICATIONS_QUEUE}"][1]
    assert results["poison queues"][0] == "wrong"
    assert results["event of a dropped file"][0] == "wrong"
    assert "reconcile" in results["event of a dropped file"][1]
    assert not contents(account, IMPORTS)


def _made(account: DataAccount, container: str) -> bool:
    with contextlib.suppress(ResourceExistsError):
        account.blobs.create_container(container)
    return True


def test_an_export_that_fails_is_told_by_the_check(page: Page, d365: Simulator) -> None:
    """A wrong activity id shows with the first run."""
    d365.export_jobs.clear()
    page.host.invoke("export_packages")
    verdict, text = verdicts(page)["export job vendors"]
    assert (verdict, "404" in text) == ("wrong", True)


def test_a_script_sends_a_file_again_by_json(
    page: Page, account: DataAccount, d365: Simulator
) -> None:
    """The same rules, without a browser."""
    drop(account, "journals/USMF/may.csv", BAD)
    row = page.failed()
    d365.reject_text = b""
    order = {**by(row, "resend"), "confirm": True}
    for lacks in ("by", "why", "name", "etag"):
        answer = requests.post(
            f"{page.root}/api/act", json={**order, lacks: None}, headers=page.key, timeout=60
        )
        assert (answer.status_code, lacks in answer.json()["error"]) == (400, True)
    answer = requests.post(f"{page.root}/api/act", json=order, headers=page.key, timeout=60)
    assert answer.json() == {"did": "resend", "name": "journals/USMF/may.csv"}
    again = requests.post(
        f"{page.root}/api/act", json=by(row, "resend"), headers=page.key, timeout=60
    )
    assert (again.status_code, "error" in again.json()) == (409, True)
    wait_for(lambda: contents(account, SUCCEEDED), page.host.output)
    assert len(d365.received) == 2


def test_who_has_signed_in_can_t_say_to_be_another(page: Page, account: DataAccount) -> None:
    """Easy Auth's header goes before what the form says."""
    drop(account, "journals/USMF/may.csv", BAD)
    row = page.failed()
    signed_in = {"X-MS-CLIENT-PRINCIPAL-NAME": "ada@contoso.com"}
    shown = requests.get(
        f"{page.root}/file",
        {"in": FAILED, "name": row["name"]},
        headers={**page.key, **signed_in},
        timeout=60,
    )
    assert 'value="ada@contoso.com" readonly' in shown.text
    form = by(row, "dismiss", by="Somebody else")
    assert page.act(form, {**OWN_PAGE, **signed_in}).status_code == 303
    whole = page.json("file", **{"in": FAILED, "name": row["name"]})
    assert whole["record"]["resolvedby"] == "ada@contoso.com"
