"""Connections over which nothing is lost unseen, and of which no secret is logged."""

import json
import logging

import pytest

from local.simulator import Simulator
from shared import connections
from shared.bridge import Bridge
from shared.d365 import DequeuedMessage
from shared.d365.errors import D365Error
from tests.helpers import EXPORT_ID, PACKAGE, Elsewhere, client_of, dequeued, send


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
