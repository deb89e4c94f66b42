"""The short form of `dev.py faults`, for every run of the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.azurite import running_azurite
from tests.faults import crashes, schedules
from tests.faults.ordering import Turn, violations


@pytest.fixture
def matrix(tmp_path: Path) -> Iterator[crashes.Matrix]:
    """One Azurite with an account for each crash, and none for two flows: uploads that are cut off leave it
    with files open, and with too many of them it answers no more."""
    names = crashes.accounts(200)
    with running_azurite(more_accounts=names) as running:
        yield crashes.Matrix(running, names, tmp_path)


LONG = (
    "export, data project that D365 loses",
    "import, too large, hold",
    "ordered, package API",
    "two environments",
)
"""They wait for long, or differ little from another flow: `dev.py faults` has them."""
SHORT = [flow for flow in crashes.FLOWS if flow.name not in LONG]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("flow", SHORT, ids=lambda flow: flow.name)
def test_a_crash_loses_nothing_and_doubles_nothing(
    matrix: crashes.Matrix, flow: crashes.Flow
) -> None:
    """At some points of each flow, with all around enqueue and acknowledge; `dev.py faults` tries each."""
    results = list(matrix.run(flow, every=45))  # odd: some before, some after
    assert results
    assert [result for result in results if result.violations] == []


def test_the_blocks_of_a_package_are_crash_points(matrix: crashes.Matrix) -> None:
    """They are staged by a pool's threads, on which nothing of the app's own code runs."""
    points = crashes.crash_points(matrix.requests(crashes.EXPORT))
    blocks = [(point.nth, point.when) for point in points if "(block)" in point.request]
    assert blocks == [(1, "before"), (1, "after"), (2, "before"), (2, "after")]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("seed", "seconds"),
    [(7, 12), (15, 4), (17, 6), (44, 6)],
    ids=["side by side", "ordered", "package API", "two environments"],
)
def test_a_random_schedule_ends_in_order(seed: int, seconds: float) -> None:
    """Some of them; `dev.py soak` goes through others."""
    text, wrong = schedules.run(seed, seconds)
    assert wrong == [], text


@pytest.mark.parametrize(
    ("turns", "wrong"),
    [
        ([Turn("a", 0, 5, [(6, 9)]), Turn("b", 0, 9, [(9, 12)])], ""),
        ([Turn("a", 0, 5, [(6, 9)]), Turn("b", 0, 5, [(8, 12)])], "to receive b 1.0 s before"),
        ([Turn("a", 0, 8, [(9, 10)]), Turn("b", 0, 5, [(6, 7)])], "b was sent before a"),
        ([Turn("file 10", 0, 8, [(9, 9)]), Turn("file 2", 0, 5, [(6, 7)])], "2 was sent before"),
        # It came when the other was claimed, and had to wait.
        ([Turn("a", 4, 8, [(9, 10)]), Turn("b", 0, 5, [(6, 7)])], ""),
        # Sent again, since nobody knew whether D365 had it: it still goes first.
        ([Turn("a", 0, 4, [(5, 5), (6, 8)]), Turn("b", 0, 9, [(9, 9)])], ""),
        ([Turn("a", 0, 4, [(5, 5), (8, 9)]), Turn("b", 0, 5, [(6, 7)])], "b was sent before a"),
        # Held: D365 never had it.
        ([Turn("a", 0, 4, []), Turn("b", 0, 5, [(6, 7)])], ""),
    ],
)
def test_the_check_of_the_order_finds_what_it_should(turns: list[Turn], wrong: str) -> None:
    """What is no promise is no violation: a file that came too late to be seen may wait."""
    mistakes = violations(turns)
    assert len(mistakes) == (1 if wrong else 0), mistakes
    assert wrong in "".join(mistakes)
