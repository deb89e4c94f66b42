"""Whoever changes a module finds its tests by its name: `shared/a/b.py` has `tests/shared/a/test_b.py`."""

from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

WITHOUT: Final = {
    "d365/actions.py": "test_client.py and test_package_api.py read off the wire what it writes",
    "exports/handover.py": "it sends one message, which test_run.py and test_data_project.py read",
}
"""Modules that have no test file, and why they need none."""

ACROSS: Final = {
    "imports/test_half_done.py": "a worker dies between two steps, of whichever module",
    "test_environments.py": "what one environment does is nothing to the others, in no module",
    "test_hostile.py": "whatever comes from outside, through all modules that read it",
}
"""Test files of no one module, and what they test."""


def paths(folder: str, pattern: str) -> set[str]:
    """The files of a folder, as they are named from there."""
    root = ROOT / folder
    return {path.relative_to(root).as_posix() for path in root.rglob(pattern)}


def mirrored(module: str) -> str:
    """Where a module's tests are."""
    path = PurePosixPath(module)
    return path.with_name(f"test_{path.name}").as_posix()


def test_each_module_has_its_tests_in_a_file_of_its_name() -> None:
    """And each test file a module, or a reason to have none."""
    modules = {path for path in paths("shared", "*.py") if not path.endswith("__init__.py")}
    assert modules >= WITHOUT.keys()
    expected = {mirrored(module) for module in modules - WITHOUT.keys()}
    assert not expected & ACROSS.keys()
    assert paths("tests/shared", "test_*.py") == expected | ACROSS.keys()
