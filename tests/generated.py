"""What is written by a program: schemas, and the tables of the pages between two marks.

`dev.py generate` writes all of it; a test sees that it is fresh.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shared.config import jobs
from shared.imports import notification
from tests.faults import failed_sends
from tests.mutations.table import CODE, INFRA

ROOT: Final = Path(__file__).resolve().parents[1]
DEPLOYED: Final = ("function_app.py", "functions", "shared")
CODE_OF_A_PROMISE: Final = re.compile(r"\b[EISA]\d\b")
INFRA_PROMISES: Final = {"A5": ("identity_settings", "connections", "permissions")}
"""Promises that infra/ keeps, with the checks that prove it."""


def files() -> dict[str, str]:
    """Each generated file by its path, with the text that it should have."""
    return {
        "jobs.schema.json": json.dumps(jobs.schema(), indent=2) + "\n",
        "docs/notification.schema.json": json.dumps(notification.schema(), indent=2) + "\n",
        "docs/architecture.md": _page("docs/architecture.md", "modules", modules()),
        "docs/invariants.md": _page("docs/invariants.md", "proofs", proofs()),
        "docs/reliability.md": _pages(
            "docs/reliability.md",
            sends=failed_sends.markdown(),
            imports=failed_sends.markdown(failed_sends.PACKAGE_CASES, failed_sends.PACKAGE_FOLLOWS),
        ),
    }


def _page(path: str, name: str, table: str) -> str:
    """A page with the table in the place that is marked for it."""
    return _with_table((ROOT / path).read_text(encoding="utf-8"), path, name, table)


def _pages(path: str, **tables: str) -> str:
    """The same with several tables."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for name, table in tables.items():
        text = _with_table(text, path, name, table)
    return text


def _with_table(text: str, path: str, name: str, table: str) -> str:
    begin, end = f"<!-- dev.py generate: {name} -->\n", "\n<!-- end -->"
    before, marker, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not marker or not closed:
        raise ValueError(f"{path} has no place for the table {name}")
    return before + begin + table + end + after


def modules() -> str:
    """Which file does what: the first sentence of each module."""
    paths = [ROOT / "function_app.py"]
    for folder in ("functions", "shared", "tools"):
        paths += sorted(_modules(ROOT / folder))
    rows = [f"| `{_name(path)}` | {_first_sentence(path)} |" for path in paths]
    return "\n".join(["| file | does |", "| --- | --- |", *rows])


def _modules(folder: Path) -> Iterator[Path]:
    """A folder's modules, each package before those in it."""
    yield folder / "__init__.py"
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (path / "__init__.py").is_file():
            yield from _modules(path)
        elif path.suffix == ".py" and not path.name.startswith("__"):
            yield path


def _name(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    return name.removesuffix("__init__.py")


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<=[.?])\s+(?=[A-Z`])|\n\n", " ".join(text.split("\n\n")[0].split()))[0]
    return sentence.rstrip(".").replace("|", "\\|")


def proofs() -> str:
    """Where each promise is kept (the modules that cite its code), and the tests of its mutations, each seen to
    go red."""
    kept = cited()
    lines = ["| promise | kept in | tests that go red when it is broken |", "| --- | --- | --- |"]
    for code in sorted(promises(), key=lambda code: ("EISA".index(code[0]), code)):
        tests = {row.test: None for row in CODE if row.breaks == code}
        names = [f"`{test.removeprefix('tests/')}`" for test in tests]
        for check in INFRA_PROMISES.get(code, ()):
            count = sum(row.breaks == check for row in INFRA)
            names.append(f"`infra/test_infra.py::test_infra[{check}]` ({count} mutations)")
        places = [f"`{place}`" for place in kept.get(code, ())]
        places += ["`infra/`"] if code in INFRA_PROMISES else []
        lines.append(f"| {code} | {', '.join(places)} | {'; '.join(names)} |")
    return "\n".join(lines)


def promises() -> set[str]:
    """The codes of docs/invariants.md."""
    text = (ROOT / "docs/invariants.md").read_text(encoding="utf-8")
    return set(re.findall(r"^- \*\*([EISA]\d)\*\* ", text, re.MULTILINE))


def cited() -> dict[str, list[str]]:
    """The codes that comments and docstrings of the product cite, each with its modules."""
    places: dict[str, list[str]] = {}
    for part in DEPLOYED:
        root = ROOT / part
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            for code in sorted(set(CODE_OF_A_PROMISE.findall(path.read_text(encoding="utf-8")))):
                places.setdefault(code, []).append(path.relative_to(ROOT).as_posix())
    return places


def main() -> int:
    """Write them."""
    for name, text in files().items():
        path = ROOT / name
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"written: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
