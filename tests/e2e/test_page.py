"""The operator's page in a real browser: by clicks and keys, without JavaScript, in light, dark and on a phone.

`SCREENSHOTS=folder` keeps what the browser showed.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from local.chromium import find_chromium
from local.host_process import ROOT, RunningHost
from local.samples import VENDORS, package
from local.samples import Part as Entity
from local.simulator import Simulator
from shared.storage.account import FAILED, PROCESSING, SUCCEEDED, DataAccount
from tests.e2e.helpers import Start
from tests.faults.scenario import NOWHERE
from tests.helpers import EXPORT_ID, IMPORT_ID, PATIENCE, contents, drop, wait_for

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE: Final = {"width": 390, "height": 844}
DESK: Final = {"width": 1200, "height": 900}
BAD: Final = b"1;2;REJECT"

type Open = Callable[..., Page]


@pytest.fixture
def options() -> tuple[str, ...]:
    """The browser sees no difference between the two ways of starting a worker: one of them."""
    return ()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    executable = find_chromium()
    if not executable:
        pytest.fail(
            "no Chromium was found: install it (Debian: apt-get install chromium), or name a Chromium, "
            "Chrome or Edge in CHROMIUM"
        )
    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, app: RunningHost) -> Iterator[Open]:
    """Opens a view of the app."""
    with opening(browser, app) as open_:
        yield open_


@contextmanager
def opening(browser: Browser, app: RunningHost) -> Iterator[Open]:
    """Opens a view; keywords are of the browser's context. A complaint of the browser fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(view: str = "", **options: Any) -> Page:
        options = {"viewport": DESK, "java_script_enabled": False, **options}
        context = browser.new_context(**options)
        context.set_default_timeout(1000 * PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(
            f"{app.url}/api/operate{'/' if view else ''}{view}{'&' if '?' in view else '?'}code={app.key}"
        )
        return page

    yield opened
    for context in contexts:
        context.close()
    # That a refusal is answered with 409 is no news.
    assert not [text for text in complaints if "Failed to load resource" not in text]


def keep(page: Page, name: str) -> None:
    """Keep what the browser shows, where somebody wants to look at it."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def failed(account: DataAccount, host: RunningHost, files: int = 1) -> None:
    """Wait until so many files have failed, and none of them is on its way any more."""
    wait_for(lambda: len(contents(account, FAILED)) == 2 * files, host.output)
    wait_for(lambda: not contents(account, PROCESSING), host.output)


def test_a_person_sees_a_file_fail_mends_it_and_sees_it_succeed(
    open_page: Open, account: DataAccount, d365: Simulator, app: RunningHost
) -> None:
    """From the first page to the file, by clicks alone; nothing is sent before the box is ticked."""
    drop(account, "journals/USMF/may.csv", BAD)
    failed(account, app)
    page = open_page()
    # Its one failed file; the other 1 is what ended in 24 hours.
    page.get_by_role("row", name=re.compile("journals")).get_by_role("link", name="1").first.click()
    expect(page.get_by_text(d365.reject_errors[0])).to_be_visible()
    page.get_by_role("link", name="journals/USMF/may.csv").click()
    expect(page.get_by_text("What to do:")).to_be_visible()
    expect(page.get_by_text(d365.reject_errors[1]).first).to_be_visible()
    d365.reject_text = b""
    page.locator("summary", has_text="Resend").click()
    form = page.locator("form").filter(has=page.get_by_role("button", name="Resend"))
    form.get_by_label("Who you are").fill("Ada")
    form.get_by_label("Why").fill("the journal balances now")
    form.get_by_role("button").click()
    expect(page.get_by_role("heading", name="Done")).not_to_be_visible()
    assert len(d365.received) == 1
    form.get_by_role("checkbox").check()
    form.get_by_role("button").click()
    expect(page.get_by_role("status")).to_contain_text("journals/USMF/may.csv")
    wait_for(lambda: contents(account, SUCCEEDED), app.output)
    page.get_by_role("link", name="Succeeded").click()
    page.get_by_role("link", name="journals/USMF/may.csv").click()
    expect(page.get_by_text("the journal balances now")).to_be_visible()
    assert len(d365.received) == 2


def test_a_held_file_is_released_by_its_message_id(
    open_page: Open, account: DataAccount, d365: Simulator, app: RunningHost
) -> None:
    """A wrong id is refused in words; the right one sees it through, with one enqueue."""
    d365.add_fault("enqueue", "reset-after")
    drop(account, "journals/USMF/may.csv")
    failed(account, app)

    def release(message_id: str) -> Page:
        page = open_page("files?state=held")
        page.get_by_role("link", name="journals/USMF/may.csv").click()
        page.get_by_text("Mark as received", exact=True).first.click()
        form = page.locator("form").filter(has=page.get_by_label("Message id in D365"))
        form.get_by_label("Message id in D365").fill(message_id)
        form.get_by_label("Who you are").fill("Ada")
        form.get_by_label("Why").fill("found under Manage messages")
        form.get_by_role("checkbox").check()
        form.get_by_role("button").click()
        return page

    refused = release("99999999-9999-4999-8999-999999999999")
    expect(refused.get_by_role("alert")).to_contain_text("does not know that message id")
    done = release(d365.received[0].message_id)
    expect(done.get_by_role("status")).to_be_visible()
    wait_for(lambda: contents(account, SUCCEEDED), app.output)
    assert len(d365.received) == 1


def test_a_file_that_went_on_is_not_touched_by_an_old_page(
    open_page: Open, account: DataAccount, d365: Simulator, app: RunningHost
) -> None:
    """Two people look at the same file; the second one's form does nothing, and says why."""
    drop(account, "journals/USMF/may.csv", BAD)
    failed(account, app)
    pages = [open_page("files"), open_page("files")]
    for page in pages:
        page.get_by_role("link", name="journals/USMF/may.csv").click()
        page.locator("summary", has_text="Dismiss").click()
        form = page.locator("form").filter(has=page.get_by_role("button", name="Dismiss"))
        form.get_by_label("Who you are").fill("Ada")
        form.get_by_label("Why").fill("corrected by hand")
        form.get_by_role("checkbox").check()
    for page in pages:
        page.get_by_role("button", name="Dismiss").click()
    expect(pages[0].get_by_role("status")).to_contain_text("Dismissed")
    expect(pages[1].get_by_role("alert")).to_contain_text("has changed since you looked at it")


def test_the_keyboard_reaches_everything(
    open_page: Open, account: DataAccount, app: RunningHost
) -> None:
    """Skip link first, then the navigation; a form opens with Enter and is filled by Tab."""
    drop(account, "journals/USMF/may.csv", BAD)
    failed(account, app)
    page = open_page("files")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Jobs")).to_be_focused()
    page.get_by_role("link", name="journals/USMF/may.csv").focus()
    page.keyboard.press("Enter")
    summary = page.locator("summary", has_text="Resend")
    summary.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#resend-by")).to_be_focused()
    outline = summary.evaluate("e => { e.focus(); return getComputedStyle(e).outlineStyle }")
    assert outline == "solid"


@pytest.fixture
def full(account: DataAccount, d365: Simulator, app: RunningHost) -> RunningHost:
    """The app with something of everything."""
    d365.add_package(EXPORT_ID, package("Vendors", [Entity(VENDORS, 20)]))
    d365.add_package(EXPORT_ID, b"not a zip")
    app.invoke("export_packages")
    d365.add_fault("enqueue", "reset-after")
    drop(account, "journals/USMF/a held one.csv")
    failed(account, app)
    drop(account, f"journals/USMF/{'long ' * 30}Ünïcode 日本.csv", BAD)
    drop(account, "journals/USMF/june.csv")
    failed(account, app, 2)
    wait_for(lambda: contents(account, SUCCEEDED), app.output)
    drop(account, "nowhere/july.csv")
    failed(account, app, 3)
    app.deliver_events(False)
    drop(account, "packages/waits.zip")
    return app


VIEWS: Final = ("", "recent", "files", "files?state=exported", "files?state=waiting")
LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": PHONE},
}


def test_axe_finds_nothing_that_keeps_people_out(
    open_page: Open, full: RunningHost, subtests: pytest.Subtests
) -> None:
    """Labels, contrast, structure, names, language: every view, every form open; nothing wider than a phone."""
    for look in LOOKS:
        with subtests.test(look):
            look_at_every_view(open_page, look)
    full.deliver_events(True)  # so that the check need not wait for its probe's
    for look in LOOKS:
        with subtests.test(f"{look}, check"):
            look_at(open_page("check", **LOOKS[look], **SCRIPTED), f"{look}-check")


SCRIPTED: Final[dict[str, Any]] = {"java_script_enabled": True, "bypass_csp": True}
"""axe is a script."""


def look_at(page: Page, name: str) -> None:
    """As axe does."""
    keep(page, name)
    page.evaluate((ROOT / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    # The viewer can stop the page from refreshing (WCAG 2.2.1), which axe can't see.
    violations = page.evaluate("axe.run({rules: {'meta-refresh': {enabled: false}}})")["violations"]
    wrong = [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in violations]
    assert not wrong, name
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{name} is {wide} px too wide"


def look_at_every_view(open_page: Open, look: str) -> None:
    """But the check."""
    page = open_page(**LOOKS[look], **SCRIPTED)
    root, _, key = page.url.partition("?")
    for view in VIEWS:
        address = f"{root}/{view}".rstrip("/")
        page.goto(f"{address}{'&' if '?' in view else '?'}{key}")
        look_at(page, f"{look}-{re.sub(r'\W+', '-', view) or 'jobs'}")
    page.goto(f"{root}/files?state=held&{key}")
    page.get_by_role("link", name="a held one").click()
    for summary in page.locator("summary").all():
        summary.click()
    look_at(page, f"{look}-held")
    page.goto(f"{root}/files?{key}")
    page.get_by_role("link", name="Ünïcode").click()
    look_at(page, f"{look}-failed")


@pytest.fixture
def two(start: Start, account: DataAccount, d365: Simulator) -> Iterator[RunningHost]:
    """The app with two environments: one that has done all, and one that is down."""
    urls = {"production": d365.base_url, "test": NOWHERE}
    jobs = {
        "environments": [{"name": name, "url": url} for name, url in urls.items()],
        "exports": [
            {"name": f"{name}-vendors", "activityId": EXPORT_ID, "environment": name}
            for name in urls
        ],
        "imports": [
            {
                "name": f"{name}-journals",
                "activityId": IMPORT_ID,
                "entity": "General journal",
                "environment": name,
            }
            for name in urls
        ],
    }
    with start(jobs, D365_URL="") as host:
        for name in urls:
            drop(account, f"{name}-journals/USMF/may.csv")
        d365.add_package(EXPORT_ID, package("Vendors", [Entity(VENDORS, 20)]))
        host.invoke("export_packages")
        wait_for(lambda: contents(account, SUCCEEDED), host.output)
        wait_for(lambda: '"reason": "enqueue: no answer' in host.output(), host.output)
        yield host


def test_two_environments_of_which_one_is_down(
    browser: Browser, two: RunningHost, account: DataAccount, subtests: pytest.Subtests
) -> None:
    """Each job shows its environment, in that one's colour. The check says of either what is true of it, and a
    file of the one that is down says why it waits."""
    with opening(browser, two) as open_page:
        page = open_page()
        colours = {}
        for name in ("production", "test"):
            labels = page.locator("table .environment", has_text=name)
            expect(labels).to_have_count(2)
            colours[name] = labels.first.evaluate("e => getComputedStyle(e).borderLeftColor")
        assert colours["production"] != colours["test"]
        page = open_page("files?state=processing")
        page.get_by_role("link", name="test-journals").first.click()
        expect(page.get_by_text("Connection refused").first).to_be_visible()
        expect(page.locator("dd .environment", has_text="test")).to_be_visible()
        for look in LOOKS:
            with subtests.test(look):
                for view in ("", "recent", "files", "check"):
                    page = open_page(view, **LOOKS[look], **SCRIPTED)
                    look_at(page, f"{look}-two-{view or 'jobs'}")
                rows = {what: page.get_by_role("row", name=f"D365 of {what}") for what in colours}
                expect(rows["production"]).to_contain_text("ok")
                expect(rows["test"]).to_contain_text("the url of test in the jobs file")


def test_dark_is_dark_and_light_is_light(open_page: Open) -> None:
    """As the viewer's system says."""

    def brightness(scheme: str) -> int:
        page = open_page(color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness("dark") < 100
    assert brightness("light") > 600


def test_it_refreshes_unless_that_is_switched_off(open_page: Open) -> None:
    """Without JavaScript; a list, whose filter may be half filled in, only when asked. Links keep that."""

    def refreshes(page: Page) -> bool:
        return page.locator('meta[http-equiv="refresh"]').count() == 1

    page = open_page("files?state=succeeded&name=may")
    assert not refreshes(page)
    page.get_by_role("link", name="Refresh every").click()
    assert refreshes(page)
    expect(page.get_by_label("Name")).to_have_value("may")
    expect(page.get_by_label("State")).to_have_value("succeeded")
    page.get_by_role("link", name="stop").click()
    assert not refreshes(page)
    page = open_page()
    assert refreshes(page)
    page.get_by_role("link", name="stop").click()
    assert not refreshes(page)
    page.get_by_role("link", name="Recent").click()
    assert not refreshes(page)
    page.get_by_role("link", name="Refresh every").click()
    assert refreshes(page)
    page.get_by_role("link", name="Files").click()
    assert not refreshes(page)
