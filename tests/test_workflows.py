"""GitHub's workflows: nothing weak in them, and the step that tries again ends as it should.

It runs in Bash as GitHub runs it ("Workflow syntax for GitHub Actions", `defaults.run.shell`: `bash` is with
`pipefail`). Azure can't be asked here, so an `az` of the test's own answers.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / ".github/workflows"


def test_zizmor_finds_nothing() -> None:
    """Nor in Dependabot's settings: actions are pinned by their hash, no credentials stay behind, no text of
    others is run."""
    zizmor = Path(sys.executable).with_name("zizmor.exe" if os.name == "nt" else "zizmor")
    checked = subprocess.run(
        [zizmor, "--offline", "--no-progress", WORKFLOWS.parent],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


BAD_GATEWAY = "ERROR: An error occured during deployment. Status Code: 502, Details: "
BAD_ZIP = "ERROR: An error occured during deployment. Status Code: 400, Details: "


@pytest.mark.skipif(sys.platform != "linux", reason="the workflow deploys from Linux")
@pytest.mark.parametrize(
    ("answers", "tries", "code"),
    [
        ([""], 1, 0),
        ([BAD_GATEWAY, BAD_GATEWAY, ""], 3, 0),
        ([BAD_GATEWAY] * 9, 5, 1),
        ([BAD_ZIP, ""], 1, 1),
    ],
    ids=["at once", "after two 502", "never", "a bad zip"],
)
def test_code_is_published_in_five_tries(
    tmp_path: Path, answers: list[str], tries: int, code: int
) -> None:
    """Where the deployment site is not there yet; another error ends it at once."""
    ended = run_step("Code", tmp_path, answers)
    assert (ended.returncode, tried(tmp_path)) == (code, tries), ended.stdout


def run_step(name: str, folder: Path, answers: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a step of the deployment; `az` fails with each answer in turn, and with an empty one it succeeds."""
    programs = folder / "programs"
    programs.mkdir()
    (folder / "answers").write_text("".join(f"{answer}\n" for answer in answers))
    program(programs, "az", AZ)
    program(programs, "sleep", "")
    program(programs, "git", "")
    (folder / "functionAppName").write_text("app")
    text = (WORKFLOWS / "deploy.yml").read_text(encoding="utf-8")
    assert "shell: bash" in text
    step = text.split(f"- name: {name}\n")[1].split("\n\n")[0]
    script = textwrap.dedent(step.split("run: |\n")[1])
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "GROUP": "group",
        "JOBS_FILE": "jobs.json",
        "FOLDER": str(folder),
    }
    return subprocess.run(
        [shutil.which("bash") or "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


AZ = """
echo try >> "$FOLDER/tries"
answer=$(sed -n "$(wc -l < "$FOLDER/tries")p" "$FOLDER/answers")
if [ -n "$answer" ]; then echo "$answer" >&2; exit 1; fi
echo done
"""


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)


def tried(folder: Path) -> int:
    return len(re.findall("try", (folder / "tries").read_text()))
