"""Loads and calls a function app through the real worker library, `azure-functions-runtime`.

It is what the Functions Python worker runs: indexing, the conversion of bindings, invocation and error texts
are its own. The host speaks to it in protobuf; it asks only for objects with the right attributes, and gets
plain ones.
One app a process: the library keeps its state in modules.
"""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4


class AppFailed(RuntimeError):
    """The app could not be indexed; the text is the worker's own."""


class InvocationFailed(RuntimeError):
    """A function raised; the text is the worker's own, with its traceback."""


@dataclass(frozen=True)
class Function:
    """An indexed function."""

    id: str
    name: str
    trigger: Mapping[str, Any]
    """The trigger's binding as the worker describes it to the host (the form of function.json)."""
    outputs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Typed:
    """A value in the form of the protocol's TypedData."""

    kind: str
    value: Any

    def WhichOneof(self, _: str) -> str:  # noqa: N802 - protobuf's name
        return self.kind

    def __getattr__(self, name: str) -> Any:
        if name == self.kind:
            return self.value
        raise AttributeError(name)


class _Parameter(SimpleNamespace):
    def WhichOneof(self, _: str) -> str:  # noqa: N802 - protobuf's name
        return "data"


class _Kind:
    """Any message class or enum of the protocol: called, it makes a message; else its names are its values."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, **fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**fields)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Kind(name)

    def Value(self, name: str) -> str:  # noqa: N802 - protobuf's name
        return name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kind) and self._name == other._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return self._name


class _BindingInfo(_Kind):
    """The library compares a binding's direction with the protocol's numbers."""

    inout = 2
    out = 1


class _Protos:
    BindingInfo = _BindingInfo("BindingInfo")

    def __getattr__(self, name: str) -> _Kind:
        return _Kind(name)


class Worker:
    """The worker of one app folder."""

    def __init__(self, app: Path) -> None:
        """Index the app. Raises `AppFailed`."""
        import azure_functions_runtime as runtime

        self._runtime = runtime
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="worker", daemon=True).start()
        sys.path.insert(0, str(app))
        os.chdir(app)
        runtime.start_threadpool_executor()
        # The worker hands over its own package; the app's dependencies stand beside it.
        request = SimpleNamespace(
            request=SimpleNamespace(
                worker_init_request=SimpleNamespace(
                    capabilities={}, function_app_directory=str(app)
                )
            ),
            properties={"host": "127.0.0.1", "protos": _Protos()},
        )
        answer = self._await(runtime.worker_init_request(request))
        self._raise_failure(answer, AppFailed)
        found = self._await(runtime.functions_metadata_request(request)).function_metadata_results
        if not found:
            raise AppFailed(f"no functions were found in {app}")
        self.functions = {each.name: _function(each) for each in found}

    def invoke(
        self,
        function: Function,
        data: Typed,
        metadata: Mapping[str, Typed] | None = None,
    ) -> "Future[Any]":
        """Call a function; the future gives the worker's InvocationResponse or raises `InvocationFailed`."""
        name = str(function.trigger["name"])
        request = SimpleNamespace(
            request=SimpleNamespace(
                invocation_request=SimpleNamespace(
                    invocation_id=str(uuid4()),
                    function_id=function.id,
                    input_data=[_Parameter(name=name, data=data)],
                    trigger_metadata=dict(metadata or {}),
                    trace_context=SimpleNamespace(
                        trace_parent=f"00-{uuid4().hex}-{uuid4().hex[:16]}-01",
                        trace_state="",
                        attributes={},
                    ),
                    retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
                )
            ),
            properties={"host": "127.0.0.1", "protos": _Protos()},
        )

        async def call() -> Any:
            answer = await self._runtime.invocation_request(request)
            self._raise_failure(answer, InvocationFailed)
            return answer

        return asyncio.run_coroutine_threadsafe(call(), self._loop)

    def _await(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    @staticmethod
    def _raise_failure(answer: Any, kind: type[RuntimeError]) -> None:
        result = answer.result
        if repr(result.status) != "Success":
            raise kind(f"{result.exception.message}\n{result.exception.stack_trace}")


def _function(found: Any) -> Function:
    bindings = [json.loads(raw) for raw in found.raw_bindings]
    triggers = [each for each in bindings if str(each["type"]).lower().endswith("trigger")]
    outputs = tuple(each for each in bindings if str(each.get("direction", "")).upper() == "OUT")
    return Function(found.function_id, found.name, triggers[0], outputs)
