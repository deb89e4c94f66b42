"""What a release is made of (.github/workflows/release.yml), with the compiler in the Azure CLI's place."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import urllib.parse
import zipfile
from pathlib import Path

import pytest

from shared import __version__
from tests.infra import compiler
from tests.infra.variants import ROOT


@compiler.needed
@pytest.mark.skipif(sys.platform != "linux", reason="the workflow runs on Linux")
def test_a_release_has_the_templates_and_the_code(tmp_path: Path) -> None:
    """The templates ask for what the Bicep files ask for; the zip holds what the app consists of."""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for name in ("infra", "functions", "shared", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    package = ("pyproject.toml", "README.md", "LICENSE")
    for name in ("function_app.py", "host.json", "requirements.txt", "jobs.json", *package):
        shutil.copy(ROOT / name, tmp_path)
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b.org", "commit", "-qm", "all"]
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    subprocess.run(commit, cwd=tmp_path, check=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    az = programs / "az"
    # `az bicep build --file F --outfile O` runs `bicep build F --outfile O`
    az.write_text(f'#!/bin/sh\nshift 3; exec "{compiler.find_compiler()}" build "$@"\n')
    az.chmod(0o755)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # 0: without, as pip reads it
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    script = textwrap.dedent(text.split("- name: Build\n        run: |\n")[1].split("\n\n")[0])
    subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=os.environ | offline | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        check=True,
    )
    assert list((tmp_path / "release").glob(f"d365_blob_bridge-{__version__}-*.whl"))
    for built, source in (("azuredeploy.json", "main.bicep"), ("events.json", "events.bicep")):
        template = json.loads((tmp_path / "release" / built).read_text(encoding="utf-8"))
        bicep = (ROOT / "infra" / source).read_text(encoding="utf-8")
        assert template["parameters"].keys() == set(re.findall(r"(?m)^param (\w+)", bicep))
    with zipfile.ZipFile(tmp_path / "release/released-package.zip") as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {
        "function_app.py",
        "functions",
        "shared",
        "host.json",
        "requirements.txt",
        "jobs.json",
    }


def test_the_button_opens_the_template_that_a_release_publishes() -> None:
    """In the portal, from the branch that the workflow writes."""
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    workflow = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    link = re.findall(
        r"\]\((https://portal\.azure\.com/#create/Microsoft\.Template/uri/\S+)\)", page
    )
    (template,) = (urllib.parse.unquote(each.rpartition("/uri/")[2]) for each in link)
    host, branch, name = re.fullmatch(
        r"https://([^/]+)/[^/]+/[^/]+/([^/]+)/([^/]+)", template
    ).groups()  # type: ignore[union-attr]
    assert host == "raw.githubusercontent.com"
    assert f"--initial-branch {branch}\n" in workflow
    assert f"git add {name} " in workflow
