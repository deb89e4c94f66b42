"""One deadline goes through everything that an invocation waits for (A6).

Each test lets something hang for longer than the tests may take, and has it end by the deadline alone.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient

from local.asgi_server import serve
from local.simulator import Simulator
from shared import clock, deadline
from shared.bridge import Bridge
from shared.config.jobs import Jobs
from shared.config.settings import Storage
from shared.d365 import D365, MessageId
from shared.d365.errors import D365Error, Denied, Unavailable, Uncertain
from shared.identity import new_credential
from shared.imports import attempt, intake
from shared.observability.events import emit, listeners
from shared.operations import journal
from shared.storage import files
from shared.storage.account import EXPORTS, DataAccount, connect
from shared.threads import Pool
from tests.faults import failed_sends
from tests.helpers import EXPORT_ID, IMPORT_ID, client_of, drop, report

pytestmark = pytest.mark.timeout(60)

LONG = 3600.0
SOON = 1.0


@pytest.fixture
def in_time() -> Iterator[None]:
    """A deadline that comes soon."""
    with deadline.within(SOON):
        yield


def test_nothing_is_left_after_the_deadline_and_no_end_is_without_one() -> None:
    """What would wait then raises instead."""
    assert deadline.left() == float("inf")
    assert deadline.bounded(5) == 5
    with deadline.within(-1):
        assert deadline.left() == 0
        with pytest.raises(deadline.Expired):
            deadline.bounded(5)
    with deadline.within(3):
        assert 0 < deadline.bounded(5) <= 3


def test_an_inner_deadline_can_only_be_sooner() -> None:
    """A flow narrows what the invocation has."""
    with deadline.within(3), deadline.within(LONG):
        assert deadline.left() <= 3
    with deadline.within(LONG):
        with deadline.within(3):
            assert deadline.left() <= 3
        assert deadline.left() > 3


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("bytes_", [1, 50])
def test_a_dripping_dequeue_answer_ends(bridge: Bridge, d365: Simulator, bytes_: int) -> None:
    """Whether it comes byte by byte, or a part of it and then nothing more."""
    d365.add_package(EXPORT_ID, b"PK")
    seconds = 0.3 if bytes_ == 1 else LONG
    d365.add_fault("dequeue", "drip", bytes=bytes_, seconds=seconds, times=-1)
    with pytest.raises(Uncertain):
        client_of(bridge).dequeue(EXPORT_ID)
    assert d365.count("dequeue") == 1


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("bytes_", [1, 50_000])
def test_a_dripping_download_ends(bridge: Bridge, d365: Simulator, bytes_: int) -> None:
    """However much of it is asked for at once."""
    d365.add_package(EXPORT_ID, b"PK" * 50_000)
    message = client_of(bridge).dequeue(EXPORT_ID)
    assert message
    seconds = 0.1 if bytes_ == 1 else LONG
    d365.add_fault("download", "drip", bytes=bytes_, seconds=seconds)
    with (
        pytest.raises(Unavailable, match="broke off"),
        client_of(bridge).download(message) as download,
    ):
        download.read(1 << 20)


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("operation", ["dequeue", "acknowledge", "message_status", "token"])
def test_an_answer_that_never_comes_ends(bridge: Bridge, d365: Simulator, operation: str) -> None:
    """D365's, and that of the identity endpoint."""
    d365.add_package(EXPORT_ID, b"PK")
    d365.add_fault(operation, "hang", seconds=LONG, times=-1)

    def ask() -> None:
        message = client_of(bridge).dequeue(EXPORT_ID)
        assert message
        client_of(bridge).acknowledge(EXPORT_ID, message)
        client_of(bridge).message_status(MessageId("1"))

    with pytest.raises(D365Error) as failed:
        ask()
    assert not isinstance(failed.value, Denied)
    assert d365.count(operation) == 1


def test_a_hanging_identity_endpoint_is_told_as_what_it_is(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the invocation has time left: there is no token to be had."""
    monkeypatch.setattr("shared.d365.transport.TOKEN_TIMEOUT", SOON)
    d365.add_fault("token", "hang", seconds=LONG, times=-1)
    with pytest.raises(Denied, match="no token"):
        client_of(bridge).dequeue(EXPORT_ID)


@pytest.mark.usefixtures("in_time")
def test_a_file_that_d365_does_not_read_is_given_up(bridge: Bridge, d365: Simulator) -> None:
    """D365 has not got all of it."""
    d365.add_fault("enqueue", "hang", seconds=LONG)
    block, count = bytes(1 << 20), 48  # more than all buffers between
    with pytest.raises(Unavailable):
        client_of(bridge).enqueue(
            IMPORT_ID,
            lambda: iter([block] * count),
            count << 20,
            entity=None,
            company=None,
            external_id="x",
        )


def test_what_came_of_a_file_is_written_down_before_the_deadline(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D365's answer is waited for as long as there is time, but for what must be done after it."""
    monkeypatch.setattr(attempt, "KEPT_BACK", 10.0)
    d365.add_fault("enqueue", "hang", seconds=LONG)
    with deadline.within(14):
        intake.import_file(bridge, drop(bridge.account, "journals/may.csv"))
    assert report(bridge.account)["reason"] == "uncertain"


@pytest.mark.usefixtures("in_time")
def test_a_connection_that_is_not_made_ends(
    d365: Simulator, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent."""
    monkeypatch.setattr("shared.d365.transport.CONNECT_TIMEOUT", LONG)
    with failed_sends.address("full", d365) as url:
        client = D365(url, new_credential)
        with pytest.raises(Unavailable):
            client.dequeue(EXPORT_ID)


@pytest.mark.usefixtures("in_time")
def test_no_wait_goes_beyond_the_deadline(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what D365 asks one to wait, nor what it asks the others; the error says when to come back."""
    slept: list[float] = []
    monkeypatch.setattr(clock, "sleep", slept.append)
    d365.add_fault("dequeue", "answer", status=429, headers={"Retry-After": "20"})
    for _ in range(2):
        with pytest.raises(Unavailable) as failed:
            client_of(bridge).dequeue(EXPORT_ID)
        assert 10 < (failed.value.retry_after or 0) <= 20
    assert (slept, d365.count("dequeue")) == ([], 1)


def test_a_file_of_error_keys_is_not_waited_for_beyond_the_deadline(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D365 makes it in its own time."""
    slept: list[float] = []
    monkeypatch.setattr(clock, "sleep", slept.append)
    message_id = client_of(bridge).enqueue(
        IMPORT_ID, lambda: iter([b"REJECT"]), 6, entity="x", company=None, external_id="x"
    )
    assert message_id
    d365.keys_polls = 1000
    with (
        deadline.within(3.9),
        pytest.raises(Unavailable, match="has not made the file"),
        client_of(bridge).error_keys(d365.received[0].execution_id, "x"),
    ):
        pass
    assert slept == [1, 2]


def test_nothing_is_asked_after_the_deadline(bridge: Bridge, d365: Simulator) -> None:
    """Of D365, nor of storage."""
    with deadline.within(0), pytest.raises(Unavailable, match="time is up"):
        client_of(bridge).dequeue(EXPORT_ID)
    with deadline.within(0), pytest.raises(AzureError, match="time is up"):
        files.find(bridge.account, EXPORTS, "x")
    assert d365.requests == []


class Storehouse:
    """Storage that answers as a test wants it: `drip` bytes without end, or a status."""

    def __init__(self) -> None:
        self.status, self.requests, self.seconds = 200, 0, 0.0
        self.ports: set[int] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        self.ports.add(scope["client"][1])
        await asyncio.sleep(self.seconds)
        headers = [(b"content-length", b"100000"), (b"etag", b'"1"')]
        headers += [(b"content-range", b"bytes 0-99999/100000"), (b"x-ms-blob-type", b"BlockBlob")]
        if self.status != 206:
            headers = []
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for _ in range(1000 * (self.status == 206)):
            if scope["transport"].is_closing():
                return
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": b""})


def new_account(url: str) -> DataAccount:
    """The product's clients of such a storage."""
    key = "a2V5"
    text = f"AccountName=x;AccountKey={key};BlobEndpoint={url}/x;QueueEndpoint={url}/x"
    return connect(Storage(text, None, None, None))


def blob_service(url: str) -> BlobServiceClient:
    """The one for blobs."""
    return new_account(url).blobs


@contextmanager
def silent() -> Iterator[str]:
    """Where connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.usefixtures("in_time")
def test_storage_that_does_not_answer_ends() -> None:
    """With all the tries of the SDK."""
    with silent() as url, pytest.raises(AzureError):
        blob_service(url).get_blob_client("exports", "x").get_blob_properties()


def test_the_journal_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reports an event may be the one that writes it."""
    monkeypatch.setattr(journal, "WRITE_TIMEOUT", SOON)
    with silent() as url:
        journal.keep(new_account(url), Jobs((), ()))
        emit("export.failed", job="vendors", error="x")
    listeners.clear()
    assert "lines that the journal lacks: 1" in caplog.text


@pytest.mark.usefixtures("in_time")
def test_storage_that_is_busy_is_not_asked_beyond_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wait that outlasts it is not begun."""
    slept: list[float] = []
    monkeypatch.setattr(clock, "sleep", slept.append)
    # The SDK draws a wait from 0 to 6 seconds: one that the deadline leaves time for would be in order.
    monkeypatch.setattr("random.Random.uniform", lambda _random, _low, high: high)
    storage = Storehouse()
    storage.status = 503
    with serve(storage) as server, pytest.raises(AzureError):
        blob_service(server.url).get_blob_client("exports", "x").get_blob_properties()
    assert (storage.requests, slept) == (1, [])


@pytest.mark.usefixtures("in_time")
def test_storage_that_drips_ends() -> None:
    """A blob that comes byte by byte."""
    storage = Storehouse()
    storage.status = 206
    with serve(storage) as server, pytest.raises(Exception, match=r"timed out|time is up"):
        blob_service(server.url).get_blob_client("exports", "x").download_blob().readall()


def test_as_many_connections_to_storage_as_threads_are_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Thirty-two uploads at once make no connection anew for each block."""
    storage = Storehouse()
    storage.status, storage.seconds = 404, 0.3
    with serve(storage) as server, Pool(64) as pool:
        client = blob_service(server.url)

        def ask(number: int) -> None:
            with suppress(AzureError):
                client.get_blob_client("exports", str(number)).get_blob_properties()

        list(pool.map(ask, range(128)))
    assert storage.requests == 128
    assert "pool is full" not in caplog.text
    assert len(storage.ports) <= 64
