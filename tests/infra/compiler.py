"""The Bicep compiler, kept warm, and what it says of a file: diagnostics, parameters, what it deploys.

A call of the command line costs seconds, one to a running `bicep jsonrpc --stdio` a quarter of one. Messages
are JSON-RPC with a `Content-Length` header; the methods are those of Bicep's own `Bicep.RpcClient`.
"""

import atexit
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from tests.infra import arm

HOW_TO_GET: Final = (
    "The Bicep compiler is needed and was not found. Install it with `az bicep install`, "
    "`winget install -e --id Microsoft.Bicep` (Windows) or `brew install azure/bicep/bicep` (macOS), "
    "and run this again; it is looked for on PATH and where the Azure CLI puts it."
)

GROUP: Final = "00000000-0000-0000-0000-000000000000"
_METADATA: Final = {
    "tenantId": GROUP,
    "subscriptionId": GROUP,
    "resourceGroup": "group",
    "location": "westeurope",
    "deploymentName": "bridge",
}
_PLACE: Final = f"/subscriptions/{GROUP}/resourceGroups/group/providers/"


class NotCompiled(Exception):
    """The files have errors, or a parameter has a value that is not allowed: the compiler's own words."""


@dataclass(frozen=True)
class Snapshot:
    """What a template deploys. Ids are without the subscription and the group:
    `Microsoft.Storage/storageAccounts/NAME`."""

    resources: list[dict[str, Any]]
    """Each with `id`, `type`, `name`, `apiVersion` and what its template says, read by `arm.read`."""
    outputs: dict[str, Any]


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
            env=dict(environment),
        )
        self._calls = 0

    def ask(self, method: str, **parameters: Any) -> Any:
        """The result of a method. Raises `NotCompiled` with the compiler's message."""
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
        response = json.loads(self._process.stdout.read(length))
        if "error" in response:
            raise NotCompiled(response["error"]["message"])
        return response["result"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@cache
def _warm() -> _Compiler:
    compiler = _Compiler(os.environ)
    atexit.register(compiler.close)
    return compiler


def diagnostics(path: Path) -> list[str]:
    """Everything that the compiler and its linter say of a .bicep file and the modules that it uses, or of a
    .bicepparam file: `main.bicep:49: BCP081: …`. Warnings as well as errors."""
    if path.suffix == ".bicepparam":
        return _lines(_compile_parameters(_warm(), path)["diagnostics"])
    return _lines(_warm().ask("bicep/compile", path=str(path))["diagnostics"])


def _compile_parameters(compiler: _Compiler, path: Path) -> Any:
    return compiler.ask("bicep/compileParams", path=str(path), parameterOverrides={})


def _lines(found: list[Any]) -> list[str]:
    return sorted(
        f"{Path(each['source']).name}:{each['range']['start']['line'] + 1}: "
        f"{each['code']}: {each['message']}"
        for each in found
    )


def _errors(result: Any) -> str:
    return "; ".join(_lines([each for each in result["diagnostics"] if each["level"] == "Error"]))


def template(path: Path) -> dict[str, Any]:
    """The ARM template that a .bicep file compiles to. Raises `NotCompiled`."""
    result = _warm().ask("bicep/compile", path=str(path))
    if not result["success"]:
        raise NotCompiled(_errors(result))
    return dict(json.loads(result["contents"]))


def parameters(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The values of a .bicepparam file where the variables that it reads are these and no others. It takes a
    compiler of its own, some two seconds. Raises `NotCompiled` with what the compiler says of the values."""
    read = re.findall(r"readEnvironmentVariable\('(\w+)'", path.read_text(encoding="utf-8"))
    others = {name: value for name, value in os.environ.items() if name not in read}
    compiler = _Compiler(others | dict(environment))
    try:
        result = _compile_parameters(compiler, path)
    finally:
        compiler.close()
    if not result["success"]:
        raise NotCompiled(_errors(result))
    values = json.loads(result["parameters"])["parameters"]
    return {name: each["value"] for name, each in values.items()}


def snapshot(path: Path, given: Mapping[str, Any]) -> Snapshot:
    """What a .bicep file deploys with these parameters. Raises `NotCompiled`.

    The compiler leaves open what a secure parameter decides, so this looks at a copy in which none is.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(path.parent, Path(folder) / "infra")
        for each in copy.rglob("*.bicep"):
            text = each.read_text(encoding="utf-8")
            each.write_text(text.replace("@secure()\n", ""), encoding="utf-8")
        values = copy / "snapshot.bicepparam"
        values.write_text(
            f"using '{path.name}'\n"
            + "".join(f"param {name} = {_literal(value)}\n" for name, value in given.items()),
            encoding="utf-8",
        )
        try:
            result = _warm().ask(
                "bicep/getSnapshot", path=str(values), metadata=_METADATA, externalInputs=None
            )
        except NotCompiled as error:
            raise NotCompiled(_errors(_compile_parameters(_warm(), values)) or str(error)) from None
    found = json.loads(result["snapshot"].replace(_PLACE, ""))
    return Snapshot(arm.read(found["predictedResources"]), arm.read(found["outputs"]))


def _literal(value: Any) -> str:
    """A value as Bicep text."""
    text = json.dumps(value).replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"json('{text}')"
