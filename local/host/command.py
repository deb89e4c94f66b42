"""The command line of the trigger host."""

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from azure.core.exceptions import AzureError

from local.asgi_server import serve
from local.containers import make_missing
from local.host.event_grid import Subscription
from local.host.functions import App
from local.host.keys import Keys
from local.host.settings import Settings
from local.host.storage import connect, line
from local.host.triggers import Triggers
from local.host.web import application
from local.host.workers import StartProcess, Workers, start_process
from local.worker import AppFailed

log = logging.getLogger("host")


def _provision() -> None:
    """Make the containers and queues that `infra/` makes in Azure."""
    try:
        make_missing(*connect("DataStorage"))
    except AzureError as error:
        log.warning("missing containers and queues could not be made: %s", line(error))


def _end_with_parent(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


def main(arguments: Sequence[str] | None = None, start_worker: StartProcess = start_process) -> int:
    """Run the app until interrupted. The first line on stdout has its URL and keys; the log goes to stderr."""
    parser = argparse.ArgumentParser(prog="dev.py host", description="Run the app on this machine.")
    parser.add_argument("--settings", type=Path, default=Path("local.settings.json"))
    parser.add_argument("--app", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--no-events", action="store_true", help="lose every blob event")
    parser.add_argument(
        "--direct",
        action="store_true",
        help="start each worker with its app settings, as Core Tools does; without it a worker gets them by a "
        "reload, as on Flex Consumption",
    )
    parser.add_argument(
        "--with-parent",
        action="store_true",
        help="end when stdin is closed, as when the parent process ends",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="[%(asctime)s] [%(threadName)s] %(levelname)s %(message)s",
    )
    for noisy in ("azure", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if not options.settings.is_file():
        parser.error(f"{options.settings} does not exist; see local.settings.sample.json")
    settings_file, folder = options.settings.resolve(), options.app.resolve()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if options.with_parent:
        threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
    try:
        settings = Settings(settings_file, folder)
        # The worker library's reload calls time.tzset, which Windows does not have.
        placeholder = not options.direct and hasattr(time, "tzset")
        workers = Workers(folder, settings.base_environment, start_worker, placeholder=placeholder)
        app = App(workers, settings)
        _provision()
        triggers = Triggers(app)
    except AppFailed as error:
        print(f"The app did not start.\n{error}", file=sys.stderr, flush=True)
        return 1
    keys = Keys()
    subscriptions: list[Subscription] = []
    with serve(application(app, keys, triggers.blobs, subscriptions), options.port) as server:
        for function in app.functions.values():
            if function.kind == "blobtrigger":
                subscription = Subscription(server.url, keys.blobs_extension, function)
                subscription.delivers = not options.no_events
                subscriptions.append(subscription)
                triggers.add(
                    f"events of {function.name}", partial(subscription.deliver, app.stopping)
                )
        triggers.start()
        ready = {"url": server.url, "pid": os.getpid(), "keys": asdict(keys)}
        print(json.dumps({**ready, "functions": list(app.functions)}), flush=True)
        while not stop.wait(0.5):
            pass
        triggers.stop()
    workers.stop()
    return 0
