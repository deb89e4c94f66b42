"""`d365-blob-bridge jobs`, which the workflow asks before a deployment."""

from pathlib import Path

import pytest

from tools.jobs import main


def test_it_counts_the_jobs_of_a_file_that_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "jobs.json"
    file.write_text(
        '{"exports": [{"name": "vendors", "activityId": "3f1c2a8e-6f0b-4a57-9d3e-0a5b7c1d2e02"}]}'
    )
    assert main([str(file)]) == 0
    assert "0 import jobs, 1 export jobs" in capsys.readouterr().out


def test_it_fails_with_every_mistake(tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    file.write_text('{"exports": [{"name": "a b", "activityId": "x"}]}')
    with pytest.raises(SystemExit, match=r"(?s)exports\[0\]\.name.*exports\[0\]\.activityId"):
        main([str(file)])


def test_it_looks_at_jobs_json_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of the repository, which is right."""
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert main([]) == 0
