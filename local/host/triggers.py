"""Starts and stops the triggers, each in a thread of its own. HTTP triggers need none: the web server calls."""

import threading
import time
from collections.abc import Callable

from local.host import queues, timers
from local.host.blobs import BlobTrigger
from local.host.functions import App
from local.worker import AppFailed


class Triggers:
    """The triggers of an app."""

    def __init__(self, app: App) -> None:
        """Raises `AppFailed`."""
        self._app = app
        self._threads: list[threading.Thread] = []
        kinds = {"timertrigger": timers.timer, "queuetrigger": queues.messages}
        self._runs: dict[str, Callable[[], None]] = {}
        for function in app.functions.values():
            if function.kind in kinds:
                self._runs[function.name] = kinds[function.kind](app, function)
            elif function.kind not in ("httptrigger", "blobtrigger"):
                raise AppFailed(f"{function.name}: this host has no {function.trigger['type']}")
        blob_functions = [each for each in app.functions.values() if each.kind == "blobtrigger"]
        self.blobs = BlobTrigger(app, blob_functions)
        if blob_functions:
            self._runs["blobs"] = self.blobs.read

    def start(self) -> None:
        """Start every trigger."""
        for name, run in self._runs.items():
            self.add(name, run)

    def add(self, name: str, run: Callable[[], None]) -> None:
        """Start a trigger in a thread; `run` returns when the host stops."""
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Start no more calls, and wait up to ten seconds for those that run."""
        self._app.stopping.set()
        deadline = time.monotonic() + 10
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        while sum(self._app.running.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
