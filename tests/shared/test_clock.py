"""Times as they stand in metadata: written in one way, and read whatever stands there."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shared import clock


def test_a_time_is_written_in_utc_and_read_again() -> None:
    """To the second, in an order that is that of the texts too."""
    vienna = timezone(timedelta(hours=1))
    moment = datetime(2026, 11, 28, 0, 30, 15, 900_000, tzinfo=vienna)
    assert clock.text(moment) == "2026-11-27T23:30:15+00:00"
    assert clock.parse(clock.text(moment)) == moment.replace(microsecond=0)
    assert clock.text(moment) < clock.text(moment + timedelta(seconds=1))


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "2026-11-28T25:00:00Z"])
def test_what_is_no_time_is_long_past(text: str) -> None:
    """Somebody wrote it by hand: what is due then is due now, and can be compared."""
    assert clock.parse(text) < datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-11-28T04:00:00", "2026-11-28 04:00", "20261128T040000"])
def test_a_time_without_a_zone_is_in_utc(text: str) -> None:
    """Also in the other forms of ISO 8601."""
    assert clock.parse(text) == datetime(2026, 11, 28, 4, tzinfo=UTC)
