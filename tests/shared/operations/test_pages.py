"""The page's templates: what they print is text, and they are deployed with the code."""

import os
import subprocess
import zipfile
from collections import Counter
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest
from pathspec import GitIgnoreSpec

from shared import __version__
from shared.config.environments import Environment
from shared.exports.execution import Execution
from shared.operations import pages
from shared.operations.health import Line
from shared.operations.pages import Links
from shared.operations.views import Ended, Failing, Filter, Job, Row
from shared.storage.records import Record

ROOT = Path(__file__).resolve().parents[3]

HOSTILE: Final = """<b title='x' id="y">&{{ 7 * 7 }}"""
NOW: Final = datetime(2026, 11, 28, 4, tzinfo=UTC)

JOB = Job(HOSTILE, "import", False, HOSTILE, HOSTILE, HOSTILE, 1, 1, NOW, HOSTILE, "failed", 1)
ENDED = Ended(NOW, "failed", HOSTILE, HOSTILE, 5.0, "imports-failed", HOSTILE, HOSTILE)
ROW = Row(
    HOSTILE,
    "imports-failed",
    HOSTILE,
    HOSTILE,
    HOSTILE,
    HOSTILE,
    1,
    HOSTILE,
    NOW,
    NOW,
    1.0,
    *(5 * [HOSTILE]),
)
RUN = Execution(
    state=HOSTILE,
    executionid=HOSTILE,
    by=HOSTILE,
    why=HOSTILE,
    status=HOSTILE,
    outcome=HOSTILE,
    blob=HOSTILE,
    moved=HOSTILE,
    error=HOSTILE,
)
VIEWS: Final[dict[str, dict[str, Any]]] = {
    "jobs": {
        "jobs": [JOB],
        "elsewhere": Counter({HOSTILE: 1}),
        "failing": [Failing(HOSTILE, HOSTILE, NOW, 1, HOSTILE)],
        "countedAll": False,
        "nextExport": None,
        "since": NOW,
        "endedAll": False,
        "ended": [ENDED],
    },
    "recent": {"job": HOSTILE, "ended": [ENDED]},
    "files": {
        "filter": Filter("failed", HOSTILE, HOSTILE, token=HOSTILE),
        "files": [ROW],
        "lookedAt": 1,
        "nextToken": HOSTILE,
        "jobNames": [HOSTILE],
    },
    "file": {
        **{name: getattr(ROW, name) for name in ROW.__dataclass_fields__},
        "record": Record(source=HOSTILE, resolution=HOSTILE, resolvedwhy=HOSTILE),
        "metadata": {HOSTILE: HOSTILE, "resentby": HOSTILE},
        "report": {
            "d365": {"errors": [HOSTILE], "executionId": HOSTILE, "log": HOSTILE},
            "resolutions": [{"by": HOSTILE}, HOSTILE],
        },
        "todo": HOSTILE,
        "can": ["resend", "receive", "ask", "dismiss", "redeliver"],
        "risk": HOSTILE,
        "user": HOSTILE,
    },
    "check": {"ok": False, "lines": [Line(HOSTILE, "wrong", HOSTILE)]},
    "export": {
        "job": HOSTILE,
        "project": HOSTILE,
        "schedule": HOSTILE,
        "next": NOW,
        "etag": HOSTILE,
        "current": RUN,
        "last": [RUN],
        "can": ["run"],
        "user": HOSTILE,
    },
    "done": {"do": HOSTILE, "name": HOSTILE},
    "message": {"title": HOSTILE, "text": HOSTILE},
}


def test_every_template_is_tried() -> None:
    """Those that are pages."""
    templates = {path.stem for path in pages.HTML.glob("*.html")}
    assert templates - {"base", "macros", "charts"} == VIEWS.keys()


@pytest.mark.parametrize("view", VIEWS)
def test_what_comes_from_outside_is_text(view: str) -> None:
    """Never HTML, never the end of an attribute, never a template."""
    links = Links("/api/operate", HOSTILE, [Environment(HOSTILE, HOSTILE)])
    page = pages.render(view, links, VIEWS[view], view, {"name": HOSTILE})
    assert "&lt;b title=" in page
    assert "{{ 7 * 7 }}" in page
    for part in ("<b ", "title='x'", 'id="y"', "&{{"):
        assert part not in page.replace("&amp;{{", "")
    assert __version__ in page


def test_the_package_that_is_deployed_has_the_templates(tmp_path: Path) -> None:
    """By `git archive`, as the workflow and the guide make it, and by azd, which follows `.funcignore`."""
    names = {path.relative_to(ROOT).as_posix() for path in pages.HTML.iterdir()}
    assert "shared/operations/html/page.css" in names
    git = {**os.environ, "GIT_INDEX_FILE": str(tmp_path / "index")}
    subprocess.run(["git", "add", "--all"], cwd=ROOT, env=git, check=True)
    tree = subprocess.check_output(["git", "write-tree"], cwd=ROOT, env=git, text=True).strip()
    command = ["git", "archive", "--format=zip", tree, "shared"]
    archive = zipfile.ZipFile(BytesIO(subprocess.check_output(command, cwd=ROOT)))
    assert names <= set(archive.namelist())
    ignored = GitIgnoreSpec.from_lines((ROOT / ".funcignore").read_text("utf-8").splitlines())
    assert list(ignored.match_files(names)) == []
    assert list(ignored.match_files(["tools/operate.py"]))
