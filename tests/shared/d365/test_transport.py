"""How requests go out: the token, the waits that D365 asks for, the tries, a file that is sent once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.d365 import D365, MessageId, client, transport
from shared.d365.errors import D365Error, Denied, Unavailable, Uncertain
from shared.identity import new_credential
from shared.threads import Pool
from tests.helpers import (
    BUSY,
    EXPORT_ID,
    IMPORT_ID,
    PATIENCE,
    Events,
    client_of,
    dequeued,
    send,
    wait_for,
)


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


def test_a_redirect_is_never_followed(bridge: Bridge, d365: Simulator) -> None:
    """Nor is the token carried along with one."""
    there = {"Location": f"{d365.base_url}/api/connector/dequeue/{EXPORT_ID}"}
    d365.add_fault("dequeue", "answer", status=302, headers=there, times=-1)
    with pytest.raises(Denied, match="sign-in page"):
        client_of(bridge).dequeue(EXPORT_ID)
    assert d365.count("dequeue") == 1


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
