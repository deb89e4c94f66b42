"""The Bicep compiler, kept warm, and what it says of a file: diagnostics, parameters, what it deploys.

A call of the command line costs seconds, one to a running `bicep jsonrpc --stdio` a quarter of one. Messages
are JSON-RPC with a `Content-Length` header; the methods are those of Bicep's own `Bicep.RpcClient`.
"""

import atexit
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock, get_ident
from typing import Any, Final

import pytest

from tests.infra import arm

HOW_TO_GET: Final = (
    "The Bicep compiler is needed and was not found. Install it with `az bicep install`, "
    "`winget install -e --id Microsoft.Bicep` (Windows) or `brew install azure/bicep/bicep` (macOS), "
    "and run this again; it is looked for on PATH and where the Azure CLI puts it."
)

TENANT: Final = "00000000-0000-0000-0000-000000000000"
LOCATION: Final = "westeurope"
"""The resource group's."""
_METADATA: Final = {
    "tenantId": TENANT,
    "subscriptionId": TENANT,
    "resourceGroup": "group",
    "location": LOCATION,
    "deploymentName": "bridge",
}
_PLACE: Final = f"/subscriptions/{TENANT}/resourceGroups/group/providers/"


class NotCompiled(Exception):
    """The files have errors, or a parameter has a value that is not allowed: the compiler's own words."""


@dataclass(frozen=True)
class Snapshot:
    """What a template deploys. Ids are without the subscription and the group:
    `Microsoft.Storage/storageAccounts/NAME`."""

    resources: list[dict[str, Any]]
    """Each with `id`, `type`, `name`, `apiVersion` and what its template says, read by `arm.read`."""
    outputs: dict[str, Any]
    refers: set[str]
    """The ids of all resources of the group that are spoken of."""


def find_compiler() -> str | None:
    """The command on PATH, or the Azure CLI's own copy."""
    return shutil.which("bicep") or shutil.which("bicep", path=Path.home() / ".azure/bin")


needed = pytest.mark.skipif(find_compiler() is None and not os.environ.get("CI"), reason=HOW_TO_GET)
"""Marks tests that need the compiler: skipped without it; where `CI` is set they fail instead."""


class _Compiler:
    """A running compiler. It reads environment variables (`readEnvironmentVariable`) from its own process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        command = find_compiler()
        if command is None:
            raise FileNotFoundError(HOW_TO_GET)
        self._process = subprocess.Popen(
            [command, "jsonrpc", "--stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It lives for a minute: without .NET's second, better compilation of each method a call costs half.
            env={**environment, "DOTNET_TieredCompilation": "0"},
        )
        self._calls = 0
        self._asked = Lock()

    def ask(self, method: str, **parameters: Any) -> Any:
        """The result of a method. Raises `NotCompiled` with the compiler's message."""
        with self._asked:
            response = self._exchange(method, parameters)
        if "error" in response:
            raise NotCompiled(response["error"]["message"])
        return response["result"]

    def _exchange(self, method: str, parameters: Mapping[str, Any]) -> Any:
        self._calls += 1
        request = {"jsonrpc": "2.0", "id": self._calls, "method": method, "params": parameters}
        body = json.dumps(request).encode()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()
        length = 0
        while header := self._process.stdout.readline().strip():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            raise RuntimeError(f"the Bicep compiler ended ({self._process.wait()})")
        return json.loads(self._process.stdout.read(length))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _warm() -> _Compiler:
    return _compiler(frozenset())


def _compiler(variables: frozenset[tuple[str, str]]) -> _Compiler:
    """One for each thread, so that nobody waits for another's answer; those with variables are seldom asked."""
    return _started(0 if variables else get_ident(), variables)


@cache
def _started(_thread: int, variables: frozenset[tuple[str, str]]) -> _Compiler:
    compiler = _Compiler({**os.environ, **dict(variables)})
    atexit.register(compiler.close)
    return compiler


def diagnostics(path: Path) -> list[str]:
    """Everything that the compiler and its linter say of a .bicep file and the modules that it uses:
    `main.bicep:49: BCP081: …`. Warnings as well as errors."""
    return _lines(_compiled(path)["diagnostics"])


def _template(path: Path) -> dict[str, Any]:
    """The ARM template that a .bicep file becomes. Raises `NotCompiled`."""
    result = _compiled(path)
    if not result["success"]:
        raise NotCompiled(_errors(result))
    template: dict[str, Any] = json.loads(result["contents"])
    return template


def _compiled(path: Path) -> Any:
    """The compiler's answer to a .bicep file; it is asked once for the same text of the file and of all that it
    can use, which is in the folders beside it."""
    digest = hashlib.sha256()
    for each in (path, path.with_name("bicepconfig.json"), *sorted(path.parent.glob("*/*"))):
        if each.is_file():
            digest.update(each.name.encode() + each.read_bytes())
    key = digest.digest()
    if key not in _COMPILED:
        _COMPILED[key] = _warm().ask("bicep/compile", path=str(path))
    return _COMPILED[key]


_COMPILED: Final[dict[bytes, Any]] = {}


def _lines(entries: list[Any]) -> list[str]:
    return sorted(
        f"{Path(each['source']).name}:{each['range']['start']['line'] + 1}: "
        f"{each['code']}: {each['message']}"
        for each in entries
    )


def _errors(result: Any) -> str:
    return "; ".join(_lines([each for each in result["diagnostics"] if each["level"] == "Error"]))


def is_formatted(path: Path) -> bool:
    """Whether `bicep format` would leave a file as it is."""
    return bool(_warm().ask("bicep/format", path=str(path))["contents"] == path.read_text("utf-8"))


def files_used(path: Path) -> set[Path]:
    """A .bicep file and all that it names: modules, and theirs, and texts that are loaded."""
    return {
        Path(each) for each in _warm().ask("bicep/getFileReferences", path=str(path))["filePaths"]
    }


def parameters_without_description(path: Path) -> list[str]:
    """The names of a .bicep file's parameters that no `@description` explains."""
    declarations = _warm().ask("bicep/getMetadata", path=str(path))["parameters"]
    return [each["name"] for each in declarations if not each.get("description")]


def waits_for(path: Path) -> dict[str, set[str]]:
    """Each resource and module of a .bicep file by its symbol, with those that it waits for."""
    graph = _warm().ask("bicep/getDeploymentGraph", path=str(path))
    waits: dict[str, set[str]] = {each["name"]: set() for each in graph["nodes"]}
    for edge in graph["edges"]:
        waits[edge["source"]].add(edge["target"])
    return waits


def parameters(
    path: Path, environments: Sequence[Mapping[str, str]]
) -> Iterator[dict[str, Any] | NotCompiled]:
    """The values of a .bicepparam file in each environment, where the variables that it reads are these and no
    others; or what the compiler says of the file there. Raises `NotCompiled` where the .bicep file that it is
    for has errors itself.

    A compiler reads its own process's variables, and a process for each environment would take seconds. So one
    has the variables of all, and looks at a copy of the file for each, which reads them under names of its own.
    The copy is for a template that declares the parameters and deploys nothing: that is soon read.
    """
    bicep = path.with_suffix(".bicep")
    declared = _template(bicep) | {"resources": {}, "variables": {}, "outputs": {}}
    text = path.read_text(encoding="utf-8").replace(f"using '{bicep.name}'", f"using '{_TEMPLATE}'")
    compiler = _compiler(_prefixed(environments))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path.with_name("bicepconfig.json"), folder)
        (Path(folder) / _TEMPLATE).write_text(json.dumps(declared), encoding="utf-8")
        for number in range(len(environments)):
            copy = Path(folder) / path.name
            copy.write_text(text.replace(_READ, _READ + _PREFIX.format(number)), encoding="utf-8")
            yield _values(compiler, copy)


_TEMPLATE: Final = "template.json"
_READ: Final = "readEnvironmentVariable('"
_PREFIX: Final = "CASE_{}_"


def _prefixed(environments: Sequence[Mapping[str, str]]) -> frozenset[tuple[str, str]]:
    return frozenset(
        (_PREFIX.format(number) + name, value)
        for number, environment in enumerate(environments)
        for name, value in environment.items()
    )


def _values(compiler: _Compiler, path: Path) -> dict[str, Any] | NotCompiled:
    result = _compile_parameters(compiler, path)
    if result["diagnostics"] or not result["success"]:
        return NotCompiled("; ".join(_lines(result["diagnostics"])))
    values = json.loads(result["parameters"])["parameters"]
    return {name: each["value"] for name, each in values.items()}


def _compile_parameters(compiler: _Compiler, path: Path) -> Any:
    return compiler.ask("bicep/compileParams", path=str(path), parameterOverrides={})


def snapshot(path: Path, parameters: Mapping[str, Any]) -> Snapshot:
    """What a .bicep file deploys with these parameters. Raises `NotCompiled`.

    It is taken of the compiled template: that costs a third of what the compiling does, which so is done once
    for all parameters. The compiler leaves open what a secure parameter decides, so none is secure here.
    """
    template = json.dumps(_template(path))
    for secure, plain in (("securestring", "string"), ("secureObject", "object")):
        template = template.replace(f'"type": "{secure}"', f'"type": "{plain}"')
    values = f"using '{_TEMPLATE}'\n" + "".join(
        f"param {name} = {_literal(value)}\n" for name, value in parameters.items()
    )
    key = template, values
    if key not in _SNAPSHOTS:
        _SNAPSHOTS[key] = _snapshot(template, values)
    return _SNAPSHOTS[key]


_SNAPSHOTS: Final[dict[tuple[str, str], Snapshot]] = {}


def _snapshot(template: str, values: str) -> Snapshot:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _TEMPLATE).write_text(template, encoding="utf-8")
        path = Path(folder) / "snapshot.bicepparam"
        path.write_text(values, encoding="utf-8")
        try:
            result = _warm().ask(
                "bicep/getSnapshot", path=str(path), metadata=_METADATA, externalInputs=None
            )
        except NotCompiled as error:
            raise NotCompiled(_errors(_compile_parameters(_warm(), path)) or str(error)) from None
    refers = set(re.findall(rf"{_PLACE}([^'\"\\]+)", result["snapshot"]))
    read = json.dumps(arm.read(json.loads(result["snapshot"])))
    content = json.loads(read.replace(_PLACE, ""))
    return Snapshot(content["predictedResources"], content["outputs"], refers)


def _literal(value: Any) -> str:
    """A value as Bicep text."""
    text = json.dumps(value).replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"json('{text}')"
