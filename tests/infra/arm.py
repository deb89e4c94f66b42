"""Values that the compiler leaves as ARM template expressions, since only Azure knows a part of them, read into
Python: `[format('{0}code', reference('…/host', '…').primaryEndpoints.blob)]`.

Source of the grammar: Microsoft Learn, "Syntax and expressions in ARM templates".
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

_TOKEN: Final = re.compile(r"\s*('(?:[^']|'')*'|-?\d+|\w+|[()\[\].,])")

PUBLIC_CLOUD: Final[Mapping[str, str]] = {
    "environment().name": "AzureCloud",
    "environment().suffixes.storage": "core.windows.net",
    "environment().suffixes.keyvaultDns": ".vault.azure.net",
    "environment().authentication.loginEndpoint": "https://login.microsoftonline.com/",
}


def read(value: Any) -> Any:
    """A value of a snapshot with its expressions read, in depth.

    What makes objects, arrays and text is carried out. `reference('ID', 'version').x` becomes the text
    `ID.properties.x`, and its full form `ID.x`; every other call becomes the text of the call.
    """
    if isinstance(value, dict):
        return {read(key): read(each) for key, each in value.items()}
    if isinstance(value, list):
        return [read(each) for each in value]
    if isinstance(value, str) and value.startswith("[") and not value.startswith("[["):
        return _Reader(value[1:-1]).value()
    return value


def _union(*values: Any) -> Any:
    """Of lists, or of objects. What Azure alone knows of an object (`list(…)`: the settings that are there) is
    left out, as if it were empty: so it is in a first deployment."""
    if objects := [value for value in values if isinstance(value, dict)]:
        return {key: each for value in objects for key, each in value.items()}
    return _flat(values)


def _flat(lists: Iterable[list[Any]]) -> list[Any]:
    return [each for one in lists for each in one]


def _format(pattern: str, *values: Any) -> str:
    return re.sub(r"\{(\d+)\}", lambda match: str(values[int(match[1])]), pattern)


def _resource_id(*words: str) -> str:
    kind = next(i for i, word in enumerate(words) if "/" in word)
    provider, *types = words[kind].split("/")
    pairs = zip(types, words[kind + 1 :], strict=True)
    return "/".join([provider, *(part for pair in pairs for part in pair)])


def _reference(of: str, _version: str = "", full: str = "") -> str:
    return of if full else f"{of}.properties"


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "createObject": lambda *words: dict(zip(words[::2], words[1::2], strict=True)),
    "createArray": lambda *values: list(values),
    "union": _union,
    "concat": lambda *values: "".join(values) if isinstance(values[0], str) else _flat(values),
    "flatten": _flat,
    "format": _format,
    "join": lambda words, between: between.join(words),
    "if": lambda condition, yes, no: yes if condition else no,
    "empty": lambda value: not value,
    "not": lambda value: not value,
    "and": lambda *values: all(values),
    "or": lambda *values: any(values),
    "equals": lambda one, other: one == other,
    "true": lambda: True,
    "false": lambda: False,
    "null": lambda: None,
    "resourceId": _resource_id,
    "reference": _reference,
}


class _Reader:
    """One expression, read from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens: Iterator[str] = (match[1] for match in _TOKEN.finditer(text))
        self._next = next(self._tokens, "")

    def _take(self) -> str:
        token, self._next = self._next, next(self._tokens, "")
        return token

    def value(self) -> Any:
        token = self._take()
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if token.lstrip("-").isdigit():
            return int(token)
        return self._properties(self._call(token))

    def _call(self, name: str) -> Any:
        arguments = []
        self._take()
        while self._next != ")":
            arguments.append(self.value())
            if self._next == ",":
                self._take()
        self._take()
        if name in _FUNCTIONS:
            return _FUNCTIONS[name](*arguments)
        return f"{name}({', '.join(map(str, arguments))})"

    def _properties(self, value: Any) -> Any:
        while self._next in (".", "["):
            index = self._take() == "["
            key: Any = self.value() if index else self._take()
            if index:
                self._take()
            if isinstance(value, dict | list):
                value = value[key]
            else:
                value = f"{value}[{key}]" if index else f"{value}.{key}"
        return PUBLIC_CLOUD.get(value, value) if isinstance(value, str) else value
