"""An attempt to send a file: the intent before it, and how long and how often it is repeated."""

import errno
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from local import samples
from local.simulator import Simulator
from shared.bridge import Bridge
from shared.imports import advance, intake, templates
from shared.storage import files
from shared.storage.account import PROCESSING, TEMPLATES, DataAccount
from tests.helpers import (
    Events,
    Later,
    client_of,
    drop,
    make_bridge,
    only,
    report,
    try_on,
)


def test_a_worker_that_dies_while_it_sends_leaves_its_intent(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next one finds that it was being sent, waits until that worker can't live any more, and holds it."""
    name = drop(account, "journals/may.csv")
    enqueue = client_of(bridge).enqueue

    def die(*args: Any, **kw: Any) -> Any:
        enqueue(*args, **kw)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client_of(bridge), "enqueue", die)
        with pytest.raises(KeyboardInterrupt):
            intake.import_file(bridge, name)
    file = only(account, PROCESSING)
    assert file.record.state == "sending"
    message = {"file": file.name, "etag": file.etag}
    advance.check_status(bridge, message)
    assert only(account, PROCESSING).record.state == "sending"
    later(timedelta(minutes=31))
    advance.check_status(bridge, message)
    assert report(account)["outcome"] == "held"
    assert len(d365.received) == 1


def test_a_file_waits_as_long_as_d365_asks(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """A2: longer than we would by ourselves."""
    d365.add_fault("enqueue", "answer", status=429, times=-1, headers={"Retry-After": "7200"})
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    assert events("file.waiting")[0]["retryInSeconds"] == 7200


def test_a_full_disk_makes_a_file_wait(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    events: Events,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no room for its data package: it is told, tried again, and given up after a day."""
    bridge = make_bridge(d365, account, template="journals.zip")
    part = samples.Part(replace(samples.VENDORS, name="General journal"), 1)
    template = samples.package("General journal", [part])
    account.blobs.get_blob_client(TEMPLATES, "journals.zip").upload_blob(template)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(templates, "wrap", full)
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    assert "No space left" in events("file.waiting")[0]["reason"]
    try_on(bridge, later, timedelta(hours=28), timedelta(minutes=20))
    assert "No space left" in report(account)["error"]
    assert d365.received == []


def test_waiting_has_an_end(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """After a day of 429 the file is filed under failed, saying so."""
    d365.add_fault("enqueue", "answer", status=429, times=-1, headers={"Retry-After": "21600"})
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    tries = 0
    while (file := next(files.listed(account, PROCESSING), None)) and tries < 10:
        later(timedelta(hours=7))
        advance.check_status(bridge, {"file": file.name, "etag": file.etag})
        tries += 1
    assert (report(account)["reason"], d365.received, tries) == ("unavailable", [], 4)


def test_waits_grow_and_have_a_longest(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events, later: Later
) -> None:
    """Seconds at first, a quarter of an hour in the end: what D365 takes again is not left for a day."""
    d365.registered = False
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    try_on(bridge, later, timedelta(hours=3), timedelta(minutes=18))
    waits = [each["retryInSeconds"] for each in events("file.waiting")]
    assert waits == sorted(waits)
    assert (waits[0] < 60, waits[-1]) == (True, 900)
