"""A worker process: loads and calls a function app through the real worker library, `azure-functions-runtime`.

The Functions Python worker runs the same library: it indexes functions, converts bindings, calls functions and
words their errors. The real host sends it protobuf messages; it only needs objects with the right attributes,
and here it gets plain ones.

`python -m local.worker GROUP` does what the trigger host sends (`local/protocol.py`). GROUP, the name of the
functions that it serves, is only shown in lists of processes.
"""

import asyncio
import json
import logging
import os
import pickle
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Final

from local.protocol import UNSEEN, Call, Ended, Failed, Function, Start, Started

_ROOT: Final = Path(__file__).resolve().parent.parent
_NO_APP: Final = Path(__file__).with_name("placeholder")
"""A folder that does not exist: a placeholder starts without an app."""


class AppFailed(RuntimeError):
    """The app could not be indexed; the text is the worker's own."""


class _InvocationFailed(RuntimeError):
    """A function raised; the text is the worker's own, with its traceback."""


class _Parameter(SimpleNamespace):
    def WhichOneof(self, _: str) -> str:  # noqa: N802 - protobuf's name
        return "data"


class _Kind:
    """Stands for any message class or enum of the protocol: a call makes a message, an attribute is a value."""

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

    def __init__(self, start: Start) -> None:
        """Load the app. Raises `AppFailed`."""
        import azure_functions_runtime as runtime

        self._runtime = runtime
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="worker", daemon=True).start()
        runtime.start_threadpool_executor()
        if start.settings is None:
            sys.path.insert(0, str(start.app))
            os.chdir(start.app)
            self._init(start.app)
        else:  # as on Flex Consumption: the app settings come after the start of the process
            self._init(_NO_APP)
            reload = {
                "environment_variables": dict(start.settings),
                "function_app_directory": str(start.app),
            }
            self._ask("function_environment_reload_request", **reload)
        request = _request("functions_metadata_request")
        indexed = self._await(runtime.functions_metadata_request(request)).function_metadata_results
        if not indexed:
            raise AppFailed(f"no functions were found in {start.app}")
        self.functions = [_function(each) for each in indexed]

    def _init(self, app: Path) -> None:
        self._ask("worker_init_request", capabilities={}, function_app_directory=str(app))

    def _ask(self, kind: str, **fields: object) -> None:
        response = self._await(getattr(self._runtime, kind)(_request(kind, **fields)))
        _raise_failure(response, AppFailed)

    def call(self, call: Call, replies: "_Replies") -> None:
        """Call a function. When it has ended, `replies` gets the result."""
        request = _request(
            "invocation_request",
            invocation_id=call.id,
            function_id=call.function.id,
            input_data=[_Parameter(name=str(call.function.trigger["name"]), data=call.data)],
            trigger_metadata=dict(call.metadata),
            trace_context=SimpleNamespace(
                trace_parent=f"00-{call.id.replace('-', '')}-{call.id[:8]}{call.id[:8]}-01",
                trace_state="",
                attributes={},
            ),
            retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
        )

        async def invoke() -> None:
            try:
                response = await self._runtime.invocation_request(request)
                _raise_failure(response, _InvocationFailed)
            except _InvocationFailed as error:
                replies.send(Ended(call.id, error=str(error)))
            else:
                replies.send(Ended(call.id, response.return_value, response.output_data))

        asyncio.run_coroutine_threadsafe(invoke(), self._loop)

    def _await(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _request(kind: str, **fields: object) -> SimpleNamespace:
    return SimpleNamespace(
        request=SimpleNamespace(**{kind: SimpleNamespace(**fields)}),
        properties={"host": "127.0.0.1", "protos": _Protos()},
    )


def _raise_failure(response: Any, kind: type[RuntimeError]) -> None:
    result = response.result
    if repr(result.status) != "Success":
        raise kind(f"{result.exception.message}\n{result.exception.stack_trace}")


def _function(indexed: Any) -> Function:
    bindings = [json.loads(raw) for raw in indexed.raw_bindings]
    triggers = [each for each in bindings if str(each["type"]).lower().endswith("trigger")]
    outputs = tuple(each for each in bindings if str(each.get("direction", "")).upper() == "OUT")
    return Function(indexed.function_id, indexed.name, triggers[0], outputs)


class _Replies:
    """Sends replies to the host, one at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, reply: object) -> None:
        with self._lock:
            pickle.dump(reply, self._stream)
            self._stream.flush()


class _Formatter(logging.Formatter):
    """Marks the lines that belong to no invocation: the real host drops them."""

    def format(self, record: logging.LogRecord) -> str:
        from azure_functions_runtime import invocation_id_cv

        text = super().format(record)
        if invocation_id_cv.get():
            return text
        return "\n".join(UNSEEN + line for line in text.splitlines())


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("[%(asctime)s] [%(threadName)s] %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("azure", "azure_functions_runtime", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def main() -> None:
    """Do what the host sends, until it closes the stream."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the host, which then ends us
    # The modules that this process needs are loaded. The app must not find its own modules in this folder.
    sys.path[:] = [each for each in sys.path if Path(each).resolve() != _ROOT]
    requests = os.fdopen(os.dup(0), "rb")
    replies = _Replies(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what the app prints goes where its log goes
    _log_to_stderr()
    try:
        worker = Worker(pickle.load(requests))
    except AppFailed as error:
        replies.send(Failed(str(error)))
    else:
        replies.send(Started(worker.functions))
        while True:
            try:
                call = pickle.load(requests)
            except (EOFError, OSError):  # the host has ended
                break
            worker.call(call, replies)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
