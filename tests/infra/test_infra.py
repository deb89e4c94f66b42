"""Every check of `infra/` passes on the files as they are, and finds each row of mutations/infra.toml."""

from pathlib import Path

import pytest

from tests.infra import compiler
from tests.infra.checks import CHECKS
from tests.infra.mutations import finding
from tests.infra.variants import INFRA
from tests.mutations.table import INFRA as MUTATIONS
from tests.mutations.table import Mutation

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
    assert {each.breaks for each in MUTATIONS} == set(CHECKS)
