"""Every check of `infra/` passes on the files as they are, and finds each change of mutations.toml."""

from pathlib import Path

import pytest

from tests.infra import compiler
from tests.infra.checks import CHECKS
from tests.infra.mutations import MUTATIONS, Mutation, finding
from tests.infra.variants import INFRA

pytestmark = compiler.needed


@pytest.mark.parametrize("name", CHECKS)
def test_infra(name: str) -> None:
    """`python3 dev.py infra` says the same."""
    assert list(CHECKS[name](INFRA)) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_change_is_found(mutation: Mutation, tmp_path: Path) -> None:
    """By the check that is there for it."""
    assert finding(mutation, tmp_path)


def test_every_check_has_a_change_to_find() -> None:
    """A check that was never seen to fail proves nothing."""
    assert {each.check for each in MUTATIONS} == set(CHECKS)
