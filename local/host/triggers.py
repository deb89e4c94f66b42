"""Starts and stops the triggers, each in a thread of its own; those by HTTP wait for requests."""

import threading
import time

from local.host import blobs, queues, timers
from local.host.invoking import App
from local.worker import AppFailed


class Triggers:
    """The triggers of an app."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start every trigger. Raises `AppFailed`."""
        kinds = {
            "timertrigger": timers.timer,
            "blobtrigger": blobs.events,
            "queuetrigger": queues.messages,
        }
        for function in self._app.functions.values():
            kind = str(function.trigger["type"]).lower()
            if kind == "httptrigger":
                continue
            if kind not in kinds:
                raise AppFailed(f"{function.name}: this host has no {function.trigger['type']}")
            run = kinds[kind](self._app, function)
            self._threads.append(threading.Thread(target=run, name=function.name, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take nothing new, and let what runs end within ten seconds."""
        self._app.stopping.set()
        until = time.monotonic() + 10
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        while sum(self._app.running.values()) and time.monotonic() < until:
            time.sleep(0.05)
