"""Finds the one place of a text that a mutation changes.

In Python the place is found in the syntax tree: comments and layout do not count, and a local may have any name
(docs/decisions/mutation-anchors.md). Everywhere else the old text stands in the file once, to the letter.
"""

import ast
import builtins
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class NoAnchor(ValueError):
    """The old text stands nowhere in the file, or more than once."""


def changed(name: str, text: str, old: str, new: str) -> str:
    """The text of the file `name` with `old` changed to `new`. Raises `NoAnchor`."""
    if name.endswith(".py"):
        return _changed_python(name, text, old, new)
    if text.count(old) != 1:
        raise NoAnchor(f"{name} has this {text.count(old)} times, not once: {old!r}")
    return text.replace(old, new)


@dataclass
class _Match:
    """A part of the tree that is compared with the old code."""

    nodes: Sequence[ast.AST]
    locals: set[str]
    """Names of the functions in which it stands: each may be any other in the old code."""
    globals: set[str]
    """Names of the module, which are the same in the old code."""
    names: dict[str, str] = field(default_factory=dict)
    """Which local stands where the old code has which name."""

    def is_(self, old: object, new: object) -> bool:
        """Whether two parts of trees are the same code, but for the names of locals."""
        match old, new:
            case list(), list():
                return len(old) == len(new) and all(map(self.is_, old, new))
            case ast.Name(), ast.Name():
                return self._is_name(old.id, new.id)
            case ast.arg(), ast.arg():
                return self._is_name(old.arg, new.arg)
            case ast.ExceptHandler(name=str(name)), ast.ExceptHandler(name=str(other)):
                return self._is_name(name, other) and all(
                    self.is_(getattr(old, each), getattr(new, each)) for each in ("type", "body")
                )
            case ast.AST(), ast.AST():
                return type(old) is type(new) and all(
                    self.is_(getattr(old, each, None), getattr(new, each, None))
                    for each in old._fields
                    if each not in ("ctx", "kind", "type_comment")
                )
        return type(old) is type(new) and old == new

    def _is_name(self, old: str, new: str) -> bool:
        if new not in self.locals or old in self.globals:
            return old == new
        if old in self.names or new in self.names.values():
            return self.names.get(old) == new
        self.names[old] = new
        return True


@dataclass(frozen=True)
class _Code:
    """The old or the new text, read as one of three kinds of code."""

    kind: str
    """`expression`, `statements` or `arguments`."""
    nodes: Sequence[ast.AST]


def _changed_python(name: str, text: str, old: str, new: str) -> str:
    places = [(reading, match) for reading in _readings(old) for match in _matches(text, reading)]
    if len(places) != 1:
        raise NoAnchor(f"{name} has this code {len(places)} times, not once: {old!r}")
    ((reading, match),) = places
    data = text.encode()
    start, end = _span(data, match.nodes)
    if reading.kind == "arguments":  # with the comma behind them
        comma = re.match(rb"\s*,", data[end:])
        end += comma.end() if comma else 0
    replacement = _replacement(reading.kind, new, match)
    if reading.kind == "statements":
        indent = data[data.rfind(b"\n", 0, start) + 1 : start].decode()
        replacement = textwrap.indent(replacement, indent).removeprefix(indent)
    return (data[:start] + replacement.encode() + data[end:]).decode()


def _readings(code: str) -> list[_Code]:
    """What a piece of code may be: an expression, or else statements and the arguments of a call."""
    statements, arguments = _statements(code), _arguments(code)
    match statements:
        case [ast.Expr(value=value)]:
            return [_Code("expression", [value])]
        case None if arguments is None:
            raise NoAnchor(f"this is no Python: {code!r}")
    kinds = {"statements": statements, "arguments": arguments}
    return [_Code(kind, nodes) for kind, nodes in kinds.items() if nodes]


def _statements(code: str) -> list[ast.stmt] | None:
    try:
        return ast.parse(textwrap.dedent(code)).body
    except SyntaxError:
        return None


def _arguments(code: str) -> list[ast.expr | ast.keyword] | None:
    try:
        call = ast.parse(f"call({code})", mode="eval").body
    except SyntaxError:
        return None
    assert isinstance(call, ast.Call)
    return [*call.args, *call.keywords]


def _matches(text: str, old: _Code) -> Iterator[_Match]:
    """Every part of a text that is the old code."""
    count = len(old.nodes)
    globals_, nodes = _parsed(text)
    for node, locals_ in nodes:
        for run in _runs(node, old.kind):
            for first in range(len(run) - count + 1):
                match = _Match(run[first : first + count], locals_, globals_)
                if match.is_(list(old.nodes), list(match.nodes)):
                    yield match


def _runs(node: ast.AST, kind: str) -> Iterator[Sequence[ast.AST]]:
    """The nodes, one behind the other, in which the old code may be found."""
    match kind, node:
        case "expression", ast.expr():
            yield [node]
        case "arguments", ast.Call():
            yield [*node.args, *node.keywords]
        case "statements", _:
            for name in ("body", "orelse", "finalbody"):
                if isinstance(statements := getattr(node, name, None), list):
                    yield statements


@cache
def _parsed(text: str) -> tuple[set[str], list[tuple[ast.AST, set[str]]]]:
    """The names that are a module's or Python's own, and each node with the names of its functions."""
    module = ast.parse(text)
    nodes: list[tuple[ast.AST, set[str]]] = []

    def visit(node: ast.AST, locals_: set[str]) -> None:
        if isinstance(node, _FUNCTIONS):
            locals_ = locals_ | _locals(node)
        nodes.append((node, locals_))
        for child in ast.iter_child_nodes(node):
            visit(child, locals_)

    visit(module, set())
    return _bound(module) | set(dir(builtins)), nodes


def _locals(function: ast.AST) -> set[str]:
    """The names that a function binds, with its parameters."""
    names: set[str] = set()
    for node in ast.walk(function):
        match node:
            case ast.arg(arg=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                names.add(name)
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            names -= set(node.names)
    return names


def _bound(module: ast.Module) -> set[str]:
    """The names that a module binds, without those of its functions."""
    names: set[str] = set()
    for node in module.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in aliases}
            case ast.Assign() | ast.AnnAssign():
                names |= _locals(node)
    return names


def _span(data: bytes, nodes: Sequence[ast.AST]) -> tuple[int, int]:
    """The first byte of some nodes that follow each other, and the byte behind the last."""
    lines = [0, *(match.end() for match in re.finditer(rb"\n", data))]

    def at(line: int, column: int) -> int:
        return lines[line - 1] + column

    first, last = nodes[0], nodes[-1]
    assert isinstance(first, ast.expr | ast.stmt | ast.keyword)
    assert isinstance(last, ast.expr | ast.stmt | ast.keyword)
    assert last.end_lineno is not None
    assert last.end_col_offset is not None
    return at(first.lineno, first.col_offset), at(last.end_lineno, last.end_col_offset)


def _replacement(kind: str, new: str, match: _Match) -> str:
    """The new code with the names that the locals have where it goes."""
    statements, arguments = _statements(new), _arguments(new)
    if kind == "arguments" and arguments is not None:
        call = ast.Call(
            ast.Name("call"),
            [each for each in arguments if isinstance(each, ast.expr)],
            [each for each in arguments if isinstance(each, ast.keyword)],
        )
        text = ast.unparse(_renamed(call, match.names)).removeprefix("call(").removesuffix(")")
        return text and text + ","
    match kind, statements:
        case "expression", [ast.Expr(value=value)]:
            return f"({ast.unparse(_renamed(value, match.names))})"
        case "expression", []:
            return "None"
        case "statements", list():
            lines = (ast.unparse(_renamed(each, match.names)) for each in statements)
            return "\n".join(lines) or "pass"
    raise NoAnchor(f"code that is {kind} can't become {new!r}")


def _renamed(tree: ast.AST, names: dict[str, str]) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
    return ast.fix_missing_locations(tree)
