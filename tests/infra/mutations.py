"""The changes of mutations.toml, and whether the check that is to find one does."""

import shutil
import tomllib
from pathlib import Path
from typing import Final, NamedTuple

from tests.infra.checks import CHECKS
from tests.infra.variants import INFRA, ROOT, Missing


class Mutation(NamedTuple):
    """The first `old` in `file` (from infra/) becomes `new`; `check` must find something."""

    check: str
    file: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.check}: {self.file}: {self.old!r} -> {self.new!r}"


MUTATIONS: Final = [
    Mutation(check, *row)
    for check, rows in tomllib.loads(
        Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    ).items()
    for row in rows
]


def finding(mutation: Mutation, folder: Path) -> str | None:
    """The first thing that the check finds in a copy of infra/, docs/ and the workflows with the change. Raises
    `NotCompiled` where the compiler sees the change before the check does."""
    infra = shutil.copytree(INFRA, folder / "infra")
    for each in ("azure.yaml", "jobs.json", ".funcignore"):
        shutil.copy(ROOT / each, folder)
    for each in ("docs", ".github"):
        shutil.copytree(ROOT / each, folder / each)
    path = infra / mutation.file
    text = path.read_text(encoding="utf-8")
    if mutation.old not in text:
        raise ValueError(f"mutations.toml: {mutation.file} has no {mutation.old!r}")
    path.write_text(text.replace(mutation.old, mutation.new, 1), encoding="utf-8")
    try:
        return next(CHECKS[mutation.check](infra), None)
    except Missing as missing:
        return str(missing)
