"""Send: every version of a file reaches D365 once, or is held where nobody can know."""

import gzip
import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from azure.storage.blob import ContentSettings

from local import samples
from local.simulator import Simulator
from shared import clock
from shared.bridge import Bridge
from shared.d365 import transport
from shared.imports import intake, reconciliation
from shared.storage import files
from shared.storage.account import IMPORTS, PROCESSING, SUCCEEDED, DataAccount
from tests.helpers import (
    EXPORT_ID,
    PACKAGE_ID,
    Events,
    Later,
    client_of,
    contents,
    drop,
    make_bridge,
    only,
    report,
    work_queue,
)


def test_a_file_is_sent_as_it_is_and_noted(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Bytes, entity, company and external identifier on the one side; message id and hash on the other."""
    intake.import_file(bridge, drop(account, "journals/USMF/may.csv", b"1;2;3"))
    (received,) = d365.received
    record = only(account, PROCESSING).record
    assert (received.entity, received.company) == ("General journal", "USMF")
    assert (record.state, record.messageid) == ("sent", received.message_id)
    assert (record.sha256, record.externalid) == (received.sha256, received.external_id)
    assert record.source == "journals/USMF/may.csv"
    assert received.headers["Content-Length"] == "5"
    assert not contents(account, IMPORTS)


@pytest.mark.parametrize("name", ["may.csv.gz", "日" * 300 + ".csv"], ids=["short", "long name"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_file_with_a_content_encoding_is_sent_as_it_lies_there(
    bridge: Bridge, d365: Simulator, account: DataAccount, encoding: str, name: str
) -> None:
    """I4: whatever the header says of the bytes, they are never decoded; also where we copy them ourselves."""
    data = gzip.compress(b"".join(b"line %d\n" % number for number in range(400)))
    settings = ContentSettings(content_encoding=encoding)
    blob = account.blobs.get_blob_client(IMPORTS, f"journals/{name}")
    blob.upload_blob(data, content_settings=settings)
    intake.import_file(bridge, f"journals/{name}")
    work_queue(bridge)
    (received,) = d365.received
    assert (received.length, received.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    file = only(account, SUCCEEDED)
    kept = account.blobs.get_blob_client(SUCCEEDED, file.name)
    assert kept.download_blob(decompress=False).readall() == data


def test_a_data_package_is_sent_without_an_entity(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """It names its entities itself."""
    data = samples.package("Vendors", [samples.Part(samples.VENDORS, 5)])
    intake.import_file(bridge, drop(account, "packages/vendors.ZIP", data))
    (received,) = d365.received
    assert (received.activity_id, received.entity, received.company) == (PACKAGE_ID, None, None)


@pytest.mark.parametrize(
    "name",
    [
        "journals/USMF/with space.csv",
        "journals/100% sure #1 a+b.csv",
        "journals/naïve 日本語 😀.csv",
        "journals/USMF/question?&=;,.csv",
        "journals/line\x85break\u2028.csv",
        "journals/no suffix",
        "journals/.日本",
        "journals/may." + "日" * 15,
        "journals/may." + "日" * 30,
        "journals/" + "long" * 252 + ".csv",
        "journals/" + "é" * 1000 + ".csv",
        "journals/" + "日" * 1014,
    ],
    ids=lambda name: name[9:30].encode("ascii", "backslashreplace").decode(),
)
def test_names_of_all_kinds_arrive(
    bridge: Bridge, d365: Simulator, account: DataAccount, name: str
) -> None:
    """Sent once, filed in the end, its name kept in the metadata; the header is plain ASCII on one line."""
    intake.import_file(bridge, drop(account, name))
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.source == name
    (received,) = d365.received
    assert received.external_id.isascii()
    assert received.external_id.isprintable()
    assert len(received.external_id) <= 128


def test_a_file_overwritten_while_it_is_sent(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was claimed is what is sent; the new version waits where it was dropped: a file of its own."""
    name = drop(account, "journals/may.csv", b"old")
    enqueue = client_of(bridge).enqueue

    def overwritten(*args: Any, **kw: Any) -> Any:
        drop(account, name, b"new")
        return enqueue(*args, **kw)

    monkeypatch.setattr(client_of(bridge), "enqueue", overwritten)
    intake.import_file(bridge, name)
    assert contents(account, IMPORTS) == {name: b"new"}
    assert list(contents(account, PROCESSING).values()) == [b"old"]
    monkeypatch.setattr(client_of(bridge), "enqueue", enqueue)
    intake.import_file(bridge, name)
    assert len(d365.received) == 2


def test_the_answer_is_lost_and_the_file_is_held(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """Nobody can know whether D365 has it: the report names what to look for there. It is not sent again."""
    d365.add_fault("enqueue", "reset-after")
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    work_queue(bridge)
    error_report = report(account)
    (received,) = d365.received
    assert (error_report["outcome"], error_report["externalIdentifier"]) == (
        "held",
        received.external_id,
    )
    assert "Manage messages" in error_report["todo"]
    assert events("file.held")[0]["externalId"] == received.external_id


def test_the_answer_is_lost_and_the_file_is_resent(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """As the job says."""
    bridge = make_bridge(d365, account, whenUncertain="resend")
    d365.add_fault("enqueue", "reset-during", bytes=1)
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    later(timedelta(minutes=1))
    work_queue(bridge)
    assert len(d365.received) == 1
    assert len(contents(account, SUCCEEDED)) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "activity id"), (413, "split it"), (400, "wrong with it")],
)
def test_what_d365_rejects_is_filed_with_what_to_do(
    bridge: Bridge, d365: Simulator, account: DataAccount, status: int, words: str
) -> None:
    """Sent once, never again."""
    body = json.dumps({"Message": "Something is wrong with it."})
    d365.add_fault("enqueue", "answer", status=status, body=body, times=-1)
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    error_report = report(account)
    assert (error_report["reason"], str(status) in error_report["error"]) == ("rejected", True)
    assert words in error_report["error"]
    assert d365.count("enqueue") == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(302, ""), (404, "<html>404 page not found</html>"), (404, ""), (405, "<html></html>")],
)
def test_a_file_waits_while_something_else_answers_in_d365s_place(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events, status: int, body: str
) -> None:
    """A gateway that has lost its route for some seconds says nothing of the file; a wrong D365_URL is told."""
    d365.add_fault("enqueue", "answer", status=status, body=body)
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    assert only(account, PROCESSING).record.state == "claimed"
    assert "D365_URL" in events("d365.denied")[0]["error"]
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.attempts == 2
    assert len(d365.received) == 1


def test_a_file_that_is_not_accepted_today_waits(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events, later: Later
) -> None:
    """403: nobody's fault but the set-up's. Once the app is registered, the file goes by itself."""
    d365.registered = False
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    assert only(account, PROCESSING).record.state == "claimed"
    assert "Microsoft Entra applications" in events("d365.denied")[0]["error"]
    assert events("file.waiting")[0]["retryInSeconds"] > 0
    d365.registered = True
    later(timedelta(minutes=1))
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1
    assert len(d365.received) == 1


class Killed(BaseException):
    """As SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("waits_for", ["a token", "D365's leave", "an answer to a question"])
def test_a_worker_that_is_killed_while_it_only_waits_leaves_no_doubt(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
    waits_for: str,
) -> None:
    """The intent is written when D365's first byte is next: until then the file is surely not sent."""

    def die(*_: object, **__: object) -> Any:
        raise Killed

    if waits_for == "D365's leave":
        d365.add_fault("dequeue", "answer", status=429, headers={"Retry-After": "20"}, times=1)
        with monkeypatch.context() as patch:
            patch.setattr(clock, "sleep", die)
            with pytest.raises(Killed):
                client_of(bridge).dequeue(EXPORT_ID)
    elif waits_for == "an answer to a question":
        d365.add_fault("enqueue", "reset-after")
        intake.import_file(bridge, drop(account, "journals/april.csv"))
    name = drop(account, "journals/may.csv")
    with monkeypatch.context() as patch:
        if waits_for == "a token":
            patch.setattr(transport.Transport, "_token", die)
        elif waits_for == "D365's leave":
            patch.setattr(clock, "sleep", die)
        else:
            patch.setattr(type(client_of(bridge)), "_probe_before_send", die)
        with pytest.raises(Killed):
            intake.import_file(bridge, name)
    assert only(account, PROCESSING).record.state == "claimed"
    later(timedelta(hours=1))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    ended = {file.record.source: file.record.state for file in files.listed(account, SUCCEEDED)}
    assert ended == {"journals/may.csv": "succeeded"}
