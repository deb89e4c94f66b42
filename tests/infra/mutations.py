"""Whether the check of `infra/` that must see a mutation does."""

import shutil
from pathlib import Path

from tests.infra.checks import CHECKS
from tests.infra.variants import INFRA, ROOT, Missing
from tests.mutations.table import Mutation


def finding(mutation: Mutation, folder: Path) -> str | None:
    """The first thing that the check finds in a copy of infra/, docs/ and the workflows with the change. Raises
    `NotCompiled` where the compiler sees the change before the check does."""
    infra = shutil.copytree(INFRA, folder / "infra")
    for each in ("azure.yaml", "jobs.json", ".funcignore"):
        shutil.copy(ROOT / each, folder)
    for each in ("docs", ".github"):
        shutil.copytree(ROOT / each, folder / each)
    mutation.apply(folder)
    try:
        return next(CHECKS[mutation.breaks](infra), None)
    except Missing as missing:
        return str(missing)
