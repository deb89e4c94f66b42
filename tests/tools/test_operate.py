"""`d365-blob-bridge operate`: what a script and a person at a prompt get. Neither does anything by accident."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from local.azurite import Azurite
from local.host_process import ROOT
from local.simulator import Simulator, identity_settings
from shared.bridge import Bridge
from shared.config import jobs
from shared.exports.run import export_job, export_packages
from shared.imports import intake
from shared.operations import views
from shared.storage.account import FAILED, IMPORTS, DataAccount
from shared.storage.records import File
from tests.helpers import JOBS, contents, drop, only, work_queue
from tools import operate

SUPPLIERS = {
    "name": "suppliers",
    "api": "package",
    "dataProject": "Vendors out",
    "schedule": "0 0 0 1 1 *",
}
ID = "46d58f0b-5bb8-4b72-9b6b-1c0e6a1b1e6a"

type Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(azurite: Azurite, d365: Simulator, account: DataAccount, tmp_path: Path) -> Run:
    """Runs a command on the app settings of the tests; `stdin` is what is typed."""
    (tmp_path / "jobs.json").write_text(json.dumps(JOBS))
    values = {
        "DataStorage": azurite.connection_string,
        "D365_URL": d365.base_url,
        "JOBS_FILE": str(tmp_path / "jobs.json"),
        **identity_settings(d365),
    }
    settings = tmp_path / "local.settings.json"
    settings.write_text(json.dumps({"Values": values}))

    def command(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tools", "operate", "--settings", str(settings), *words],
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=120,
        )

    return command


@pytest.fixture
def rejected(bridge: Bridge) -> File:
    """A file that D365 has rejected."""
    drop(bridge.account, "journals/USMF/may.csv", b"1;2;REJECT")
    intake.import_file(bridge, "journals/USMF/may.csv")
    work_queue(bridge)
    return only(bridge.account, FAILED)


def test_a_script_lists_and_sends_again_the_version_that_it_means(
    run: Run, rejected: File, account: DataAccount
) -> None:
    """JSON lines in, an ETag back; with an old ETag nothing is done."""
    (line,) = run("list", "--json").stdout.splitlines()
    row = json.loads(line)
    assert (row["name"], row["etag"], row["reason"]) == (
        rejected.name,
        rejected.etag,
        "not-imported",
    )
    words = ("resend", row["name"], "--why", "it balances now", "--by", "Ada", "--yes")
    assert "needs --etag" in run(*words).stderr
    assert "changed since" in run(*words, "--etag", '"0x1"').stderr
    assert not contents(account, IMPORTS)
    done = run(*words, "--etag", row["etag"])
    assert (done.returncode, done.stdout) == (0, "Done: imports/journals/USMF/may.csv\n")
    dropped = only(account, IMPORTS)
    assert dropped.user_metadata["resentby"] == "Ada"


def test_what_commands_a_terminal_does_not_reach_it(
    run: Run, bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Neither from D365's errors nor from a file's name."""
    d365.reject_errors = ["Bad.\x1b[2J\x9b31m"]
    intake.import_file(bridge, drop(account, "journals/may\x9b31m.csv", b"1;2;REJECT"))
    work_queue(bridge)
    for words in (("list",), ("list", "--json"), ("show", "may"), ("recent",)):
        answer = run(*words)
        assert "\x1b" not in answer.stdout + answer.stderr, words
        assert "\x9b" not in answer.stdout + answer.stderr, words
    assert "Bad." in run("list").stdout


def test_a_person_is_shown_the_file_and_asked(
    run: Run, rejected: File, account: DataAccount
) -> None:
    """Anything but yes does nothing."""
    for stdin in ("", "no\n", "y\n"):
        answer = run("resend", "may.csv", "--why", "x", stdin=stdin)
        assert "The journal does not balance" in answer.stdout
        assert (answer.returncode, "Nothing was done" in answer.stderr) == (1, True)
    assert only(account, FAILED).etag == rejected.etag
    assert run("dismiss", "may", "--why", "x", stdin="yes\n").returncode == 0
    assert only(account, FAILED).record.resolution == "dismissed"


def test_what_came_last_and_how_far_a_search_went_is_told(
    run: Run, account: DataAccount, noted: DataAccount, bridge: Bridge
) -> None:
    """Where it found nothing, too."""
    intake.import_file(bridge, drop(noted, "journals/may.csv"))
    work_queue(bridge)
    assert run("recent").stdout.startswith("succeeded ")
    (line,) = run("recent", "--job", "journals", "--json").stdout.splitlines()
    assert json.loads(line)["name"].startswith("journals/may.")
    assert run("recent", "--job", "vendors").stdout == ""
    for number in range(views.ROWS + 1):
        drop(account, f"journals/{number:03}.csv")
    assert run("list", "waiting").stderr.startswith("50 files were read, and there are more")


def test_a_person_is_told_what_d365_has_already(
    run: Run, rejected: File, bridge: Bridge, account: DataAccount
) -> None:
    """With what to do, before the question; of what D365 has surely not there is nothing to mind."""
    answer = run("resend", "may.csv", "--why", "x").stdout
    assert "What to do: See D365's errors" in answer
    assert f"as the message {rejected.record.messageid}" in answer
    assert "posted twice" not in run("dismiss", "may.csv", "--why", "x").stdout
    intake.import_file(bridge, drop(account, "nowhere/june.csv"))
    answer = run("resend", "june.csv", "--why", "x").stdout
    assert ("What to do: Drop the file into the right folder" in answer, "Warning" in answer) == (
        True,
        False,
    )


def test_a_part_of_a_name_must_mean_one_file(run: Run, account: DataAccount) -> None:
    """Both are named, so that the person can choose."""
    for name in ("journals/a-may.csv", "journals/b-may.csv"):
        drop(account, name)
    answer = run("show", "may", "--state", "waiting")
    assert answer.returncode == 1
    assert "journals/a-may.csv" in answer.stderr
    assert "journals/b-may.csv" in answer.stderr
    shown = json.loads(run("show", "a-may", "--state", "waiting").stdout)
    assert shown["size"] == 5


def test_the_one_file_that_a_name_means_is_found_wherever_it_lies(
    bridge: Bridge, account: DataAccount, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """Beyond the first page too; by its whole path also where others begin so."""
    monkeypatch.setattr(views, "STEP", 2)
    monkeypatch.setattr(views, "LOOKED_AT", 2)
    monkeypatch.setattr(views, "ROWS", 1)
    for name in ("a1.csv", "a2.csv", "may.csv", "may.csv.zip", "may/1.csv", "zmay.csv"):
        drop(account, f"journals/{name}")
    drop(account, "may.csv")
    for name, expected in (
        ("zmay", "journals/zmay.csv"),
        ("journals/may.csv", "journals/may.csv"),
        ("may.csv", "may.csv"),
        ("journals/may/", "journals/may/1.csv"),
    ):
        with subtests.test(name):
            assert operate._find(bridge, "waiting", name).name == expected
    for name, says in (
        ("ay", "Name one of them"),
        ("journals/may", "Name one of them"),
        ("june", "No file"),
    ):
        with subtests.test(name), pytest.raises(SystemExit, match=says):
            operate._find(bridge, "waiting", name)


def test_only_a_held_file_can_be_received(run: Run, rejected: File) -> None:
    """A failed one is resent."""
    assert rejected.record.state == "failed"
    assert (
        "is not held"
        in run("receive", "may", "--message-id", ID, "--why", "x", stdin="yes\n").stderr
    )


@pytest.fixture
def project(
    run: Run, bridge: Bridge, d365: Simulator, tmp_path: Path, noted: DataAccount
) -> Bridge:
    """A bridge with a job that exports a data project, which the commands know too."""
    text = json.dumps({"exports": [SUPPLIERS]})
    (tmp_path / "jobs.json").write_text(text)
    d365.projects["Vendors out"] = "plain"
    settings = replace(bridge.settings, jobs=jobs.parse(text.encode()))
    return replace(bridge, settings=settings)


def test_a_person_exports_a_data_project_now(run: Run, project: Bridge, d365: Simulator) -> None:
    """After being shown the last export and asked; only once, until it has ended."""
    words = ("run", "suppliers", "--why", "the auditors ask", "--by", "Ada")
    export_packages(project)
    answer = run(*words, stdin="no\n")
    assert "suppliers exports Vendors out; the last export ended never" in answer.stdout
    assert (answer.returncode, "Nothing was done" in answer.stderr) == (1, True)
    answer = run(*words, stdin="yes\n")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Done: an export of suppliers was requested" in answer.stdout
    assert "an export of suppliers is under way" in run(*words, stdin="yes\n").stderr
    assert run("runs", "suppliers").stdout.startswith("planned ")
    for _ in range(9):
        export_job(project, {"job": "suppliers"})
    (d365_execution,) = d365.executions
    line = run("runs", "suppliers").stdout
    assert line.startswith("stored ")
    assert f"suppliers/{d365_execution.execution_id}.zip" in line
    (last,) = json.loads(run("runs", "suppliers", "--json").stdout)["last"]
    assert (last["by"], last["why"]) == ("Ada", "the auditors ask")
    assert f"the last export ended {last['ended']}" in run(*words).stdout


def test_a_script_exports_a_data_project_that_it_has_seen(
    run: Run, project: Bridge, d365: Simulator
) -> None:
    """With the ETag of what it saw; what failed is told with the reason."""
    d365.package_api.statuses = ("Failed",)
    export_packages(project)
    words = ("run", "suppliers", "--why", "now", "--yes")
    assert "needs --etag" in run(*words).stderr
    assert "has gone on since" in run(*words, "--etag", '"0x1"').stderr
    etag = json.loads(run("runs", "suppliers", "--json").stdout)["etag"]
    assert run(*words, "--etag", etag).returncode == 0
    assert "has gone on since" in run(*words, "--etag", etag).stderr
    for _ in range(9):
        export_job(project, {"job": "suppliers"})
    lines = run("runs", "suppliers").stdout
    assert lines.startswith("failed ")
    assert "Vendor 1 has no name." in lines
    assert len(d365.executions) == 1


def test_an_export_that_there_is_not_is_told_so(run: Run, project: Bridge) -> None:
    """A name that no job has, and a job that the app has not seen yet."""
    for words in (("runs", "vendors"), ("run", "vendors", "--why", "x")):
        assert "There is no job vendors that exports a data project" in run(*words).stderr
    assert run("runs", "suppliers").stdout == ""
    answer = run("run", "suppliers", "--why", "x", stdin="yes\n")
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "the app has not seen suppliers yet" in answer.stderr


def test_the_check_s_exit_code_says_whether_something_is_wrong(run: Run, d365: Simulator) -> None:
    """No app runs here, so no event can come: that line alone is wrong."""
    answer = run("check", "--wait", "0", "--json")
    lines = {line["what"]: line for line in map(json.loads, answer.stdout.splitlines())}
    wrong = [what for what, line in lines.items() if line["verdict"] == "wrong"]
    assert (answer.returncode, wrong) == (1, ["event of a dropped file"])
    d365.registered = False
    assert "wrong      D365" in run("check", "--wait", "0").stdout


def test_the_settings_of_an_app_in_azure_mean_your_own_sign_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app's managed identity is not to be had here; a client secret or the demo's identity is."""
    identity = {"DataStorage__clientId": "m", "AZURE_CLIENT_ID": "m"}

    def loaded(**values: str) -> dict[str, str]:
        (tmp_path / "app.json").write_text(json.dumps({"Values": values}))
        with mock.patch.dict("os.environ"):
            for name in (*identity, "IDENTITY_ENDPOINT"):
                os.environ.pop(name, None)
            operate._load(tmp_path / "app.json")
            return {name: os.environ[name] for name in values if name in os.environ}

    assert loaded(**identity, D365_URL="https://x") == {"D365_URL": "https://x"}
    secret = {"AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}
    assert loaded(**secret) == secret
    demo = {**identity, "IDENTITY_ENDPOINT": "http://127.0.0.1:1"}
    assert loaded(**demo) == demo


def test_wrong_settings_are_told_without_a_traceback(run: Run, tmp_path: Path) -> None:
    """Every mistake of the settings, of the jobs file, and a file that is not there."""
    (tmp_path / "jobs.json").write_text('{"imports": [{"name": "a/b"}]}')
    answer = run("list")
    assert answer.returncode == 1
    assert "imports[0].activityId: missing" in answer.stderr
    assert "Traceback" not in answer.stderr
    (tmp_path / "local.settings.json").write_text('{"Values": {}}')
    assert "D365_URL: missing" in run("list").stderr
    (tmp_path / "local.settings.json").unlink()
    assert "can't be read" in run("list").stderr
