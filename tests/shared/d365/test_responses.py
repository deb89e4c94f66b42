"""What D365's answers say, in whatever form they come, and what an error proves."""

import json
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from local.simulator import GATEWAY_ERRORS, Simulator
from shared.bridge import Bridge
from shared.d365 import MessageId, responses
from shared.d365.errors import D365Error, Rejected, Unavailable, Uncertain
from tests.faults import failed_sends
from tests.helpers import BUSY, EXPORT_ID, IMPORT_ID, PACKAGE, Events, client_of, dequeued, send

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


def test_nobody_waits_for_longer_than_a_day(
    bridge: Bridge, d365: Simulator, slept: list[float]
) -> None:
    """Whatever is asked for: then it is asked again."""
    headers = {"Retry-After": "99999999"}
    d365.add_fault("enqueue", "answer", status=429, headers=headers)
    with pytest.raises(Unavailable) as failed:
        send(bridge)
    assert (failed.value.retry_after, slept) == (24 * 3600, [])


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


def test_an_answer_that_is_too_large_is_none(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more of it is read than the limit."""
    monkeypatch.setattr(responses, "_ANSWER_LIMIT", 1000)
    d365.add_fault("dequeue", "answer", status=200, body="x" * 1001, times=-1)
    with pytest.raises(Uncertain, match="larger"):
        client_of(bridge).dequeue(EXPORT_ID)


@pytest.mark.parametrize("case", failed_sends.CASES, ids=lambda case: case.what)
def test_what_a_failed_send_proves(
    d365: Simulator, bridge: Bridge, case: failed_sends.Case
) -> None:
    """The table of docs/reliability.md, each row tried on the wire."""
    with failed_sends.quick():
        assert failed_sends.one(case, d365).violation == ""


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
