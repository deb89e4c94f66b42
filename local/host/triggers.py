"""Starts and stops the triggers, each in a thread of its own; those by HTTP wait for requests."""

import threading
import time
from collections.abc import Callable

from local.host import queues, timers
from local.host.blobs import BlobTrigger
from local.host.invoking import App
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
        of_blobs = [each for each in app.functions.values() if each.kind == "blobtrigger"]
        self.blobs = BlobTrigger(app, of_blobs)
        if of_blobs:
            self._runs["blobs"] = self.blobs.read

    def start(self) -> None:
        """Start every trigger."""
        for name, run in self._runs.items():
            self.add(name, run)

    def add(self, name: str, run: Callable[[], None]) -> None:
        """Run something until it is time to stop."""
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Take nothing new, and let what runs end within ten seconds."""
        self._app.stopping.set()
        until = time.monotonic() + 10
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        while sum(self._app.running.values()) and time.monotonic() < until:
            time.sleep(0.05)
