"""dev.py on machines of many kinds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dev

ROOT = Path(__file__).resolve().parents[1]
SHIM = "#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n"


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.skipif(os.name == "nt", reason="makes shell scripts")
def test_a_python_that_is_there_by_name_but_does_not_run_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pyenv shim without a version behind it comes first on PATH, and the next one is found."""
    _program(tmp_path / "shims/python3.13", SHIM)
    real = _program(tmp_path / "bin/python3.13", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'shims'}{os.pathsep}{tmp_path / 'bin'}")
    monkeypatch.setattr(sys, "version_info", (3, 11, 7))

    assert dev.find_python() == [str(real)]


@pytest.mark.skipif(os.name == "nt", reason="makes shell scripts")
def test_pyenv_versions_are_found_where_they_are_not_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed but unselected 3.13 will do."""
    real = _program(
        tmp_path / "versions/3.13.1/bin/python3.13",
        f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
    )
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 11, 7))

    assert dev.find_python() == [str(real)]


def test_without_python_3_13_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names a command for each system."""
    monkeypatch.setattr(dev, "python_candidates", lambda: iter([[str(tmp_path / "none")]]))

    with pytest.raises(SystemExit) as stopped:
        dev.find_python()
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    for words in ("Python 3.13 is needed", "winget install", "brew install", "apt install"):
        assert words in message


def test_changed_requirements_are_installed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stamp of what was installed follows the files' text, not their times or line ends."""
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_bytes(b"one==1\n")
    second.write_bytes(b"two==2\n")
    before = dev.fingerprint(first, second)

    first.write_bytes(b"one==1\r\n")
    assert dev.fingerprint(first, second) == before
    first.write_bytes(b"one==2\n")
    assert dev.fingerprint(first, second) != before


def test_only_one_installs_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second dev.py waits until the first has its environment."""
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    program = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import dev\n"
        "dev.ROOT = pathlib.Path(sys.argv[2])\n"
        "print('waiting', flush=True)\n"
        "with dev.only_one_installing(): print('in', flush=True)\n"
    )
    with dev.only_one_installing():
        other = subprocess.Popen(
            [sys.executable, "-c", program, str(ROOT), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
    with other:
        assert other.stdout.readline() == "in\n"
    assert other.returncode == 0


def test_an_unknown_command_gives_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is installed for a slip of the finger."""
    monkeypatch.setattr(sys, "argv", ["dev.py", "dmeo"])

    with pytest.raises(SystemExit):
        dev.main()
    out, err = capsys.readouterr()
    assert "demo" in out
    assert "'dmeo'" in err
