"""The command as operators install it: its package, what that needs, and nothing else of ours."""

import os
import re
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from shared import __version__

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT = re.compile(r"^([\w.-]+)==(\S+)$", re.MULTILINE)


def pinned(file: str) -> dict[str, str]:
    """The requirements that a file names."""
    return dict(REQUIREMENT.findall((ROOT / file).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment of its own, made as pip makes it, but from what is installed here."""
    folder = tmp_path_factory.mktemp("package")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel: list[str | Path] = [
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--wheel-dir",
        folder,
    ]
    subprocess.run([*pip, *wheel, copy_of_the_source(folder / "source")], check=True)
    venv.create(folder / "venv", symlinks=os.name != "nt")
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = programs / ("python.exe" if os.name == "nt" else "python")
    install: list[str | Path] = [
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        *folder.glob("*.whl"),
    ]
    subprocess.run([*pip, *install], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([python, "-c", where], text=True).strip())
    for name in needed(packages):
        link_distribution(name, packages)
    return programs / ("d365-blob-bridge.exe" if os.name == "nt" else "d365-blob-bridge")


def copy_of_the_source(folder: Path) -> Path:
    """What Git has: setuptools leaves things behind where it builds."""
    files = subprocess.check_output(
        ["git", "ls-files", "shared", "tools", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        text=True,
    )
    for name in files.splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return folder


def needed(packages: Path) -> set[str]:
    """The distributions that the installed package needs, directly or not."""
    (mine,) = metadata.distributions(name="d365-blob-bridge", path=[str(packages)])
    names, queue = set[str](), list(mine.requires or [])
    while queue:
        requirement = Requirement(queue.pop())
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name not in names:
            names.add(requirement.name)
            queue += metadata.distribution(requirement.name).requires or []
    return names


def link_distribution(name: str, packages: Path) -> None:
    """Put a distribution that is installed here there as well, file by file: some share a folder."""
    for file in metadata.distribution(name).files or []:
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(file.locate(), target)


def run(command: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command, away from the source."""
    return subprocess.run(
        [command, *words],
        cwd=command.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def test_the_installed_command_says_its_version_and_its_commands(command: Path) -> None:
    """The version is the one of the app."""
    assert run(command, "--version").stdout.strip() == __version__
    help_ = run(command)
    assert (help_.returncode, "convert" in help_.stdout) == (0, True)
    unknown = run(command, "opreate")
    assert (unknown.returncode, "'opreate'" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("name", ["operate", "jobs", "convert", "register"])
def test_each_command_starts_with_what_the_package_needs(command: Path, name: str) -> None:
    """Nothing is imported that is not in tools/requirements.txt."""
    help_ = run(command, name, "--help")
    assert (help_.returncode, help_.stderr) == (0, "")
    assert f"d365-blob-bridge {name}" in help_.stdout


def test_the_installed_command_works_on_the_settings_that_it_is_given(
    command: Path, tmp_path: Path
) -> None:
    """Up to the first mistake in them: the clients of storage and D365 are there."""
    settings = tmp_path / "app.json"
    settings.write_text('{"Values": {"D365_URL": "https://x.operations.dynamics.com"}}')
    (tmp_path / "jobs.json").write_text("{}")
    answer = run(
        command,
        "operate",
        "--settings",
        str(settings),
        "list",
        JOBS_FILE=str(tmp_path / "jobs.json"),
    )
    assert (answer.returncode, "DataStorage" in answer.stderr) == (1, True), answer.stderr
    assert "Traceback" not in answer.stderr


def test_names_in_every_alphabet_reach_a_pipe(command: Path, tmp_path: Path) -> None:
    """In UTF-8, whatever the code page."""
    text = (ROOT / "tests/tools/scheduler/Schedule.xml").read_text(encoding="utf-8")
    schedule = tmp_path / "Schedule.xml"
    schedule.write_text(text.replace("<group>Finance", "<group>Φινανσ"), encoding="utf-8")
    answer = run(command, "convert", str(schedule), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (answer.returncode, "Φινανσ" in answer.stdout) == (0, True), answer.stderr


def test_its_requirements_are_those_of_the_app() -> None:
    """A part of them, in the same versions, and what builds it is pinned alike."""
    assert pinned("tools/requirements.txt").items() < pinned("requirements.txt").items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    builder = dict(REQUIREMENT.findall("\n".join(project["build-system"]["requires"])))
    assert builder.items() < pinned("requirements-dev.txt").items()
