"""There is one version, in `shared/__init__.py`: everything that names one says the same.

The page's is in `shared/operations/test_pages.py`, the telemetry's in `e2e/test_tracing.py`, the package's in
`tools/test_package.py`.
"""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from local.simulator import Simulator
from shared import __version__
from shared.bridge import Bridge
from shared.d365 import MessageId
from shared.d365.errors import Rejected
from tests.helpers import client_of

ROOT = Path(__file__).resolve().parents[1]


def test_the_changelog_begins_with_the_version() -> None:
    """The newest heading names it, with the day of its release or "unreleased"."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, day = re.findall(r"^## (\S+) - (\S+)$", text, re.MULTILINE)[0]
    assert version == __version__
    assert re.fullmatch(r"unreleased|20\d\d-\d\d-\d\d", day)


def test_d365_is_told_the_version(bridge: Bridge, d365: Simulator) -> None:
    """In the User-Agent of each request."""
    with pytest.raises(Rejected):
        client_of(bridge).message_status(MessageId("some"))
    assert {
        each.headers["User-Agent"] for each in d365.requests if each.operation == "message_status"
    } == {f"d365-blob-bridge/{__version__}"}


@pytest.mark.skipif(sys.platform != "linux", reason="the workflow runs on Linux")
@pytest.mark.parametrize(
    ("tag", "heading", "code"),
    [
        (f"v{__version__}", f"## {__version__} - 2026-12-01", 0),
        (f"v{__version__}", f"## {__version__} - unreleased", 1),
        ("v99.0.0", "## 99.0.0 - 2026-12-01", 1),
        (__version__, f"## {__version__} - 2026-12-01", 1),
    ],
    ids=["released", "unreleased", "another version", "no v"],
)
def test_a_release_is_refused_unless_its_tag_is_the_version(
    tmp_path: Path, tag: str, heading: str, code: int
) -> None:
    """And the changelog says when it was released."""
    shutil.copytree(ROOT / "shared", tmp_path / "shared")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    (tmp_path / "python").symlink_to(sys.executable)
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    step = text.split("- name: Version\n        run: |\n")[1].split("\n\n")[0]
    run = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", textwrap.dedent(step)],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "GITHUB_REF_NAME": tag},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout + run.stderr
    assert ("::error::" in run.stdout) == bool(code)
