"""Bicep files as Python values: parsed by tree-sitter, linted, and evaluated to the resources they deploy.

No Bicep compiler can be had where these checks run. This is not one: it knows the part of the language that
`infra/` uses and says so (`Mistake`) where it meets another. What only Azure knows (an id's principal, an
endpoint) evaluates to a `Runtime` text that tells where it comes from.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import islice
from pathlib import Path
from typing import Any

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_bicep.language()))


class Mistake(Exception):
    """Something that is wrong in a Bicep file, with its place."""


class Runtime(str):
    """What only Azure can say: the text names the resource and the property."""

    __slots__ = ()


@dataclass(frozen=True)
class Declaration:
    """A `param`, `var`, `resource`, `module` or `output` of a file."""

    kind: str
    name: str
    node: Node
    value: Node | None
    """Default, value, body, `if` or `for` around a body; None for a parameter without a default."""
    type: str = ""
    """A parameter's type; a resource's `type@version`; a module's path."""
    decorators: Mapping[str, Node | None] = field(default_factory=dict)
    existing: bool = False


@dataclass(frozen=True)
class File:
    """A parsed file."""

    path: Path
    declarations: Mapping[str, Declaration]
    outputs: Mapping[str, Declaration]
    root: Node

    def of(self, kind: str) -> list[Declaration]:
        """The declarations of a kind."""
        return [each for each in self.declarations.values() if each.kind == kind]


@dataclass
class Resource:
    """A resource as it is deployed (or, `existing`, as it is referred to)."""

    type: str
    version: str
    name: str
    """With the names of its parents before it: `account/default/imports`."""
    body: dict[str, Any]
    existing: bool
    file: str
    symbol: str
    scope: "Resource | None" = None

    @property
    def id(self) -> Runtime:
        """One text for one resource, from whatever file it is seen."""
        return Runtime(f"<{self.type}/{self.name}>")


@dataclass(frozen=True)
class Deployment:
    """What a file deploys."""

    resources: list[Resource]
    outputs: dict[str, Any]


# -- parsing --------------------------------------------------------------------------------------


def parse(path: Path) -> File:
    """Parse a file. Raises `Mistake` with the place of what is not Bicep, and for a name declared twice."""
    text = path.read_bytes()
    if path.suffix == ".bicepparam":  # the grammar knows no values of parameters
        text = re.sub(rb"(?m)^param (\w+) =", rb"var \1 =", text)
    root = _PARSER.parse(text).root_node
    if root.has_error:
        bad = next(n for n in _walk(root) if n.is_error or n.is_missing)
        raise Mistake(f"{_place(path, bad)}: not Bicep: {_text(bad)[:40]!r}")
    found: dict[str, Declaration] = {}
    outputs: dict[str, Declaration] = {}
    decorators: dict[str, Node | None] = {}
    for node in root.named_children:
        if node.type == "decorators":
            calls = [each.named_children[0] for each in node.named_children]
            decorators = {
                _text(c.named_children[0]): c.child_by_field_name("arguments") for c in calls
            }
            continue
        kind = node.type.removesuffix("_declaration")
        if kind in (node.type, "metadata"):
            continue
        declared = _declaration(kind, node, decorators)
        decorators = {}
        into = outputs if kind == "output" else found
        if declared.name in into:
            raise Mistake(f"{_place(path, node)}: {declared.name} is declared twice")
        into[declared.name] = declared
    return File(path, found, outputs, root)


def _declaration(kind: str, node: Node, decorators: Mapping[str, Node | None]) -> Declaration:
    parts = [n for n in node.named_children if n.type not in ("comment", "diagnostic_comment")]
    name = _text(parts[0])
    kind = {"parameter": "param", "variable": "var"}.get(kind, kind)
    if kind in ("param", "output"):
        value = parts[2] if len(parts) > 2 else None
        return Declaration(kind, name, node, value, _text(parts[1]), decorators)
    if kind == "var":
        return Declaration(kind, name, node, parts[1])
    existing = any(child.type == "existing" for child in node.children)
    return Declaration(kind, name, node, parts[-1], _text(parts[1]).strip("'"), {}, existing)


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _place(path: Path, node: Node) -> str:
    return f"{path.name}:{node.start_point.row + 1}"


# -- linting --------------------------------------------------------------------------------------


def lint(path: Path) -> list[str]:
    """What is wrong in a file by itself: names that are not declared, and declared names nobody uses, also in
    branches that no deployment of ours takes; parameters without a description."""
    try:
        file = parse(path)
    except Mistake as mistake:
        return [str(mistake)]
    wrong: list[str] = []
    used: set[str] = set()
    for node, local in _names(file.root, frozenset()):
        name = _text(node)
        used.add(name)
        if name not in local and name not in file.declarations and name not in FUNCTIONS:
            wrong.append(f"{_place(path, node)}: {name} is not declared")
    for each in file.declarations.values():
        idle = each.kind in ("param", "var") or each.existing
        if idle and each.name not in used and path.suffix != ".bicepparam":
            wrong.append(f"{_place(path, each.node)}: {each.kind} {each.name} is not used")
        if each.kind == "param" and "description" not in each.decorators:
            wrong.append(f"{_place(path, each.node)}: param {each.name} has no description")
    return wrong


def _names(node: Node, local: frozenset[str]) -> Iterator[tuple[Node, frozenset[str]]]:
    """Every name that is used, with the loop variables and lambda arguments that it can see."""
    children = node.named_children
    if node.type == "identifier":
        yield node, local
        return
    if node.type in ("decorators", "type", "primitive_type", "property_identifier"):
        return
    if node.type.endswith("_declaration"):
        children = children[1:]
    elif node.type == "object_property":
        children = children[children[0].type == "identifier" :]
    elif node.type == "for_statement":
        names, source, body = children
        yield from _names(source, local)
        children, local = [body], local | set(_loop_names(names))
    elif node.type == "lambda_expression":
        children, local = children[1:], local | set(_loop_names(children[0]))
    for child in children:
        yield from _names(child, local)


def _loop_names(node: Node) -> list[str]:
    return [_text(each) for each in node.named_children] or [_text(node)]


# -- evaluating -----------------------------------------------------------------------------------


def deploy(main: Path, parameters: Mapping[str, Any]) -> Deployment:
    """What a file deploys with these parameters. Raises `Mistake`."""
    return _Scope(parse(main), parameters).deploy()


def parameters(path: Path, environment: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    """The file that a .bicepparam is for, and its values in an environment. Raises `Mistake`."""
    file = parse(path)
    using = [n for n in file.root.named_children if n.type == "using_statement"]
    if len(using) != 1:
        raise Mistake(f"{path.name}: must name its Bicep file with one `using`")
    scope = _Scope(file, {}, environment)
    named = re.findall(r"(?m)^param (\w+) =", path.read_text(encoding="utf-8"))
    target = path.parent / _text(using[0].named_children[0]).strip("'")
    return target, {name: scope.name(name) for name in named}


class _Scope:
    """One file, evaluated with its parameters: what is not asked for is not evaluated."""

    def __init__(
        self,
        file: File,
        given: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._file = file
        self._known: dict[str, Any] = {}
        self._resources: list[Resource] = []
        self.environment = environment
        for name, value in given.items():
            declared = file.declarations.get(name)
            if declared is None or declared.kind != "param":
                raise Mistake(f"{file.path.name}: has no parameter {name}")
            self._known[name] = self._checked(declared, value)

    def deploy(self) -> Deployment:
        for each in self._file.declarations.values():
            self.name(each.name)
        outputs = {name: self._value(each.value, {}) for name, each in self._file.outputs.items()}
        return Deployment(self._resources, outputs)

    def name(self, name: str) -> Any:
        """The value of a declared name."""
        if name not in self._known:
            declared = self._file.declarations[name]
            self._known[name] = None  # while it is evaluated: what refers to itself finds nothing
            self._known[name] = self._declared(declared)
        return self._known[name]

    def fail(self, node: Node, text: str) -> Mistake:
        return Mistake(f"{_place(self._file.path, node)}: {text}")

    def load(self, relative: str) -> str:
        path = self._file.path.parent / relative
        if not path.is_file():
            raise Mistake(f"{self._file.path.name}: {relative} is not there")
        return path.read_text(encoding="utf-8")

    # -- declarations

    def _declared(self, declared: Declaration) -> Any:
        if declared.kind == "param":
            if declared.value is None:
                raise self.fail(declared.node, f"parameter {declared.name} is not given")
            return self._checked(declared, self._value(declared.value, {}))
        if declared.kind == "var":
            return self._value(declared.value, {})
        make = self._module if declared.kind == "module" else self._resource
        return self._each(declared, declared.value, {}, make)

    def _each(
        self,
        declared: Declaration,
        node: Node | None,
        local: Mapping[str, Any],
        make: Callable[[Declaration, Node, Mapping[str, Any]], Any],
    ) -> Any:
        """A body once, for each round of its loop, or not at all."""
        assert node is not None
        if node.type == "for_statement":
            return [
                self._each(declared, body, inner, make) for body, inner in self._rounds(node, local)
            ]
        if node.type == "if_statement":
            condition, body = node.named_children
            return make(declared, body, local) if self._value(condition, local) else None
        return make(declared, node, local)

    def _module(
        self, declared: Declaration, node: Node, local: Mapping[str, Any]
    ) -> dict[str, Any]:
        body = self._value(node, local)
        if unknown := body.keys() - {"name", "params", "dependsOn", "scope"}:
            raise self.fail(node, f"a module has no {sorted(unknown)}")
        path = self._file.path.parent / declared.type
        if not path.is_file():
            raise self.fail(node, f"module {declared.type} is not there")
        try:
            made = _Scope(parse(path), body.get("params", {})).deploy()
        except Mistake as mistake:
            raise self.fail(node, f"module {declared.name}: {mistake}") from mistake
        self._resources += made.resources
        return {"outputs": made.outputs}

    def _resource(self, declared: Declaration, node: Node, local: Mapping[str, Any]) -> Resource:
        body = self._value(node, local)
        body.pop("dependsOn", None)
        kind, _, version = declared.type.partition("@")
        if "name" not in body:
            raise self.fail(node, f"{declared.name} has no name")
        parent, scope = body.pop("parent", None), body.pop("scope", None)
        name = f"{parent.name}/{body['name']}" if parent else str(body["name"])
        if len(kind.split("/")) - 1 != len(name.split("/")) and not name.startswith("<"):
            raise self.fail(node, f"the name {name} does not fit the type {kind}")
        made = Resource(
            kind, version, name, body, declared.existing, self._file.path.name, declared.name, scope
        )
        self._resources.append(made)
        return made

    def _checked(self, declared: Declaration, value: Any) -> Any:
        """A parameter's value, if it is of the parameter's type and as its decorators want it."""
        types = {"string": str, "int": int, "bool": bool, "array": list, "object": dict}
        right = types.get(declared.type, object)
        if not isinstance(value, right) or (right is int and isinstance(value, bool)):
            raise self.fail(
                declared.node, f"{declared.name} must be {declared.type}, not {value!r}"
            )
        limits = {
            name: self._value(arguments.named_children[0], {})
            for name, arguments in declared.decorators.items()
            if arguments and arguments.named_children
        }
        size = len(value) if isinstance(value, str | list) else value
        if (
            value not in limits.get("allowed", [value])
            or ("minLength" in limits and size < limits["minLength"])
            or (
                "maxLength" in limits
                and size > limits["maxLength"]
                and not isinstance(value, Runtime)
            )
            or ("minValue" in limits and size < limits["minValue"])
            or ("maxValue" in limits and size > limits["maxValue"])
        ):
            raise self.fail(declared.node, f"{declared.name} may not be {value!r}")
        return value

    # -- expressions

    def _value(self, node: Node | None, local: Mapping[str, Any]) -> Any:
        assert node is not None
        evaluate = getattr(self, f"_{node.type}", None)
        whole = node.child_by_field_name("object") or node.child_by_field_name("function")
        if whole and whole.type in ("ternary_expression", "lambda_expression", "binary_expression"):
            raise self.fail(
                node, f"the grammar misreads {_text(node)!r}: put its end in parentheses"
            )
        if evaluate is None:
            raise self.fail(node, f"these checks do not know {node.type}: {_text(node)[:40]!r}")
        return evaluate(node, local)

    def _identifier(self, node: Node, local: Mapping[str, Any]) -> Any:
        name = _text(node)
        if name in local:
            return local[name]
        if name not in self._file.declarations:
            raise self.fail(node, f"{name} is not declared")
        return self.name(name)

    def _number(self, node: Node, _: Mapping[str, Any]) -> int:
        return int(_text(node))

    def _boolean(self, node: Node, _: Mapping[str, Any]) -> bool:
        return _text(node) == "true"

    def _null(self, _: Node, __: Mapping[str, Any]) -> None:
        return None

    def _string(self, node: Node, local: Mapping[str, Any]) -> str:
        parts = [self._part(part, local) for part in node.named_children]
        if len(parts) == 1 and isinstance(parts[0], Runtime):
            return parts[0]
        return "".join(str(part) for part in parts)

    def _part(self, node: Node, local: Mapping[str, Any]) -> Any:
        if node.type == "interpolation":
            return self._value(node.named_children[0], local)
        if node.type == "escape_sequence":
            return {"\\n": "\n", "\\t": "\t", "\\r": "\r"}.get(_text(node), _text(node)[1:])
        return _text(node)

    def _array(self, node: Node, local: Mapping[str, Any]) -> list[Any]:
        return [self._value(each, local) for each in _values(node)]

    def _object(self, node: Node, local: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in _values(node):
            key, value = each.named_children[0], each.named_children[-1]
            name = self._string(key, local) if key.type == "string" else _text(key)
            if name in found:
                raise self.fail(each, f"{name} is given twice")
            found[name] = self._value(value, local)
        return found

    def _for_statement(self, node: Node, local: Mapping[str, Any]) -> list[Any]:
        return [self._value(body, inner) for body, inner in self._rounds(node, local)]

    def _rounds(
        self, node: Node, local: Mapping[str, Any]
    ) -> Iterator[tuple[Node, Mapping[str, Any]]]:
        names, source, body = node.named_children
        for index, item in enumerate(self._value(source, local)):
            yield body, {**local, **dict(zip(_loop_names(names), (item, index), strict=False))}

    def _parenthesized_expression(self, node: Node, local: Mapping[str, Any]) -> Any:
        return self._value(node.named_children[0], local)

    def _ternary_expression(self, node: Node, local: Mapping[str, Any]) -> Any:
        condition, yes, no = node.named_children
        return self._value(yes if self._value(condition, local) else no, local)

    def _unary_expression(self, node: Node, local: Mapping[str, Any]) -> bool:
        return not self._value(node.named_children[0], local)

    def _binary_expression(self, node: Node, local: Mapping[str, Any]) -> Any:
        left_node, operator, right_node = node.children
        left = self._value(left_node, local)
        if operator.type in ("&&", "||", "??"):
            stop = {"&&": not left, "||": bool(left), "??": left is not None}[operator.type]
            return left if stop else self._value(right_node, local)
        right = self._value(right_node, local)
        return _OPERATORS[operator.type](left, right)

    def _lambda_expression(self, node: Node, local: Mapping[str, Any]) -> Callable[..., Any]:
        names = _loop_names(node.named_children[0])
        body = node.named_children[-1]
        return lambda *values: self._value(
            body, {**local, **dict(zip(names, values, strict=False))}
        )

    def _subscript_expression(self, node: Node, local: Mapping[str, Any]) -> Any:
        whole = self._value(node.child_by_field_name("object"), local)
        index = self._value(node.child_by_field_name("index"), local)
        return Runtime(f"{whole}[{index}]") if isinstance(whole, Runtime) else whole[index]

    def _member_expression(self, node: Node, local: Mapping[str, Any]) -> Any:
        whole = self._value(node.child_by_field_name("object"), local)
        part = node.child_by_field_name("property")
        assert part is not None
        name = _text(part)
        if isinstance(whole, Resource):
            return _of_resource(whole, name)
        if isinstance(whole, Runtime):
            return Runtime(f"{whole}.{name}")
        if isinstance(whole, dict) and name in whole:
            return whole[name]
        if any(child.type == ".?" for child in node.children):
            return None
        raise self.fail(node, f"{_text(node)}: there is no {name}")

    def _call_expression(self, node: Node, local: Mapping[str, Any]) -> Any:
        called = node.child_by_field_name("function")
        assert called is not None
        given = node.child_by_field_name("arguments")
        values = [self._value(each, local) for each in (_values(given) if given else [])]
        if called.type == "member_expression":  # resource.listKeys()
            target = self._value(called.child_by_field_name("object"), local)
            return Runtime(f"{getattr(target, 'id', target)}.{_text(called).rpartition('.')[2]}()")
        name = _text(called)
        if name not in FUNCTIONS:
            raise self.fail(node, f"these checks do not know the function {name}")
        try:
            return FUNCTIONS[name](self, *values)
        except TypeError as error:
            raise self.fail(node, f"{name}: {error}") from error


def _values(node: Node) -> list[Node]:
    return [n for n in node.named_children if n.type not in ("comment", "diagnostic_comment")]


def _of_resource(resource: Resource, name: str) -> Any:
    if name == "id":
        return resource.id
    if name == "name":
        return resource.name.rpartition("/")[2]
    return Runtime(f"{resource.id}.{name}")


def _union(first: Any, *others: Any) -> Any:
    if isinstance(first, list):
        return list(dict.fromkeys([*first, *(item for other in others for item in other)]))
    merged = dict(first)
    for other in others:
        for key, value in other.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = _union(merged[key], value) if both else value
    return merged


def _subnet(prefix: str, bits: int, index: int) -> str:
    return str(next(islice(ip_network(prefix).subnets(new_prefix=bits), index, None)))


def _environment_variable(scope: _Scope, name: str, default: str | None = None) -> str:
    if scope.environment is None:
        raise Mistake(f"readEnvironmentVariable({name!r}) belongs into a .bicepparam")
    value = scope.environment.get(name, default)
    if value is None:
        raise Mistake(f"the environment has no {name}")
    return value


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "bool": lambda _, text: {"true": True, "false": False}[text.lower()],
    "cidrSubnet": lambda _, prefix, bits, index: _subnet(prefix, bits, index),
    "concat": lambda _, *lists: [item for each in lists for item in each],
    "empty": lambda _, value: not value,
    "environment": lambda _: {
        "suffixes": {"storage": "core.windows.net"},
        "authentication": {"loginEndpoint": "https://login.microsoftonline.com/"},
    },
    "guid": lambda _, *parts: str(uuid.uuid5(uuid.NAMESPACE_URL, "-".join(map(str, parts)))),
    "json": lambda _, text: json.loads(text),
    "length": lambda _, value: len(value),
    "loadTextContent": lambda scope, path: scope.load(path),
    "map": lambda _, items, function: [function(item) for item in items],
    "range": lambda _, start, count: list(range(start, start + count)),
    "readEnvironmentVariable": _environment_variable,
    "replace": lambda _, text, old, new: text.replace(old, new),
    "resourceGroup": lambda _: {
        "id": Runtime("<group>"),
        "location": "westeurope",
        "name": "group",
    },
    "resourceId": lambda _, kind, *names: Runtime(f"<{kind}/{'/'.join(names)}>"),
    "split": lambda _, text, by: text.split(by),
    "string": lambda _, value: value if isinstance(value, str) else json.dumps(value),
    "subscriptionResourceId": lambda _, kind, name: Runtime(f"<{kind}/{name}>"),
    "take": lambda _, value, count: value[:count],
    "tenant": lambda _: {"tenantId": Runtime("<tenant>")},
    "toLower": lambda _, text: text.lower(),
    "union": lambda _, *values: _union(*values),
    "uniqueString": lambda _, *parts: hashlib.sha256("".join(parts).encode()).hexdigest()[:13],
}
"""The Bicep functions that `infra/` uses."""
