"""What people do about files that failed or are held, as `docs/operations.md` tells them: the flow `resend`."""

import os
from contextlib import suppress
from datetime import timedelta
from unittest import mock

import requests

from local.host_process import RunningHost
from local.simulator import identity_settings
from shared.bridge import Bridge, new_clients
from shared.config import jobs, settings
from shared.config.environments import ONLY, Environment
from shared.imports import advance, intake
from shared.storage import files
from shared.storage.account import FAILED, PROCESSING, STATUS_QUEUE, SUCCEEDED
from shared.storage.records import File
from tests.faults.scenario import Scenario

REFUSED, REJECTED, HELD, HELD_AND_REJECTED = (
    f"USMF/{name}.csv" for name in ("refused", "rejected", "held", "held and rejected")
)


def trouble(scenario: Scenario) -> None:
    """Files that ended otherwise than people want: one that D365 never took, one that it has and rejected, and
    two of which the answer was lost."""
    settings_ = settings.Settings(
        (Environment(ONLY, scenario.d365.base_url),),
        settings.Storage("", None, None, None),
        jobs.parse((scenario.folder / "jobs.json").read_bytes()),
        settings.EXPORT_PARALLELISM,
        timedelta(minutes=30),
    )
    job = scenario.activity_id(0)
    with mock.patch.dict(os.environ, identity_settings(scenario.d365)):
        bridge = Bridge(settings_, new_clients(settings_), scenario.account)
        scenario.d365.add_fault("enqueue", "answer", activity_id=job, status=400)
        _send(bridge, scenario, REFUSED, f"1;{scenario.number}")
        _send(bridge, scenario, REJECTED, f"2;REJECT;{scenario.number}")
        (sent,) = files.listed(scenario.account, PROCESSING)
        advance.check_status(bridge, {"file": sent.name, "etag": sent.etag})
        for name, data in ((HELD, "3;"), (HELD_AND_REJECTED, "4;REJECT;")):
            scenario.d365.add_fault("enqueue", "reset-after", activity_id=job)
            _send(bridge, scenario, name, f"{data}{scenario.number}")
    scenario.account.queue(STATUS_QUEUE).clear_messages()
    files_by_source = {file.record.source: file for file in files.listed(scenario.account, FAILED)}
    assert set(files_by_source) == set(scenario.dropped), files_by_source
    assert {name for name, file in files_by_source.items() if file.record.state == "held"} == {
        f"journals/{HELD}",
        f"journals/{HELD_AND_REJECTED}",
    }


def _send(bridge: Bridge, scenario: Scenario, name: str, data: str) -> None:
    scenario.drop(name, data.encode())
    intake.import_file(bridge, f"journals/{name}")


def tend(scenario: Scenario, host: RunningHost) -> bool:
    """Do about each failed or held file what is to be done; whether there was any.

    As people do it: what is held is looked for in D365, and sent again only where it is not there; what D365
    refused is sent again; what it has and could not import is dismissed.
    """
    waiting = [
        file
        for file in files.listed(scenario.account, FAILED)
        if file.record.resolution != "dismissed"
    ]
    for file in waiting:
        with suppress(requests.RequestException):  # dead just now: there will be another look
            _act(scenario, host, file)
    return bool(waiting)


def _act(scenario: Scenario, host: RunningHost, file: File) -> None:
    if file.record.state != "held":
        refused = file.record.reason == "rejected"
        answer = _post(host, file, "resend" if refused else "dismiss")
    elif receipts := [r for r in scenario.d365.received if r.external_id == file.record.externalid]:
        answer = _post(host, file, "receive", message_id=receipts[0].message_id)
    else:
        answer = _post(host, file, "resend")
    # By us, before the crash; the answer says what to do with this one.
    if "has resent it" in answer:
        _post(host, file, "dismiss")


def _post(host: RunningHost, file: File, do: str, **more: str) -> str:
    """Do it by the API that the page is made of: the error, if it was not done."""
    order = {"do": do, "name": file.name, "etag": file.etag, "confirm": True, **more}
    answer = requests.post(
        f"{host.url}/api/operate/api/act",
        json={**order, "by": "Ada", "why": "a test"},
        headers={"x-functions-key": host.key},
        timeout=60,
    )
    return "" if answer.ok else answer.text


def untended(scenario: Scenario) -> list[str]:
    """What is not as people wanted it: D365 has each file once, and they know of each what became of it."""
    wrong = []
    for name, versions in scenario.locations().items():
        times = scenario.received(scenario.dropped[name])
        if times != 1:
            wrong.append(f"{name}: D365 took it {times} times")
        container = FAILED if name.endswith("rejected.csv") else SUCCEEDED
        containers = [file.container for file in versions]
        if containers != [container]:
            wrong.append(f"{name} is in {containers}, not in {container}")
        elif container == FAILED and versions[0].record.resolution != "dismissed":
            wrong.append(f"{name} is not dismissed")
    return wrong
