"""The check: what the tests of the page (tests/e2e/test_operate.py) can't see."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from local import samples
from local.simulator import Simulator
from shared.bridge import Bridge
from shared.config import jobs
from shared.exports.run import export_packages
from shared.imports import intake
from shared.operations import health
from shared.storage import names
from shared.storage.account import EXPORTS, IMPORTS, PROCESSING, DataAccount
from tests.helpers import JOBS, Later, contents, drop, make_bridge, work_queue

VENDORS = samples.package("Vendors", [samples.Part(samples.VENDORS, 1)])
OTHER_ID = "99999999-9999-4999-8999-999999999999"


@pytest.fixture
def worked(bridge: Bridge, noted: DataAccount) -> Bridge:
    """A bridge that has sent a file and served an export queue; the journal knows of both."""
    for name in ("journals/may.csv", "journals/june.csv"):
        intake.import_file(bridge, drop(noted, name))
    work_queue(bridge)
    export_packages(bridge)
    return bridge


def verdict(bridge: Bridge, what: str) -> tuple[str, str]:
    """What the check says of one thing."""
    (line,) = (line for line in health.check(bridge, 0) if line.what == what)
    return line.verdict, line.text


def test_nothing_is_written_where_packages_are_fetched(
    bridge: Bridge, noted: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes what lies in `exports` would take a probe too, however soon it is deleted."""
    written: list[str] = []
    upload = ContainerClient.upload_blob

    def write(self: ContainerClient, name: str, *args: Any, **kw: Any) -> Any:
        blob = upload(self, name, *args, **kw)
        written.append(self.container_name)
        return blob

    monkeypatch.setattr(ContainerClient, "upload_blob", write)
    assert verdict(bridge, "container exports")[0] == "ok"
    assert PROCESSING in written
    assert EXPORTS not in written


def test_an_import_job_is_right_when_d365_has_its_last_file(
    worked: Bridge, d365: Simulator
) -> None:
    """Under the activity id that the job has now: another one is not proved by what the old one did."""
    assert verdict(worked, "import job journals")[0] == "ok"
    changed = make_bridge(d365, worked.account, activityId=OTHER_ID)
    outcome, text = verdict(changed, "import job journals")
    assert (outcome, OTHER_ID in text) == ("can't tell", True)
    for received in d365.received:  # the journal's lines are right, but D365 says no
        received.activity_id = OTHER_ID
    outcome, text = verdict(worked, "import job journals")
    assert (outcome, "404" in text) == ("can't tell", True)


def test_a_job_that_d365_denies_is_wrong_whatever_went_before(
    worked: Bridge, d365: Simulator
) -> None:
    """Its policy was changed after its last file."""
    d365.add_fault("job_status", "answer", status=403, times=-1)
    outcome, text = verdict(worked, "import job journals")
    assert (outcome, "authorisation policy" in text) == ("wrong", True)


def test_an_export_job_is_right_by_the_runs_of_its_present_id(
    worked: Bridge, d365: Simulator
) -> None:
    """What a run with another id met says nothing."""
    assert verdict(worked, "export job vendors")[0] == "ok"
    raw = json.loads(json.dumps(JOBS))
    raw["exports"][0]["activityId"] = OTHER_ID
    settings = replace(worked.settings, jobs=jobs.parse(json.dumps(raw).encode()))
    changed = Bridge(settings, worked.clients, worked.account)
    assert verdict(changed, "export job vendors")[0] == "can't tell"


def test_a_page_instead_of_json_is_not_d365(bridge: Bridge, d365: Simulator) -> None:
    """As a proxy or a wrong host answers: with 200, and HTML."""
    page = "<html><body>Welcome</body></html>"
    d365.add_fault("message_status", "answer", status=200, body=page, times=-1)
    outcome, text = verdict(bridge, "D365")
    assert (outcome, "not JSON: Welcome" in text) == ("wrong", True)


def test_a_check_leaves_the_probe_of_another_alone(
    bridge: Bridge, account: DataAccount, later: Later
) -> None:
    """Only one that a check has left behind goes; and no file that somebody gave such a name."""
    other, file = drop(account, names.new_probe()), drop(account, ".check-list.csv")

    def check() -> set[str]:
        (line,) = (line for line in health.check(bridge, 0) if line.what.startswith("event"))
        assert line.verdict == "wrong"
        return set(contents(account, IMPORTS))

    assert check() == {other, file}
    later(timedelta(minutes=11))
    assert check() == {file}


def test_a_job_of_the_package_api_is_right_when_d365_has_its_last_execution(
    bridge: Bridge, noted: DataAccount, d365: Simulator
) -> None:
    """Before its first file only the way in is known; a user without the role is told what to grant."""
    what = "import job projects"
    assert verdict(bridge, what) == (
        "can't tell",
        "D365 answers to the application; whether it may import into the data project Vendors in, only a first "
        "file can show.",
    )
    intake.import_file(bridge, drop(noted, "projects/vendors.zip", VENDORS))
    work_queue(bridge)
    assert verdict(bridge, what)[0] == "ok"
    d365.add_fault("execution_status", "answer", status=403, times=-1)
    outcome, text = verdict(bridge, what)
    assert (outcome, "Data management operations user" in text) == ("wrong", True)
