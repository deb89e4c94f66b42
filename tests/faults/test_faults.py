"""The short form of `dev.py faults`, for every run of the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.azurite import running_azurite
from tests.faults import crashes, mutants, schedules, sending

pytestmark = pytest.mark.slow

ONE_EACH = {each.invariant.split()[0]: each for each in reversed(mutants.MUTANTS)}.values()


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[crashes.Matrix]:
    """One Azurite with an account for each crash."""
    names = crashes.accounts(120)
    folder = tmp_path_factory.mktemp("crashes")
    with running_azurite(more_accounts=names) as running:
        yield crashes.Matrix(running, names, folder)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("flow", crashes.FLOWS, ids=lambda flow: flow.name)
def test_a_crash_loses_nothing_and_doubles_nothing(
    matrix: crashes.Matrix, flow: crashes.Flow
) -> None:
    """At some points of each flow, with all around enqueue and acknowledge; `dev.py faults` tries each."""
    results = list(matrix.run(flow, every=20))
    assert results
    assert [result for result in results if result.violations] == []


@pytest.mark.timeout(900)
def test_a_random_schedule_ends_in_order() -> None:
    """One of them; `dev.py soak` goes through others."""
    text, violations = schedules.run(seed=7, seconds=12)
    assert violations == [], text


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", ONE_EACH, ids=lambda mutant: mutant.invariant)
def test_a_break_is_caught(mutant: mutants.Mutant) -> None:
    """Tests that can't fail prove nothing; one break of each invariant here, all in `dev.py faults`."""
    assert mutants.caught(mutant)


def test_the_docs_have_the_table_that_is_tried() -> None:
    """docs/reliability.md: made by `python -m tests.faults.sending`."""
    page = Path(__file__).parents[2] / "docs" / "reliability.md"
    assert sending.markdown() in page.read_text(encoding="utf-8")
