"""What an event or an error may say: no secret, no command to a terminal, and not too much."""

import json
import logging

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.d365 import MessageId
from shared.d365.errors import D365Error
from shared.observability.events import emit, redact
from tests.helpers import EXPORT_ID, Events, client_of

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e"


def test_texts_of_errors_have_bounds(bridge: Bridge, d365: Simulator, events: Events) -> None:
    """Whatever D365 says, and however much of it."""
    long = "x" * 5_000_000
    d365.add_fault("dequeue", "answer", status=200, body=json.dumps([long]), times=-1)
    with pytest.raises(D365Error) as failed:
        client_of(bridge).dequeue(EXPORT_ID)
    assert len(str(failed.value)) < 5000
    emit("export.failed", job="vendors", error=long)
    assert len(events("export.failed")[0]["error"]) < 5000


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
