"""What the tests of the configuration share."""

from pathlib import Path

import pytest


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with an empty jobs file, as the app is deployed."""
    (tmp_path / "jobs.json").write_text("{}")
    return tmp_path
