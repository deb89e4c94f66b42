#!/usr/bin/env python3
"""The command for all development work: `python3 dev.py` lists its commands.

It makes its own environment first (`.venv` from Python 3.13, `node_modules` with the storage
emulator), so it uses nothing but the standard library and starts on any Python from 3.9. The
ordinary pip and npm install everything, with the settings that the user has for them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "requirements-dev.txt")
CHECKED = ("function_app.py", "functions", "shared", "tools", "local", "infra", "tests", "dev.py")

# Asks a Python for its version and whether it can make an environment. Free-threaded builds are
# another ABI, for which not all pinned packages have wheels.
PROBE = (
    "import sys, sysconfig, importlib.util as u;"
    "print('%d.%d' % sys.version_info[:2],"
    " 'free-threaded' if sysconfig.get_config_var('Py_GIL_DISABLED') else"
    " 'usable' if u.find_spec('venv') and u.find_spec('ensurepip') else 'no-venv')"
)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stop(text: str) -> NoReturn:
    say("dev.py: " + text)
    raise SystemExit(2)


# --- The environment --------------------------------------------------------------------------


def python_candidates() -> Iterator[list[str]]:
    """Commands that may start Python 3.13, the most likely one first; as the last one, a newer Python."""
    if sys.version_info[:2] == (3, 13):
        yield [sys.executable]
    for folder in os.get_exec_path():
        program = shutil.which("python3.13", path=folder)
        if program:
            yield [program]
    if os.name == "nt" and shutil.which("py"):
        yield ["py", "-3.13"]
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    places = (
        (pyenv / "versions", "3.13*/bin/python3.13"),
        (pyenv / "pyenv-win/versions", "3.13*/python.exe"),
        (home / ".local/share/uv/python", "cpython-3.13*/bin/python3.13"),
        (Path("/opt/homebrew/bin"), "python3.13"),
        (Path("/usr/local/bin"), "python3.13"),
    )
    for place, pattern in places:
        if place.is_dir():
            for path in sorted(place.glob(pattern), reverse=True):
                yield [str(path)]
    if sys.version_info >= (3, 14):
        yield [sys.executable]


def find_python() -> list[str]:
    """The command of a Python 3.13 (or newer) that runs and can make environments."""
    without_venv: list[str] = []
    for command in python_candidates():
        # A name on PATH proves nothing: pyenv leaves shims for versions that are not selected.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            probe = subprocess.run(
                [*command, "-c", PROBE], capture_output=True, text=True, timeout=30, check=False
            )
            words = probe.stdout.split()
            if probe.returncode == 0 and len(words) == 2:
                version = tuple(int(part) for part in words[0].split("."))
                if version >= (3, 13) and words[1] == "usable":
                    return command
                if version >= (3, 13) and words[1] == "no-venv":
                    without_venv.append(command[0])
    if without_venv:
        stop(
            f"{without_venv[0]} can't make virtual environments. "
            "Install its venv module (Debian, Ubuntu: apt install python3.13-venv)."
        )
    stop(
        "Python 3.13 is needed and was not found (this is "
        f"{sys.version_info[0]}.{sys.version_info[1]}). Install it, for example with\n"
        "  Windows          winget install Python.Python.3.13\n"
        "  macOS            brew install python@3.13\n"
        "  Debian, Ubuntu   apt install python3.13 python3.13-venv, where packaged\n"
        "  anywhere         pyenv install 3.13, or uv python install 3.13\n"
        "and run this again; it is found by name on PATH, through py, pyenv or uv."
    )


@contextlib.contextmanager
def only_one_installing() -> Iterator[None]:
    """Lets one dev.py install at a time; a second one waits. The end of a process frees its lock."""
    with (ROOT / ".venv.lock").open("a+b") as file:
        if os.name == "nt":
            import msvcrt

            while True:
                try:
                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined, unused-ignore]
                    break
                except OSError:  # LK_LOCK gives up after ten tries, a second apart
                    continue
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fingerprint(*paths: Path) -> str:
    """A hash of the files that say what to install, to compare with that of what was installed."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def is_installed(stamp: Path, digest: str) -> bool:
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == digest


def run_or_stop(command: list[str], failure: str) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        stop(failure)


def runs(python: Path) -> bool:
    try:
        return subprocess.run([str(python), "-c", ""], check=False).returncode == 0
    except OSError:
        return False


def make_environment() -> None:
    """Makes `.venv`, and installs in it what the requirements files say."""
    digest = fingerprint(*REQUIREMENTS)
    stamp = VENV / ".installed"
    if is_installed(stamp, digest) and VENV_PYTHON.exists():
        return
    with only_one_installing():
        if is_installed(stamp, digest) and runs(VENV_PYTHON):
            return
        if not runs(VENV_PYTHON):
            python = find_python()
            say(f"Making .venv with {' '.join(python)}")
            run_or_stop(
                [*python, "-m", "venv", "--clear", str(VENV)], "the environment was not made."
            )
        say("Installing requirements-dev.txt into .venv")
        stamp.unlink(missing_ok=True)
        run_or_stop(
            [str(VENV_PYTHON), "-m", "pip", "install", "-qq", "-r", str(REQUIREMENTS[1])],
            "pip could not install the requirements; its reason is above.",
        )
        stamp.write_text(digest, encoding="utf-8")


def continue_inside() -> None:
    """Continues in `.venv`'s Python. Returns only if this is that Python."""
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    command = [str(VENV_PYTHON), str(ROOT / "dev.py"), *sys.argv[1:]]
    # UTF-8 on any console: file names in the demo and the tests are not all Latin.
    # Bytecode is kept even if the user's settings forbid it: the tests start the app some hundred times.
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": ""}
    if os.name != "nt":
        os.execve(command[0], command, environment)
    with subprocess.Popen(command, env=environment) as child:
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C reaches the child by itself
                raise SystemExit(child.wait())


def make_emulator() -> None:
    """Installs the storage emulator (Azurite) from npm where it is missing or outdated."""
    from local import node

    stamp = ROOT / "node_modules" / ".installed"
    digest = fingerprint(ROOT / "package-lock.json")
    if is_installed(stamp, digest) and node.find_node():
        return
    with only_one_installing():
        if not node.find_node():
            say(f"No Node {node.OLDEST}+ on PATH: installing {node.WHEEL} into .venv")
            run_or_stop(
                [sys.executable, "-m", "pip", "install", "-qq", node.WHEEL],
                f"pip could not install it. Install Node {node.OLDEST} or newer with npm.",
            )
        if not is_installed(stamp, digest):
            say("Installing the storage emulator (npm ci)")
            stamp.unlink(missing_ok=True)
            run_or_stop(node.npm_ci(), "npm could not install it; its reason is above.")
            stamp.write_text(digest, encoding="utf-8")


def make_browser() -> None:
    """Installs Chromium with apt for the tests of the page: as root only, and only without a browser."""
    from local.chromium import find_chromium

    if find_chromium() or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    if shutil.which("apt-get"):
        say("Installing Chromium for the tests of the page (apt-get)")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        packages = ["chromium", "fonts-dejavu-core"]
        for words in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *packages]):
            command = ["apt-get", "-y", *words]
            # If this fails, those tests fail and say what to do. The others must run nevertheless.
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)


# --- The commands -----------------------------------------------------------------------------


def run_module(name: str, arguments: list[str]) -> int:
    """Runs `python -m name` in this process, so that Ctrl-C and the exit code are the module's."""
    path = ROOT.joinpath(*name.split("."))
    if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
        stop(f"there is no module {name}.")
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
    return 0


def run_steps(steps: list[list[str]]) -> int:
    """Runs every step, also after a failure, so that all failures are seen. Returns 0 if there are none."""
    failed = []
    for module, *arguments in steps:
        say(f"--- {module} {' '.join(arguments)}")
        command = [sys.executable, "-m", module, *arguments]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            failed.append(module)
    if failed:
        say(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


def checks() -> list[list[str]]:
    return [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "--strict", *CHECKED],
    ]


def setup(_: list[str]) -> int:
    say("Ready: .venv and node_modules are as the pinned files say.")
    return 0


# Tests spend most of their time waiting, so more of them run at once than there are cores.
ALL_AT_ONCE = ("-n", "4", "--dist", "worksteal", "--ignore=tests/infra")


def test(arguments: list[str]) -> int:
    if arguments == ["--quick"]:
        return run_steps([*checks(), ["pytest", "-q", "-n", "4", "-m", "not slow"]])
    if arguments == ["--cov"]:
        make_browser()
        return run_steps(
            [
                ["coverage", "erase"],
                # Not measured: infra/ is not Python, and the mutations run in a copy of the project.
                ["coverage", "run", "-m", "pytest", *ALL_AT_ONCE, "--ignore=tests/mutations"],
                ["coverage", "combine", "--quiet"],
                ["coverage", "report"],
            ]
        )
    if arguments:
        return run_steps([["pytest", *arguments]])
    make_browser()
    return run_steps(
        [
            *checks(),
            ["pytest", *ALL_AT_ONCE],
            # These tests compute, and each worker starts a Bicep compiler of its own.
            ["pytest", "-n", "2", "tests/infra"],
        ]
    )


def lint(arguments: list[str]) -> int:
    if arguments == ["--fix"]:
        return run_steps([["ruff", "check", "--fix", "."], ["ruff", "format", "."], checks()[2]])
    return run_steps(checks())


def operate(arguments: list[str]) -> int:
    """Runs `operate` with the settings of the running demo, unless the arguments name others."""
    from local.registry import running_demos

    demos = [] if any(word.startswith("--settings") for word in arguments) else running_demos()
    if len(demos) > 1:
        stop("several demos are running: name the settings of one with operate --settings FILE.")
    settings = ["--settings", demos[0].settings] if demos else []
    return run_module("tools", ["operate", *settings, *arguments])


def bench(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        return run_module("tests.bench", arguments)
    return run_module(f"tests.bench.{arguments[0]}", arguments[1:])


class Command(NamedTuple):
    usage: str
    summary: str
    run: Callable[[list[str]], int]
    emulator: bool = True
    """Whether it needs the storage emulator."""


def module(name: str) -> Callable[[list[str]], int]:
    return lambda arguments: run_module(name, arguments)


def tool(name: str) -> Callable[[list[str]], int]:
    return lambda arguments: run_module("tools", [name, *arguments])


COMMANDS = {
    "demo": Command(
        "[--keep]", "move packages and files end to end on this machine", module("local.demo")
    ),
    "drop": Command("FILE JOB", "drop a file into a kept demo", module("local.drop"), False),
    "operate": Command("COMMAND", "list, check and resend files", operate, False),
    "register": Command("URL ID USER", "let an application into D365", tool("register"), False),
    "d365": Command(
        "…", "do in the D365 of a kept demo what a person does", module("local.d365"), False
    ),
    "jobs": Command("[FILE]", "check a jobs file", tool("jobs"), False),
    "convert": Command(
        "FILE.xml…", "convert the Scheduler's jobs to jobs.json", tool("convert"), False
    ),
    "host": Command(
        "--settings FILE", "run the app with your settings", module("local.host"), False
    ),
    "test": Command("[--quick|--cov]", "ruff, mypy, pytest; or pytest with your arguments", test),
    "lint": Command("[--fix]", "ruff and mypy alone", lint, False),
    "bench": Command("[--quick]", "measure speed and memory; or one: memory, zip_check", bench),
    "faults": Command(
        "[--every N]", "check what the bridge promises, under faults", module("tests.faults")
    ),
    "soak": Command("--minutes N", "random faults for a long time", module("tests.soak")),
    "infra": Command("", "checks of infra/", module("tests.infra"), False),
    "generate": Command(
        "", "write the files that are made from the code", module("tests.generated"), False
    ),
    "setup": Command("", "make the environment and nothing else", setup),
}


def print_help() -> None:
    print("python3 dev.py COMMAND\n")
    for name, command in COMMANDS.items():
        print(f"  {name + ' ' + command.usage:<24}{command.summary}")
    print("\nThe first run makes .venv and node_modules here; later runs use them.")


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print_help()
        return 0
    command = COMMANDS.get(arguments[0])
    if command is None:
        print_help()
        stop(f"there is no command {arguments[0]!r}.")
    make_environment()
    continue_inside()
    if command.emulator:
        make_emulator()
    return command.run(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
