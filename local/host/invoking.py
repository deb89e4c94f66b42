"""Calls the app's functions and keeps count of them."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from local.host.settings import Settings, resolved
from local.host.storage import connect, encoded
from local.worker import Function, InvocationFailed, Typed, Worker

log = logging.getLogger("host")


class App:
    """The app in its worker, as its triggers see it."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        self.functions = worker.functions
        self.settings = settings
        self.stopping = threading.Event()
        """Set when nothing new is to be taken."""
        self.deliver_events = True
        self.running: Counter[str] = Counter()
        """How many invocations of each function run."""
        self._worker = worker
        self._ended: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._timeout = settings.seconds("functionTimeout", "00:30:00")

    def status(self) -> dict[str, Any]:
        """Which functions there are, and how their invocations ended."""
        names = list(self.functions)
        return {
            "state": "Running",
            "functions": names,
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
    ) -> Any:
        """Call a function and write its outputs. Raises `InvocationFailed`."""
        with self._lock:
            self.running[function.name] += 1
        outcome = "failed"
        started = time.monotonic()
        try:
            answer = self._worker.invoke(function, data, metadata).result()
            self._write_outputs(function, answer)
            outcome = "succeeded"
            return answer
        except InvocationFailed as error:
            log.error("%s failed: %s", function.name, error)
            raise
        finally:
            if time.monotonic() - started > self._timeout:
                log.error("%s outlasted functionTimeout; the real host would end it", function.name)
            with self._lock:
                self.running[function.name] -= 1
                self._ended[function.name, outcome] += 1

    def _write_outputs(self, function: Function, answer: Any) -> None:
        values = {item.name: item.data for item in answer.output_data}
        if answer.return_value is not None:
            values["$return"] = answer.return_value
        for binding in function.outputs:
            if binding["type"] == "queue" and binding["name"] in values:
                value = vars(values[binding["name"]])
                text = next(iter(value.values()))
                _, queues = connect(str(binding["connection"]))
                queue = queues.get_queue_client(resolved(str(binding["queueName"])))
                text = text if isinstance(text, str) else text.decode()
                queue.send_message(encoded(self.settings, text))
