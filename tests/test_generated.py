"""What is generated is fresh, and the pages speak of all that there is."""

import pytest

from tests import generated
from tests.generated import ROOT
from tests.mutations.table import CODE


@pytest.mark.parametrize("name", generated.files())
def test_a_generated_file_is_fresh(name: str) -> None:
    """`python3 dev.py generate` writes it."""
    assert (ROOT / name).read_text(encoding="utf-8") == generated.files()[name]


def test_every_module_says_what_it_is() -> None:
    """The table of docs/architecture.md is made of it."""
    assert [row for row in generated.modules().splitlines() if row.endswith("|  |")] == []


def test_every_promise_is_explained_kept_and_proved() -> None:
    """The codes that the code cites, those of docs/invariants.md and those of the mutations are the same."""
    promises = generated.promises()
    elsewhere = set(generated.INFRA_PROMISES)
    assert set(generated.cited()) | elsewhere == promises
    assert {row.breaks for row in CODE} | elsewhere == promises
