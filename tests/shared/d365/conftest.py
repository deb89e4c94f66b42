"""What the tests of the D365 client share."""

import pytest

from shared import clock
from shared.bridge import Bridge


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch, bridge: Bridge) -> list[float]:
    """How long the client would have waited, each time."""
    waits: list[float] = []
    monkeypatch.setattr(clock, "sleep", waits.append)
    return waits
