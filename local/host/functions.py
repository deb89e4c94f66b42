"""Calls the app's functions and counts the calls."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from local.host.settings import Settings, resolved
from local.host.storage import connect, encoded
from local.host.workers import InvocationFailed, Workers
from local.protocol import Ended, Function, Typed

log = logging.getLogger("host")


class App:
    """The running app, as the triggers use it."""

    def __init__(self, workers: Workers, settings: Settings) -> None:
        self.functions = workers.functions
        self.settings = settings
        self.stopping = threading.Event()
        """Set when the host stops: from then on no trigger starts a call."""
        self.running: Counter[str] = Counter()
        """How many invocations of each function run."""
        self._workers = workers
        self._ended: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._timeout = settings.seconds("functionTimeout", "00:30:00")

    def status(self) -> dict[str, Any]:
        """Which functions there are, how their invocations ended, and the worker processes."""
        names = list(self.functions)
        return {
            "state": "Running",
            "functions": names,
            "workers": self._workers.pids(),
            "invocations": {
                name: {
                    "succeeded": self._ended[name, "succeeded"],
                    "failed": self._ended[name, "failed"],
                    "running": self.running[name],
                }
                for name in names
            },
        }

    def invoke(
        self, function: Function, data: Typed, metadata: Mapping[str, Typed] | None = None
    ) -> Ended:
        """Call a function and write its outputs. Raises `InvocationFailed`.

        If the call takes longer than `functionTimeout`, its worker process is ended, with all calls in it.
        """
        with self._lock:
            self.running[function.name] += 1
        outcome = "failed"
        try:
            worker = self._workers.of(function)
            try:
                ended = worker.call(function, data, metadata or {}).result(self._timeout)
            except TimeoutError:
                worker.end()
                why = f"longer than functionTimeout ({self._timeout:.0f} s)"
                raise InvocationFailed(f"it took {why}: the worker process was ended") from None
            self._write_outputs(function, ended)
            outcome = "succeeded"
            return ended
        except InvocationFailed as error:
            log.error("%s failed: %s", function.name, error)
            raise
        finally:
            with self._lock:
                self.running[function.name] -= 1
                self._ended[function.name, outcome] += 1

    def _write_outputs(self, function: Function, ended: Ended) -> None:
        values = {item.name: item.data for item in ended.outputs}
        if ended.return_value is not None:
            values["$return"] = ended.return_value
        for binding in function.outputs:
            if binding["type"] == "queue" and binding["name"] in values:
                content = next(iter(vars(values[binding["name"]]).values()))
                _, queues = connect(str(binding["connection"]))
                queue = queues.get_queue_client(resolved(str(binding["queueName"])))
                text = content if isinstance(content, str) else content.decode()
                queue.send_message(encoded(self.settings, text))
