"""Every check of `infra/` passes on the files as they are, and fails on each broken copy of them."""

import shutil
from pathlib import Path

import pytest

from tests.infra.broken import BROKEN, Broken
from tests.infra.checks import CHECKS, run
from tests.infra.variants import INFRA, ROOT


@pytest.mark.parametrize("name", CHECKS)
def test_infra(name: str) -> None:
    """`python3 dev.py infra` says the same."""
    assert run(name) == []


@pytest.mark.parametrize("broken", BROKEN, ids=lambda each: f"{each.check}: {each.says}")
def test_each_check_can_fail(broken: Broken, tmp_path: Path) -> None:
    """It names what is wrong in the broken copy."""
    infra = shutil.copytree(INFRA, tmp_path / "infra")
    shutil.copy(ROOT / "azure.yaml", tmp_path)
    for folder in ("docs", ".github"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    path = infra / broken.file
    text = path.read_text(encoding="utf-8")
    assert broken.old in text
    path.write_text(text.replace(broken.old, broken.new, 1), encoding="utf-8")
    found = run(broken.check, infra)
    assert any(broken.says in each for each in found), found


def test_every_check_has_been_seen_to_fail() -> None:
    """A check that nobody has broken proves nothing."""
    assert {each.check for each in BROKEN} == set(CHECKS)
