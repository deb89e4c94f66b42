"""A binding is named for the thing that it holds, not for the act that brought it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDERS: Final = (".", "shared", "functions", "tools", "local", "infra", "tests")
BANNED: Final = frozenset(
    ("found", "said", "told", "theirs", "wanted", "asked", "became", "made", "given")
)


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and the name of everything that a module binds."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ClassDef(name=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield node.lineno, name
            case ast.MatchStar(name=str(name)) | ast.alias(asname=str(name)):
                yield node.lineno, name


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_binding_is_named_for_an_act(folder: str) -> None:
    """`found` may be a response, a record, or a blob: the reader can't tell."""
    modules = sorted((ROOT / folder).glob("*.py" if folder == "." else "**/*.py"))
    assert modules
    banned = [
        f"{module.relative_to(ROOT)}:{line}: {name}"
        for module in modules
        for line, name in bindings(ast.parse(module.read_text(encoding="utf-8")))
        if name in BANNED
    ]
    assert banned == []


def test_a_banned_name_is_seen_wherever_it_is_bound() -> None:
    """Else the test above could pass on anything."""
    text = """
def made(said, *told, wanted=1, **given):
    asked: int = 1
    for theirs in (): pass
    with open("") as became: pass
    try: pass
    except OSError as found: pass
    match asked:
        case [made, *said]: pass
    if (told := 1): pass
class wanted: pass
import os as given
self.found = 1
async def theirs(): pass
"""
    assert {name for _, name in bindings(ast.parse(text))} == BANNED
