"""Numbers as people read them."""

import pytest

from shared.operations import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (129_599, "36 h"),
        (129_600, "1.5 d"),
        (8_640_000, "100 d"),
    ],
)
def test_a_duration_has_the_unit_that_keeps_it_short(seconds: float, text: str) -> None:
    """Two units meet where the larger one has 1.5."""
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 29, "2.5 GiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_a_size_is_in_units_of_1024(count: int, text: str) -> None:
    """GiB is the largest."""
    assert units.size(count) == text
