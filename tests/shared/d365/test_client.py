"""The D365 client on the wire: what it sends, where the token goes, how often it tries."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import ServiceRequestError

from local import samples
from local.serving import serve
from local.simulator import GATEWAY_ERRORS, Simulator, identity_settings
from shared import clock, connections
from shared.bridge import Bridge
from shared.d365 import D365, DequeuedMessage, MessageId, client, responses, transport
from shared.d365.errors import D365Error, Denied, Rejected, Unavailable, Uncertain
from shared.identity import new_credential
from shared.observability.events import emit, redact
from shared.threads import Pool
from tests.faults import sending
from tests.helpers import EXPORT_ID, IMPORT_ID, PATIENCE, Events, client_of, wait_for

PACKAGE = samples.package("small", [samples.Part(samples.VENDORS, 5)])
BUSY = '{"Message": "An error has occurred."}'


def send(bridge: Bridge, data: bytes = b"1;2;3", **names: str) -> MessageId:
    """Send a file as the import does."""
    options = {"entity": "General journal", "company": "USMF", "external_id": "may.csv", **names}
    return client_of(bridge).enqueue(IMPORT_ID, lambda: iter([data]), len(data), **options)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch, bridge: Bridge) -> list[float]:
    """How long the client would have waited, each time."""
    waits: list[float] = []
    monkeypatch.setattr(clock, "sleep", waits.append)
    return waits


def test_every_request_has_the_headers_of_the_documentation(
    bridge: Bridge, d365: Simulator
) -> None:
    """Read off the wire, in the case in which they are documented."""
    d365.add_package(EXPORT_ID, PACKAGE)
    message = client_of(bridge).dequeue(EXPORT_ID)
    assert message
    with client_of(bridge).download(message) as download:
        while download.read(1 << 20):
            pass
    client_of(bridge).acknowledge(EXPORT_ID, message)
    message_id = send(bridge)
    client_of(bridge).message_status(message_id)
    client_of(bridge).job_status(IMPORT_ID, message_id)
    client_of(bridge).execution_errors("DMF-1")
    seen = {request.operation: request for request in d365.requests}
    assert seen.keys() == {
        "token",
        "dequeue",
        "download",
        "acknowledge",
        "enqueue",
        "message_status",
        "job_status",
        "execution_errors",
    }
    for operation, request in seen.items():
        if operation == "token":
            continue
        assert request.authorized, operation
        is_action = "Microsoft.Dynamics.DataEntities" in request.path
        minimal = "application/json;odata.metadata=minimal"
        expected = {
            "OData-Version": "4.0",
            "OData-MaxVersion": "4.0",
            "Accept": "application/json" if is_action else minimal,
            "Accept-Charset": "UTF-8",
            "Host": urlsplit(d365.base_url).netloc,
        }
        if operation != "enqueue":
            expected["Content-Type"] = "application/json; charset=utf-8" if is_action else minimal
        assert expected.items() <= request.headers.items(), operation
    without_spaces = f'{{"messageId":"{message_id}"}}'
    assert seen["message_status"].headers["Content-Length"] == str(len(without_spaces))
    assert seen["enqueue"].headers["x-ms-dyn-externalidentifier"] == "may.csv"
    assert seen["enqueue"].headers["Content-Length"] == "5"
    assert "Transfer-Encoding" not in seen["enqueue"].headers
    assert "Content-Type" not in seen["enqueue"].headers
    assert seen["enqueue"].query == "entity=General%20journal&company=USMF"


def test_the_token_is_asked_for_once_and_renewed_once(bridge: Bridge, d365: Simulator) -> None:
    """Many requests share one; a 401 brings a new one, and the request goes through."""
    for _ in range(5):
        client_of(bridge).dequeue(EXPORT_ID)
    assert d365.count("token") == 1
    d365.revoke_tokens()
    client_of(bridge).dequeue(EXPORT_ID)
    assert d365.count("token") == 2


def test_a_second_401_is_final(bridge: Bridge, d365: Simulator, events: Events) -> None:
    """A new token that is refused too is the set-up's fault."""
    d365.add_fault("dequeue", "answer", status=401, times=-1)
    with pytest.raises(Denied, match="D365_URL"):
        client_of(bridge).dequeue(EXPORT_ID)
    assert (d365.count("dequeue"), d365.count("token")) == (2, 2)
    assert len(events("d365.denied")) == 1


def test_a_file_is_sent_again_after_a_401(bridge: Bridge, d365: Simulator) -> None:
    """Its body from the beginning."""
    client_of(bridge).dequeue(EXPORT_ID)
    d365.revoke_tokens()
    send(bridge, b"x" * 3_000_000)
    assert [received.length for received in d365.received] == [3_000_000]


XML = '<string xmlns="http://schemas.microsoft.com/2003/10/Serialization/">{}</string>'


@pytest.mark.parametrize(
    "form",
    [
        '"{}"',
        "{}",
        '"{{{}}}"',
        '{{"value": "{}"}}',
        " {}\r\n",
        "'{}'",
        '{{"MessageId": "{}"}}',
        '{{"messageId": "{}", "activityId": "94840019-0000-4000-8000-000000000001"}}',
        '{{"@odata.context": "x", "value": {{"messageId": "{}"}}}}',
        '["{}"]',
        '\ufeff"{}"',
        XML,
        '"Message {} was enqueued."',
        f'{{{{"activityId": "{IMPORT_ID}", "id": "{{}}"}}}}',
    ],
)
def test_a_message_id_is_read_in_every_form(bridge: Bridge, d365: Simulator, form: str) -> None:
    """Bare, quoted, in braces, as a field of an object, in a list, in XML: it is the one GUID that is there."""
    d365.message_id_form = form
    assert send(bridge) == d365.received[0].message_id


def test_a_message_id_without_hyphens_gets_them(bridge: Bridge, d365: Simulator) -> None:
    """As all other requests write it."""
    body = '"94840019A0004000800000000000000B"'
    d365.add_fault("enqueue", "answer-after", status=200, body=body)
    assert send(bridge) == "94840019-A000-4000-8000-00000000000B"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        '"00000000-0000-0000-0000-000000000000"',
        f'"{IMPORT_ID}"',
        '["94840019-0000-4000-8000-000000000001", "94840019-0000-4000-8000-000000000002"]',
        "<html>Reference 94840019-0000-4000-8000-000000000001</html>",
        "<!DOCTYPE html><p>94840019-0000-4000-8000-000000000001",
        '{"error": {"code": "94840019-0000-4000-8000-000000000001"}}',
        "9484001900004000800000000000000194840019",
    ],
)
def test_no_message_id_is_guessed(bridge: Bridge, d365: Simulator, body: str) -> None:
    """Of several GUIDs none is sure to be it; nor is that of an error or of a page, or the job's own."""
    d365.add_fault("enqueue", "answer-after", status=200, body=body)
    with pytest.raises(Uncertain, match="without a message id"):
        send(bridge)


def test_d365_says_how_long_to_wait(bridge: Bridge, d365: Simulator, slept: list[float]) -> None:
    """In seconds, or as a date."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    for text in ("7", soon):
        d365.add_fault("dequeue", "answer", status=429, headers={"Retry-After": text})
    assert client_of(bridge).dequeue(EXPORT_ID) is None
    assert 7 <= slept[0] <= 7 * 1.25
    assert 10 < slept[-1] <= 20 * 1.25


def test_when_one_is_asked_to_wait_all_wait(
    bridge: Bridge, d365: Simulator, slept: list[float]
) -> None:
    """D365 counts an application's requests together."""
    d365.add_fault("enqueue", "answer", status=429, headers={"Retry-After": "20"}, times=-1)
    with pytest.raises(Unavailable):
        send(bridge)
    slept.clear()
    client_of(bridge).dequeue(EXPORT_ID)
    assert [10 < wait <= 25 for wait in slept] == [True]


def test_a_wait_asked_for_at_a_download_is_kept_by_all(
    bridge: Bridge, d365: Simulator, slept: list[float]
) -> None:
    """It comes from D365 as well."""
    d365.add_package(EXPORT_ID, PACKAGE)
    message = client_of(bridge).dequeue(EXPORT_ID)
    assert message
    d365.add_fault("download", "answer", status=429, headers={"Retry-After": "20"})
    with pytest.raises(Unavailable), client_of(bridge).download(message):
        pass
    with client_of(bridge).download(message):
        assert [10 < wait <= 25 for wait in slept] == [True]


def test_a_long_wait_is_not_spent_inside_a_run(
    bridge: Bridge, d365: Simulator, slept: list[float]
) -> None:
    """The error says when to come back."""
    d365.add_fault("enqueue", "answer", status=429, headers={"Retry-After": "300"})
    with pytest.raises(Unavailable) as failed:
        send(bridge)
    assert (failed.value.retry_after, slept) == (300, [])
    # Nor does anything else go out before that time (A2).
    with pytest.raises(Unavailable) as early:
        client_of(bridge).dequeue(EXPORT_ID)
    assert 290 < (early.value.retry_after or 0) <= 300
    assert (d365.count("enqueue"), d365.count("dequeue"), slept) == (1, 0, [])


def test_a_long_wait_at_a_question_is_not_spent_inside_a_run_either(
    bridge: Bridge, d365: Simulator, slept: list[float]
) -> None:
    """It is not asked again, however often that may be done."""
    d365.add_fault("job_status", "answer", status=429, headers={"Retry-After": "300"}, times=-1)
    with pytest.raises(Unavailable) as failed:
        client_of(bridge).job_status(IMPORT_ID, MessageId("1"))
    assert (failed.value.retry_after, d365.count("job_status"), slept) == (300, 1, [])


def test_nobody_waits_for_longer_than_a_day(
    bridge: Bridge, d365: Simulator, slept: list[float]
) -> None:
    """Whatever is asked for: then it is asked again."""
    headers = {"Retry-After": "99999999"}
    d365.add_fault("enqueue", "answer", status=429, headers=headers)
    with pytest.raises(Unavailable) as failed:
        send(bridge)
    assert (failed.value.retry_after, slept) == (24 * 3600, [])


def test_tries_are_bounded_jittered_and_told(
    bridge: Bridge, d365: Simulator, slept: list[float], events: Events
) -> None:
    """Growing waits, then the error."""
    d365.add_fault("dequeue", "answer", status=500, body=BUSY, times=-1)
    with pytest.raises(Uncertain):
        client_of(bridge).dequeue(EXPORT_ID)
    assert d365.count("dequeue") == transport.ATTEMPTS
    assert len(slept) == len(events("d365.retry")) == transport.ATTEMPTS - 1
    assert all(0 < wait <= 8 for wait in slept)


def test_a_file_is_sent_once(bridge: Bridge, d365: Simulator) -> None:
    """Whether and when again says its flow, which has written down that it is being sent: 429 proves that D365
    has it not, a broken connection does not."""
    d365.add_fault("enqueue", "answer", status=429, times=2, headers={"Retry-After": "1"})
    for count in (1, 2):
        with pytest.raises(Unavailable):
            send(bridge)
        assert (d365.count("enqueue"), len(d365.received)) == (count, 0)
    send(bridge)
    d365.add_fault("enqueue", "reset-after")
    with pytest.raises(Uncertain):
        send(bridge)
    assert (d365.count("enqueue"), len(d365.received)) == (4, 2)


def test_after_a_lost_file_d365_is_asked_something_harmless_first(
    bridge: Bridge, d365: Simulator
) -> None:
    """In a maintenance window one file is in doubt, and not each that is tried."""
    page = {"status": 503, "body": "<html>Maintenance</html>"}
    down = d365.add_fault("enqueue", "answer", times=-1, **page)
    with pytest.raises(Uncertain):
        send(bridge)
    down.operation = "message_status"
    for _ in range(3):
        with pytest.raises(Unavailable, match="D365 is in trouble: it answers 503"):
            send(bridge)
    down.do = "reset"
    with pytest.raises(Unavailable, match="does not answer a question"):
        send(bridge)
    assert d365.count("enqueue") == 1
    down.do, down.status = "answer", 500  # whatever it says, D365 is there
    for _ in range(2):
        send(bridge)
    assert (d365.count("message_status"), len(d365.received)) == (5, 2)


def test_a_slow_reader_has_as_long_as_an_answer(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a new connection, for which the shorter time to connect is over once it stands."""
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.3)
    d365.add_fault("enqueue", "delay", seconds=1.5)
    block, blocks = bytes(1 << 20), 48  # more than all buffers between
    client_of(bridge).enqueue(
        IMPORT_ID,
        lambda: iter([block] * blocks),
        blocks << 20,
        entity="General journal",
        company="USMF",
        external_id="may.csv",
    )
    assert d365.received[0].length == blocks << 20


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_file_that_storage_does_not_give_is_surely_not_sent(
    bridge: Bridge, d365: Simulator, slept: list[float], chunks: int
) -> None:
    """And the error is storage's, not D365's; after the last byte it proves nothing."""

    def body() -> Iterator[bytes]:
        yield from [b"x" * 9] * chunks
        raise ServiceRequestError("no route to the data account")

    expected = Uncertain if chunks == 3 else Unavailable
    with pytest.raises(expected, match="no route to the data account") as failed:
        client_of(bridge).enqueue(
            IMPORT_ID, body, 27, entity="General journal", company="USMF", external_id="may.csv"
        )
    assert ("from storage" in str(failed.value)) == (chunks < 3)
    assert chunks == 3 or not d365.received


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("body", GATEWAY_ERRORS.values(), ids=GATEWAY_ERRORS.keys())
def test_no_form_of_an_error_proves_that_a_file_was_not_taken(
    bridge: Bridge, d365: Simulator, status: int, body: str
) -> None:
    """A gateway that lost D365's answer has JSON of its own: it is sent once, and nobody knows."""
    d365.add_fault("enqueue", "answer-after", status=status, body=body, times=-1)
    with pytest.raises(Uncertain):
        send(bridge)
    assert len(d365.received) == 1


def test_an_answer_to_a_file_is_waited_for_longer_than_any_other(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the invocation has: D365 may take its time over a large one, and nobody would know."""
    monkeypatch.setattr(transport, "QUESTION_TIMEOUT", 0.3)
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.3)
    d365.add_fault("enqueue", "delay", seconds=1.5)
    assert send(bridge) == d365.received[0].message_id
    assert d365.count("enqueue") == 1


def test_no_byte_more_than_announced_is_sent(bridge: Bridge, d365: Simulator) -> None:
    """D365's host would take it for a request of its own; and what has another length is another file."""
    with pytest.raises(Unavailable, match="more than the 27 bytes announced"):
        client_of(bridge).enqueue(
            IMPORT_ID,
            lambda: iter([b"x" * 20] * 2),
            27,
            entity="General journal",
            company="USMF",
            external_id="may.csv",
        )
    assert not d365.received
    assert d365.count("unknown") == 0


def test_half_a_surrogate_pair_does_no_harm(bridge: Bridge, d365: Simulator) -> None:
    """D365 cuts texts where it likes; what we keep of them must be writable."""
    cut = r'"The name \ud83d is too long"'
    body = json.dumps({"value": f"[{cut}]"})
    d365.add_fault("execution_errors", "answer", status=200, body=body)
    d365.add_fault("enqueue", "answer", status=400, body=r'{"error": {"message": "No \ud83d"}}')
    (error,) = client_of(bridge).execution_errors("DMF-1")
    assert error.encode() == b"The name ? is too long"
    with pytest.raises(Rejected) as failed:
        send(bridge)
    assert b"No ?" in str(failed.value).encode()


def dequeued(bridge: Bridge) -> DequeuedMessage:
    """The message that D365 offers."""
    message = client_of(bridge).dequeue(EXPORT_ID)
    assert message
    return message


def test_without_a_correlation_id_the_location_says_which_message_it_is(
    bridge: Bridge, d365: Simulator
) -> None:
    """With its query, in which D365 has the package's id; and a second time alike."""
    d365.reoffer_seconds = 0
    package = d365.add_package(EXPORT_ID, PACKAGE, correlation_id="")
    first, again = dequeued(bridge), dequeued(bridge)
    package.acknowledged = 1
    d365.add_package(EXPORT_ID, PACKAGE, correlation_id="")
    assert first.correlation_id == again.correlation_id != dequeued(bridge).correlation_id


@pytest.mark.parametrize("form", ["{}", "{{{}}}", " {} "])
def test_a_correlation_id_is_the_same_however_it_is_written(
    bridge: Bridge, d365: Simulator, form: str
) -> None:
    """In capitals or in braces: its blob is the same."""
    id_ = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
    d365.add_package(EXPORT_ID, PACKAGE, correlation_id=form.format(id_.upper()))
    assert dequeued(bridge).correlation_id == id_
    d365.packages.clear()
    d365.add_package(EXPORT_ID, PACKAGE, correlation_id="Of-Another-Form")
    assert dequeued(bridge).correlation_id == "Of-Another-Form"


@pytest.mark.parametrize("location", [None, "{base}/nothing"])
@pytest.mark.parametrize("problem", ["", "No records were found."])
def test_a_message_without_a_file_is_one(
    bridge: Bridge, d365: Simulator, location: str | None, problem: str
) -> None:
    """It carries D365's words, and can be acknowledged."""
    package = d365.add_package(
        EXPORT_ID, b"", file_exists=False, location=location, problem=problem
    )
    message = dequeued(bridge)
    assert (message.has_file, message.problem) == (False, problem)
    client_of(bridge).acknowledge(EXPORT_ID, message)
    assert package.acknowledged == 1


@pytest.mark.parametrize("body", [*GATEWAY_ERRORS.values(), BUSY])
@pytest.mark.parametrize("operation", ["dequeue", "acknowledge", "message_status"])
def test_an_error_is_one_whatever_its_status(
    bridge: Bridge, d365: Simulator, operation: str, body: str
) -> None:
    """An error in a 200 is no empty queue, no acknowledgement and no status."""
    d365.add_package(EXPORT_ID, PACKAGE)
    message = dequeued(bridge)
    calls: dict[str, Callable[[], object]] = {
        "dequeue": lambda: client_of(bridge).dequeue(EXPORT_ID),
        "acknowledge": lambda: client_of(bridge).acknowledge(EXPORT_ID, message),
        "message_status": lambda: client_of(bridge).message_status(MessageId("1")),
    }
    d365.add_fault(operation, "answer", status=200, body=body, times=-1)
    with pytest.raises(D365Error):
        calls[operation]()


@pytest.mark.parametrize("status", [102, 103])
def test_an_interim_answer_is_not_the_answer(bridge: Bridge, d365: Simulator, status: int) -> None:
    """The one that follows it is."""
    d365.add_package(EXPORT_ID, PACKAGE)
    d365.add_fault("*", "interim", status=status, times=-1)
    message = dequeued(bridge)
    with client_of(bridge).download(message) as download:
        assert download.read(1 << 20) == PACKAGE
    client_of(bridge).acknowledge(EXPORT_ID, message)
    assert send(bridge) == d365.received[0].message_id
    assert d365.packages[0].acknowledged == 1
    assert d365.count("enqueue") == d365.count("acknowledge") == 1


@pytest.mark.parametrize(
    "fault", [{"do": "reset-after"}, {"do": "answer-after", "status": 502, "body": "<html>"}]
)
def test_an_acknowledgement_that_was_lost_is_done_when_d365_knows_the_message_no_more(
    bridge: Bridge, d365: Simulator, fault: dict[str, Any]
) -> None:
    """The repeated one gets 404; without a lost one before it that is an error."""
    package = d365.add_package(EXPORT_ID, PACKAGE)
    message = dequeued(bridge)
    d365.add_fault("acknowledge", **fault)
    client_of(bridge).acknowledge(EXPORT_ID, message)
    assert (package.acknowledged, d365.count("acknowledge")) == (1, 2)
    with pytest.raises(Rejected):
        client_of(bridge).acknowledge(EXPORT_ID, message)


def test_of_several_waits_the_longest_is_kept(
    bridge: Bridge, d365: Simulator, slept: list[float]
) -> None:
    """Also where the shorter one is asked for later, by an answer that was under way."""
    d365.latency["message_status"] = 1.0
    for operation, wait in (("message_status", "1"), ("dequeue", "20")):
        d365.add_fault(operation, "answer", status=429, headers={"Retry-After": wait})
    with Pool(2) as pool:
        slow = pool.submit(client_of(bridge).message_status, MessageId("1"))
        wait_for(lambda: d365.count("message_status"))
        assert client_of(bridge).dequeue(EXPORT_ID) is None
        with pytest.raises(D365Error):  # it knows no such message
            slow.result()
    slept.clear()
    client_of(bridge).dequeue(EXPORT_ID)
    assert [wait > 10 for wait in slept] == [True]


def test_those_who_wait_come_back_one_after_the_other(
    bridge: Bridge, d365: Simulator, slept: list[float]
) -> None:
    """Never sooner than D365 asks."""
    waits = []
    for _ in range(8):
        d365.add_fault("dequeue", "answer", status=429, headers={"Retry-After": "20"})
        client_of(bridge).dequeue(EXPORT_ID)
        waits.append(slept[0])
        slept.clear()
    assert min(waits) >= 20
    assert len(set(waits)) > 1


@pytest.mark.parametrize(("headers", "least"), [({}, 0.5), ({"Retry-After": "20"}, 10)])
@pytest.mark.parametrize("status", [429, 503])
def test_all_wait_after_a_refusal_for_now(
    bridge: Bridge,
    d365: Simulator,
    slept: list[float],
    status: int,
    headers: dict[str, str],
    least: float,
) -> None:
    """A second where D365 does not say how long; a 503 must say it."""
    d365.add_fault("job_status", "answer", status=status, headers=headers, times=-1)
    with pytest.raises(D365Error):
        client_of(bridge).job_status(IMPORT_ID, MessageId("1"))
    slept.clear()
    client_of(bridge).dequeue(EXPORT_ID)
    expected = [True] * (status == 429 or bool(headers))
    assert [wait > least for wait in slept] == expected


def test_a_token_that_d365_will_not_have_does_not_double_the_requests(
    bridge: Bridge, d365: Simulator
) -> None:
    """An identity endpoint that keeps its tokens has no other."""
    d365.keeps_tokens = True
    client_of(bridge).dequeue(EXPORT_ID)
    d365.revoke_tokens()

    def ask(_: int) -> bool:
        with pytest.raises(Denied):
            client_of(bridge).dequeue(EXPORT_ID)
        return True

    with Pool(8) as pool:
        assert all(pool.map(ask, range(50)))
    assert (d365.count("dequeue"), d365.count("token")) == (1 + 50, 2)


def test_an_application_that_d365_will_not_have_does_not_double_the_requests(
    bridge: Bridge, d365: Simulator
) -> None:
    """A new token is tried once, and by those whose requests were under way."""
    d365.add_fault("dequeue", "answer", status=401, times=-1)
    for _ in range(50):
        with pytest.raises(Denied):
            client_of(bridge).dequeue(EXPORT_ID)
    assert (d365.count("dequeue"), d365.count("token")) == (50 + 1, 2)


def test_threads_that_need_a_token_at_once_ask_for_one(bridge: Bridge, d365: Simulator) -> None:
    """The others wait for it."""
    d365.latency["token"] = 0.3
    with Pool(8) as pool:
        list(pool.map(lambda _: client_of(bridge).dequeue(EXPORT_ID), range(8)))
    assert (d365.count("token"), d365.count("dequeue")) == (1, 8)


def test_texts_of_errors_have_bounds(bridge: Bridge, d365: Simulator, events: Events) -> None:
    """Whatever D365 says, and however much of it."""
    long = "x" * 5_000_000
    d365.add_fault("dequeue", "answer", status=200, body=json.dumps([long]), times=-1)
    with pytest.raises(D365Error) as failed:
        client_of(bridge).dequeue(EXPORT_ID)
    assert len(str(failed.value)) < 5000
    emit("export.failed", job="vendors", error=long)
    assert len(events("export.failed")[0]["error"]) < 5000


def test_an_answer_that_is_too_large_is_none(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more of it is read than the limit."""
    monkeypatch.setattr(responses, "_ANSWER_LIMIT", 1000)
    d365.add_fault("dequeue", "answer", status=200, body="x" * 1001, times=-1)
    with pytest.raises(Uncertain, match="larger"):
        client_of(bridge).dequeue(EXPORT_ID)


def test_what_is_left_of_an_answer_is_no_answer(
    bridge: Bridge, d365: Simulator, events: Events
) -> None:
    """A connection with half a package on it is not used again."""
    d365.add_package(EXPORT_ID, bytes(100))
    message = dequeued(bridge)
    # The rest comes later: what is there already urllib3 would notice.
    d365.add_fault("download", "drip", bytes=10, seconds=30)
    with client_of(bridge).download(message) as download:
        assert download.read(10)
    assert client_of(bridge).dequeue(EXPORT_ID) is None
    assert not events("d365.retry")


@pytest.mark.parametrize(("limit", "connections_"), [(0.0, 2), (60.0, 1)])
def test_a_connection_that_was_idle_for_long_is_not_used_again(
    elsewhere: tuple[str, "Elsewhere"],
    monkeypatch: pytest.MonkeyPatch,
    limit: float,
    connections_: int,
) -> None:
    """What stands between may have dropped it without a word."""
    monkeypatch.setattr(connections, "IDLE_LIMIT", limit)
    url, server = elsewhere
    session = connections.session()
    for _ in range(2):
        assert session.get(url).content == PACKAGE
    assert len(set(server.ports)) == connections_


@pytest.mark.parametrize("parts", [[b"12", b"345"], [b"12"], []])
def test_a_file_that_is_not_as_long_as_announced_is_not_sent(
    bridge: Bridge, d365: Simulator, parts: list[bytes]
) -> None:
    """D365 would take what is too much for the next request, or wait for what is missing."""
    with pytest.raises(Unavailable, match="announced"):
        client_of(bridge).enqueue(
            IMPORT_ID, lambda: iter(parts), 3, entity="x", company=None, external_id="x"
        )
    assert d365.received == []
    assert d365.count("unknown") == 0


def test_a_file_without_a_byte_can_be_sent(bridge: Bridge, d365: Simulator) -> None:
    """With the length 0."""
    client_of(bridge).enqueue(
        IMPORT_ID, lambda: iter([]), 0, entity="x", company=None, external_id="x"
    )
    assert d365.received[0].length == 0
    assert d365.requests[-1].headers["Content-Length"] == "0"


@pytest.mark.parametrize("gives", [True, False])
def test_a_download_goes_on_where_it_broke_off(
    bridge: Bridge, d365: Simulator, gives: bool
) -> None:
    """If D365 gives parts; else it begins anew, and says so."""
    d365.gives_ranges = gives
    d365.add_package(EXPORT_ID, PACKAGE)
    message = dequeued(bridge)
    with client_of(bridge).download(message, start=7) as download:
        assert (download.start, download.length) == (7 * gives, len(PACKAGE))
        assert download.read(1 << 20) == PACKAGE[7 * gives :]


class Elsewhere:
    """Another server, which notes what it is sent."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.ports: list[int] = []
        self.status = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append({k.decode().lower(): v.decode() for k, v in scope["headers"]})
        self.ports.append(scope["client"][1])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": PACKAGE})


@pytest.fixture
def elsewhere(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Elsewhere]]:
    """An https server that is not D365, with a certificate that we trust."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("127.0.0.1", "localhost")
    own.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    server = Elsewhere()
    with serve(server, cert=str(tmp_path / "own.pem")) as served:
        yield served.url.replace("127.0.0.1", "localhost"), server


def test_the_token_goes_to_d365_alone(bridge: Bridge, elsewhere: tuple[str, Elsewhere]) -> None:
    """A1: a location on another host is fetched, over https, without it."""
    url, server = elsewhere
    message = DequeuedMessage("1", f"{url}/package?sig=secret", b"{}")
    with client_of(bridge).download(message) as download:
        assert download.read(1 << 20) == PACKAGE
    (headers,) = server.headers
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("location", "fetched"),
    [
        ("https://CONTOSO.operations.example/p?a=1", "https://contoso.operations.example/p?a=1"),
        ("https://contoso.operations.example:443/p", "https://contoso.operations.example/p"),
        ("http://Contoso.operations.example:80/p", "https://contoso.operations.example/p"),
    ],
)
def test_d365s_own_host_is_known_however_it_is_written(
    bridge: Bridge, location: str, fetched: str
) -> None:
    """Else the package would be asked for without the token."""
    contoso = D365("https://contoso.operations.example", new_credential)
    assert contoso._download_url(location) == (fetched, True)


@pytest.mark.parametrize("base", ["https://alias.example:8443", "http://10.1.2.3", "//gateway"])
def test_a_package_of_d365s_is_asked_for_at_d365(
    bridge: Bridge, d365: Simulator, base: str
) -> None:
    """Whatever name, scheme and port stand in its location: D365 may have an alias, or a gateway before it."""
    path = "/api/connector/download/{activity}?correlation-id={correlation}&blob={blob}"
    d365.add_package(EXPORT_ID, PACKAGE, location=base + path)
    with client_of(bridge).download(dequeued(bridge)) as download:
        assert download.read(1 << 20) == PACKAGE


def test_a_package_elsewhere_that_needs_a_token_says_why_it_got_none(
    bridge: Bridge, elsewhere: tuple[str, Elsewhere]
) -> None:
    """It is not D365's host."""
    url, server = elsewhere
    server.status = 401
    with (
        pytest.raises(Unavailable, match=r"(?s)localhost answered 401.*without a token"),
        client_of(bridge).download(DequeuedMessage("1", f"{url}/package", b"{}")),
    ):
        pass


def test_another_port_is_another_server(elsewhere: tuple[str, Elsewhere], d365: Simulator) -> None:
    """Which gets no token."""
    url, server = elsewhere
    other = D365("https://localhost:1", new_credential)
    with other.download(DequeuedMessage("1", f"{url}/package", b"{}")):
        assert "authorization" not in server.headers[0]


def test_a_refusal_elsewhere_is_not_d365s(
    bridge: Bridge, elsewhere: tuple[str, Elsewhere], events: Events
) -> None:
    """A signature that has run out says nothing of our permissions in D365."""
    url, server = elsewhere
    server.status = 403
    with (
        pytest.raises(Unavailable, match=r"localhost answered 403.*not on the host of D365_URL"),
        client_of(bridge).download(DequeuedMessage("1", f"{url}/package?sig=secret", b"{}")),
    ):
        pass
    assert not events("d365.denied")


def test_error_keys_are_fetched_without_the_token(
    bridge: Bridge, d365: Simulator, elsewhere: tuple[str, Elsewhere]
) -> None:
    """A1: they lie in D365's own storage, under a signature; its URL is asked for until there is one."""
    url, server = elsewhere
    message_id = send(bridge)
    (received,) = d365.received
    with client_of(bridge).error_keys(received.execution_id, "General journal") as download:
        assert download is None
    received.errors = ["Bad."]
    d365.keys_location, d365.keys_polls = url + "/keys?sv=1&sig=secret", 2
    with client_of(bridge).error_keys(received.execution_id, "General journal") as download:
        assert download
        assert download.read(1 << 20) == PACKAGE
    (headers,) = server.headers
    assert "authorization" not in headers
    assert message_id


@pytest.mark.parametrize(
    "location", ["http://elsewhere.example/x", "file:///etc/passwd", "ftp://x/y"]
)
def test_a_location_without_https_is_not_fetched(bridge: Bridge, location: str) -> None:
    """A1."""
    with (
        pytest.raises(Rejected, match="only https"),
        client_of(bridge).download(DequeuedMessage("1", location, b"{}")),
    ):
        pass


def test_a_redirect_is_never_followed(bridge: Bridge, d365: Simulator) -> None:
    """Nor is the token carried along with one."""
    there = {"Location": f"{d365.base_url}/api/connector/dequeue/{EXPORT_ID}"}
    d365.add_fault("dequeue", "answer", status=302, headers=there, times=-1)
    with pytest.raises(Denied, match="sign-in page"):
        client_of(bridge).dequeue(EXPORT_ID)
    assert d365.count("dequeue") == 1


@pytest.mark.parametrize("case", sending.CASES, ids=lambda case: case.what)
def test_what_a_failed_send_proves(d365: Simulator, bridge: Bridge, case: sending.Case) -> None:
    """The table of docs/reliability.md, each row tried on the wire."""
    with sending.quick():
        assert sending.one(case, d365).violation == ""


def test_no_secret_is_logged(
    bridge: Bridge,
    d365: Simulator,
    elsewhere: tuple[str, Elsewhere],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A3: at the most talkative level, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    url, _ = elsewhere
    with client_of(bridge).download(DequeuedMessage("1", f"{url}/x?sv=1&sig=abcDEF123%3D", b"{}")):
        assert "/x?sv=1" in caplog.text
    body = json.dumps({"Message": "see https://x.blob/y?sv=1&sig=abcDEF123%3D&x=1"})
    d365.add_fault("dequeue", "answer", status=400, body=body)
    with pytest.raises(D365Error) as failed:
        client_of(bridge).dequeue(EXPORT_ID)
    d365.add_fault("enqueue", "reset-after")
    with pytest.raises(D365Error):
        send(bridge)
    logged = caplog.text + str(failed.value)
    assert d365.tokens
    assert not any(token in logged for token in d365.tokens)
    assert "abcDEF123" not in logged


@pytest.mark.parametrize(
    "text",
    [
        "GET /x?sv=1&sig=SECRET&y=2",
        "Authorization: Bearer SECRET.a.b",
        "SharedAccessSignature=sv=1&sig=SECRET",
        "AccountKey=SECRET==;BlobEndpoint=x",
        "client_secret=SECRET",
        "?code=SECRET",
        '{"url": "https://x/y?sv=1\\u0026sig=SECRET\\u0026se=2"}',
        "https%3A%2F%2Fx%2Fy%3Fsv%3D1%26sig%3DSECRET",
        "https://x/y?sig=SECRET.",
        "sig=SECRETSECRETSECRETSECRET%3D",
    ],
)
def test_secrets_are_taken_out_of_texts(text: str) -> None:
    """Whatever the sentence around them."""
    assert "SECRET" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "sig=1.csv",
        "journals/code=12.20261123T204138Z-1a2b3c4d.csv",
        "?sig=1.csv",
        "bearer bonds.csv",
        "Bearer shares do not balance.",
        "the error code=17",
    ],
)
def test_names_are_no_secrets(text: str) -> None:
    """Whoever looks for a file needs its name, and the external identifier that is made of it."""
    assert redact(text) == text


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e"


def test_what_commands_a_terminal_does_not_pass(
    bridge: Bridge, d365: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """In an error, in the errors of an execution, in a status; nor in the log."""
    caplog.set_level(logging.DEBUG)
    body = json.dumps({"Message": f"No{ESCAPES}."})
    d365.add_fault("dequeue", "answer", status=400, body=body)
    with pytest.raises(D365Error) as failed:
        client_of(bridge).dequeue(EXPORT_ID)
    texts = [str(failed.value)]
    body = json.dumps({"value": json.dumps([{"ErrorMessage": f"No{ESCAPES}."}])})
    d365.add_fault("execution_errors", "answer", status=200, body=body)
    texts += client_of(bridge).execution_errors("DMF-1")
    body = json.dumps({"value": f"Processed{ESCAPES}"})
    d365.add_fault("message_status", "answer", status=200, body=body)
    texts.append(client_of(bridge).message_status(MessageId("1")))
    emit("probe.arrived", file=f"may{ESCAPES}.csv")
    texts.append(caplog.records[-1].getMessage())
    assert not set("\x1b\x07\x9b\r\u202e") & set("".join(texts))


def test_of_a_chain_of_credentials_the_one_that_matters_is_told(
    d365: Simulator, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """Not the twenty lines of those that nobody has set up."""
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    d365.add_fault("token", "answer", status=400, body='{"message": "not assigned"}', times=-1)
    with pytest.raises(Denied) as failed:
        D365(d365.base_url, new_credential).dequeue(EXPORT_ID)
    for text in (str(failed.value), events("d365.denied")[0]["error"]):
        assert "ManagedIdentityCredential: " in text
        assert "EnvironmentCredential" not in text
        assert len(text) < 700
        assert "\n" not in text


@pytest.mark.parametrize(
    "page",
    [
        "{base}/?cmp=USMF",
        "{http}:80/?cmp=USMF",
        "{base}/?cmp=\r\nSet-Cookie: a=b&USMF",
        " {base}/?cmp=USMF\n",
    ],
)
def test_a_summary_link_leads_to_d365_in_one_line(
    bridge: Bridge, d365: Simulator, page: str
) -> None:
    """Behind a load balancer it says http; a line break would end a header of ours."""
    host = d365.base_url.rsplit(":", 1)[0]
    body = json.dumps({"value": page.format(base=d365.base_url, http=host)})
    d365.add_fault("action", "answer", status=200, body=body)
    url = client_of(bridge).execution_summary_url("DMF-1")
    assert url.startswith(f"{d365.base_url}/?cmp=")
    assert url.endswith("USMF")
    assert not re.search(r"\s", url)


@pytest.mark.parametrize(
    ("operation", "status", "says"),
    [
        ("download", 302, "no longer has the package"),
        ("download", 404, "no longer has the package"),
        ("download", 410, "no longer has the package"),
        ("acknowledge", 404, "pop receipt has expired"),
    ],
)
def test_what_is_gone_does_not_blame_the_set_up(
    bridge: Bridge, d365: Simulator, events: Events, operation: str, status: int, says: str
) -> None:
    """The address was D365's own: neither D365_URL nor the activity id is wrong."""
    d365.add_package(EXPORT_ID, PACKAGE)
    message = client_of(bridge).dequeue(EXPORT_ID)
    assert message
    d365.add_fault(operation, "answer", status=status, body="<html></html>", times=-1)
    with ExitStack() as stack, pytest.raises(Rejected, match=says) as failed:
        stack.enter_context(client_of(bridge).download(message)) if operation == "download" else (
            client_of(bridge).acknowledge(EXPORT_ID, message)
        )
    assert "D365_URL" not in str(failed.value)
    assert "activity id" not in str(failed.value)
    assert not events("d365.denied")


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "reset"},
        {"do": "hang", "seconds": 60.0},
        {"do": "answer", "status": 503},
        {"do": "answer", "status": 429, "headers": {"Retry-After": "60"}},
    ],
    ids=["reset", "silent", "503", "429"],
)
def test_a_d365_in_trouble_is_not_prompt(
    bridge: Bridge, d365: Simulator, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once, and taken for slow for a while; what it answers then counts at once."""
    for name in ("PROMPT_FOR", "SLOW_FOR"):  # on a slow machine an answer may be old
        monkeypatch.setattr(transport, name, PATIENCE)
    monkeypatch.setattr(client, "PROMPT", PATIENCE)
    assert client_of(bridge).answers_promptly()
    monkeypatch.setattr(client, "PROMPT", 0.5)
    slow = D365(d365.base_url, new_credential)
    d365.add_fault("message_status", times=-1, **fault)
    d365.requests.clear()
    assert not slow.answers_promptly()
    assert not slow.answers_promptly()
    assert d365.count("message_status") == 1
    d365.faults.clear()
    assert slow.dequeue(EXPORT_ID) is None
    assert slow.answers_promptly()


def test_a_d365_that_asks_all_to_wait_is_not_prompt(bridge: Bridge, d365: Simulator) -> None:
    """For as long as it asks."""
    d365.add_fault("dequeue", "answer", status=429, headers={"Retry-After": "600"})
    with pytest.raises(Unavailable):
        client_of(bridge).dequeue(EXPORT_ID)
    assert not client_of(bridge).answers_promptly()
    assert not d365.count("message_status")
