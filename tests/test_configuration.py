"""docs/configuration.md is complete: every field of the jobs file, setting and container; none that is gone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shared.config import jobs
from shared.operations.journal import JOURNAL
from shared.storage.account import CONTAINERS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "jobs.schema.json").read_text(encoding="utf-8"))["$defs"]
SECTIONS = {
    "## The jobs file": "Jobs",
    "### Environments": "Environment",
    "### Export jobs": "ExportJob",
    "### Import jobs": "ImportJob",
    "#### The company in a file's name": "CompanyFrom",
}


def rows(heading: str) -> dict[str, list[str]]:
    """The table right below a heading: each name of a first cell with the other cells."""
    section = PAGE.split(f"\n{heading}\n")[1]
    table = re.split(r"^#+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    cells_by_name: dict[str, list[str]] = {}
    for line in re.findall(r"^\| (`.*) \|$", table, re.MULTILINE):
        first, *cells = [cell.strip() for cell in line.split(" |")]
        cells_by_name |= dict.fromkeys(re.findall(r"`([^`]+)`", first), cells)
    return cells_by_name


@pytest.mark.parametrize(("heading", "type_"), SECTIONS.items())
def test_each_field_of_the_jobs_file_is_explained(heading: str, type_: str) -> None:
    """As the schema has them, with the default that it has."""
    properties: dict[str, Any] = SCHEMA[type_]["properties"]
    documented = rows(heading)
    assert documented.keys() == properties.keys()
    assert all(cells[-1] for cells in documented.values())
    for name, schema in properties.items():
        default = schema.get("default")
        if type_.endswith("Job") and default not in (None, ""):
            text = default if isinstance(default, str) else json.dumps(default)
            assert documented[name][0] == f"`{text}`", name


def test_the_example_is_a_jobs_file() -> None:
    """In the README too."""
    for page in (PAGE, (ROOT / "README.md").read_text(encoding="utf-8")):
        (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
        assert jobs.parse(example.encode()).imports


def test_each_setting_that_the_app_reads_is_explained() -> None:
    """What the code asks its environment for, and what the templates set for it."""
    read = set()
    for path in (ROOT / "shared").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        read |= set(re.findall(r'environ(?:ment)?\.get\(\s*"([A-Z0-9_]+)"', text))
        read |= set(re.findall(r'"((?:[A-Z0-9]+_)+SCHEDULE|D365_[A-Z_]+)"', text))
    assert {"D365_URL", "D365_CLIENT_ID", "JOBS_FILE", "RECONCILE_SCHEDULE"} <= read
    assert read <= rows("## App settings").keys()


def test_each_container_is_explained() -> None:
    """With the one that Event Grid alone writes into."""
    assert rows("## Containers").keys() == {*CONTAINERS, JOURNAL, "dead-letters"}
