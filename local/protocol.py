"""The messages between the trigger host (`local/host/`) and its worker processes (`local/worker.py`).

They are pickles on the worker's standard streams. The host sends `Start`, and then a `Call` for each call. The
worker answers `Started` or `Failed`, and then an `Ended` for each call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol

UNSEEN: Final = "(no invocation: Azure would not have this line) "
"""Begins each log line of the app that belongs to no invocation. The real host drops such lines."""


class Process(Protocol):
    """The part of `subprocess.Popen` that is used of a process of the host or of a worker."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[bytes] | None: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    @property
    def stderr(self) -> IO[bytes] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@dataclass(frozen=True)
class Function:
    """An indexed function."""

    id: str
    name: str
    trigger: Mapping[str, Any]
    """The trigger's binding as the worker describes it to the host (the form of function.json)."""
    outputs: tuple[Mapping[str, Any], ...]

    @property
    def kind(self) -> str:
        """The trigger's type in small letters: `blobtrigger`, `queuetrigger`, `timertrigger`, `httptrigger`."""
        return str(self.trigger["type"]).lower()


@dataclass(frozen=True)
class Typed:
    """A value in the form of the protocol's TypedData."""

    kind: str
    value: Any

    def WhichOneof(self, _: str) -> str:  # noqa: N802 - protobuf's name
        return self.kind

    def __getattr__(self, name: str) -> Any:
        if name not in ("kind", "value") and name == self.kind:
            return self.value
        raise AttributeError(name)


@dataclass(frozen=True)
class Start:
    """Load the app."""

    app: Path
    settings: Mapping[str, str] | None
    """The whole environment, for a placeholder that gets its app settings by a reload; else None."""


@dataclass(frozen=True)
class Started:
    """The app is loaded."""

    functions: list[Function]


@dataclass(frozen=True)
class Failed:
    """The app could not be loaded; the text is the worker's own."""

    text: str


@dataclass(frozen=True)
class Call:
    """Call a function."""

    id: str
    function: Function
    data: Typed
    metadata: Mapping[str, Typed] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A call has ended: what the function returned, or the error text where it raised."""

    id: str
    return_value: Any = None
    """TypedData, as plain objects."""
    outputs: Sequence[Any] = ()
    """Output bindings, each with `name` and `data`."""
    error: str = ""
