"""Checkov's rules over what infra/ deploys: docs/deploy.md, "What a scanner says", has each that is not met.

It pins many dependencies to versions of its own, so it is not in requirements-dev.txt: the test runs where
`checkov` is on PATH (`pipx install checkov==3.3.30`), as in the workflow of GitHub.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.infra import compiler
from tests.infra.variants import INFRA, ROOT, variant


def explained() -> set[str]:
    """The rules of which the page says why they are not met."""
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    cells = re.findall(r"(?m)^\| (CKV_.*?) \|", page.split("### What a scanner says")[1])
    return {f"CKV_AZURE_{n}" for cell in cells for n in re.findall(r"(?:_|, )(\d+)\b", cell)}


@compiler.needed
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("checkov"), reason="pipx install checkov==3.3.30 first")
@pytest.mark.parametrize(
    ("name", "met"),
    [("as azd deploys first", set()), ("with every option", {"CKV_AZURE_35", "CKV_AZURE_59"})],
)
def test_checkov_finds_what_the_page_explains_and_nothing_else(
    name: str, met: set[str], tmp_path: Path
) -> None:
    """In the resources with the values that Azure would get. A private network meets two rules more."""
    template = {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": variant(INFRA, name).snapshot.resources,
    }
    (tmp_path / "main.json").write_text(json.dumps(template), encoding="utf-8")
    run = subprocess.run(
        ["checkov", "--directory", ".", "--framework", "arm", "--skip-download", "--output=json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    results = json.loads(run.stdout)["results"]
    assert results["passed_checks"]
    assert {each["check_id"] for each in results["failed_checks"]} == explained() - met
