"""The rows of code.toml and infra.toml, and what of the tests sees each of them."""

import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.mutations.anchors import changed

ROOT: Final = Path(__file__).resolve().parents[2]
AT_ONCE: Final = 2


@dataclass(frozen=True)
class Mutation:
    """A change that must not go unseen: in `file`, `old` becomes `new`."""

    breaks: str
    """The promise that it breaks: a code of docs/invariants.md, or the name of a check of `infra/`."""
    file: str
    old: str
    new: str
    what: str = ""
    """What is wrong then, where `old` and `new` do not say it."""
    test: str = ""
    """The test that must go red, the narrowest that does: pytest's id of it, with or without the case.
    None for a check of `infra/`, which must find something."""

    def __str__(self) -> str:
        return f"{self.breaks}: {self.what or f'{self.file}: {self.old!r} -> {self.new!r}'}"

    def apply(self, project: Path) -> None:
        """Make the change. Raises `anchors.NoAnchor`."""
        path = project / self.file
        text = path.read_text(encoding="utf-8")
        path.write_text(changed(self.file, text, self.old, self.new), encoding="utf-8")


def _rows(name: str) -> list[Mutation]:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [Mutation(breaks, **row) for breaks, rows in tomllib.loads(text).items() for row in rows]


CODE: Final = _rows("code.toml")
INFRA: Final = _rows("infra.toml")


@contextmanager
def mutated(mutation: Mutation) -> Iterator[Path]:
    """A copy of the project with the change."""
    with TemporaryDirectory(prefix="bridge-mutation-") as folder:
        project = Path(folder) / "project"
        names = shutil.ignore_patterns(".git", ".venv", "node_modules", ".*_cache")
        shutil.copytree(ROOT, project, ignore=names)
        (project / "node_modules").symlink_to(ROOT / "node_modules", target_is_directory=True)
        # Python knows a changed file by its size and its time in seconds.
        for compiled in (project / mutation.file).parent.glob("__pycache__/*.pyc"):
            compiled.unlink()
        mutation.apply(project)
        yield project


def caught(mutation: Mutation) -> str:
    """The test that goes red with the change; "" when none does. Raises `RuntimeError` where the tests can't be
    run, or none is chosen."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-rf", "-p", "no:cacheprovider"]
    if hasattr(signal, "SIGALRM"):  # a test that waits for ever fails, where it would end all tests
        command += ["-o", "timeout_method=signal"]
    with mutated(mutation) as project:
        run = subprocess.run(
            [*command, mutation.test],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(project), "TEST_PATIENCE": "30"},
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode not in (0, 1):
        raise RuntimeError(f"{mutation}: the tests did not run\n{run.stdout}{run.stderr}")
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0].removeprefix("FAILED ").split(" - ")[0] if failed else ""


def all_caught(mutations: Iterable[Mutation] = CODE) -> Iterator[tuple[Mutation, str]]:
    """Each row with the test that goes red, or the reason why its tests did not run."""

    def outcome(mutation: Mutation) -> str:
        try:
            return caught(mutation)
        except RuntimeError as error:
            return f"WRONG: {error}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        mutations = list(mutations)
        yield from zip(mutations, pool.map(outcome, mutations), strict=True)
