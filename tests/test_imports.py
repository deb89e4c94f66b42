"""Who imports whom: the contracts of pyproject.toml (`tool.importlinter`), and what they can't say."""

import os
import subprocess
import sys
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).resolve().parents[1]


def test_imports_point_down_and_in_no_circle() -> None:
    """`.venv/bin/lint-imports` says the same, and which import breaks a contract."""
    config = str(ROOT / "pyproject.toml")
    assert lint_imports(config, no_cache=True, no_logo=True) == EXIT_STATUS_SUCCESS


def test_the_app_starts_without_what_only_people_need() -> None:
    """Cold start: of the operations page the journal alone; and nothing that is not deployed."""
    settings = {
        "D365_URL": "https://contoso.operations.dynamics.com",
        "DataStorage": "UseDevelopmentStorage=true",
        "JOBS_FILE": "jobs.json",
    }
    run = subprocess.run(
        [sys.executable, "-c", "import function_app, sys; print(*sys.modules)"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(run.stdout.split())
    operations = {name for name in modules if name.startswith("shared.operations.")}
    assert operations == {"shared.operations.journal"}
    assert not {name.partition(".")[0] for name in modules} & {"jinja2", "local", "tests", "tools"}
