"""The queue trigger, and the reading of a queue, which the blob trigger uses too.

Polling, visibility, dequeue count and poison queue are as the Azure WebJobs storage extension 5.3.10 was seen
to handle them. Its settings are in Microsoft Learn, "Azure Queue storage bindings", section host.json.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.queue import QueueClient

from local.host.functions import App
from local.host.settings import resolved
from local.host.storage import connect, decoded, line, poison
from local.host.workers import InvocationFailed
from local.protocol import Function, Typed

log = logging.getLogger("host")

HIDDEN: Final = 600
"""Seconds for which a message that was read stays invisible. While its function runs, this time is renewed. If
the host dies, the message is invisible until the time is over."""
SHORTEST: Final = 0.1
"""Seconds to wait after the first read that finds the queue empty; each further wait is twice as long."""


@dataclass(frozen=True)
class Reading:
    """How a queue is read."""

    queue: QueueClient
    call: Callable[[str, Any], None]
    """Handles a message: gets its text and the message. Raises `InvocationFailed` to get the message again, and
    `ValueError` if the message can never be read."""
    give_up: Callable[[str], None]
    """Puts a message that failed too often on the poison queue: gets its content as it is on the queue."""
    batch: int
    threshold: int
    tries: int
    later: float
    """Seconds until a message whose function failed is visible again."""
    longest: float
    """The longest wait between two reads of an empty queue, in seconds."""
    waker: threading.Event = field(default_factory=threading.Event)
    """Set to read an idle queue now."""


def messages(app: App, function: Function) -> Callable[[], None]:
    """Returns what calls a function for each message of its queue, until the host stops. Raises `AppFailed`."""
    name = resolved(str(function.trigger["queueName"]))
    _, queues = connect(str(function.trigger["connection"]))
    host = app.settings.host
    batch = int(host("extensions/queues/batchSize", "16"))

    def call(text: str, message: Any) -> None:
        app.invoke(function, Typed("string", decoded(app.settings, text)), _metadata(message))

    reading = Reading(
        queue=queues.get_queue_client(name),
        call=call,
        give_up=lambda content: poison(queues.get_queue_client(f"{name}-poison"), content),
        batch=batch,
        threshold=int(host("extensions/queues/newBatchThreshold", str(batch // 2))),
        tries=int(host("extensions/queues/maxDequeueCount", "5")),
        later=app.settings.seconds("extensions/queues/visibilityTimeout", "00:00:00"),
        longest=app.settings.seconds("extensions/queues/maxPollingInterval", "00:01:00"),
    )
    return lambda: read(reading, app.stopping)


def read(reading: Reading, stopping: threading.Event) -> None:
    """Handle a queue's messages until the host stops."""
    running = _Running()
    idle = 0
    bound = reading.batch + reading.threshold
    with ThreadPoolExecutor(bound, thread_name_prefix=reading.queue.queue_name) as pool:
        while not stopping.is_set():
            # The next batch is fetched only when few enough messages are being handled.
            if running.count > reading.threshold:
                running.changed.wait(0.05)
                running.changed.clear()
                continue
            try:
                batch = list(
                    reading.queue.receive_messages(
                        visibility_timeout=HIDDEN,
                        messages_per_page=reading.batch,
                        max_messages=reading.batch,
                    )
                )
            except ResourceNotFoundError:
                log.warning("the queue %s is missing; making it", reading.queue.queue_name)
                with contextlib.suppress(AzureError):
                    reading.queue.create_queue()
                continue
            except AzureError as error:
                log.warning("%s can't be read: %s", reading.queue.queue_name, line(error))
                batch = []
                stopping.wait(2)
            for message in batch:
                running.add(1)
                pool.submit(_take, reading, message).add_done_callback(lambda _: running.add(-1))
            idle = 0 if batch else idle + 1
            if idle:
                _wait(reading, stopping, min(reading.longest, SHORTEST * 2 ** min(idle - 1, 20)))
        pool.shutdown(cancel_futures=True)


class _Running:
    """How many messages are being handled."""

    def __init__(self) -> None:
        self.count = 0
        self.changed = threading.Event()
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        with self._lock:
            self.count += number
        self.changed.set()


def _wait(reading: Reading, stopping: threading.Event, seconds: float) -> None:
    """Wait for these seconds, or until `waker` is set or the host stops."""
    while seconds > 0 and not stopping.is_set():
        if reading.waker.wait(min(seconds, 0.5)):
            reading.waker.clear()
            return
        seconds -= 0.5


def _take(reading: Reading, message: Any) -> None:
    queue = reading.queue
    try:
        with _renewed(queue, message):
            try:
                reading.call(message.content, message)
                failed = False
            except InvocationFailed:
                failed = True
            except ValueError as error:
                log.error("%s: a message can't be read (%s)", queue.queue_name, error)
                failed, message.dequeue_count = True, reading.tries
        if failed and message.dequeue_count < reading.tries:
            queue.update_message(message, visibility_timeout=round(reading.later))
            if not reading.later:
                reading.waker.set()
            return
        if failed:
            log.error("%s: message %s goes to the poison queue", queue.queue_name, message.id)
            reading.give_up(message.content)
        queue.delete_message(message)
    except AzureError as error:
        # The message will be visible again and is then handled again: a queue delivers at least once.
        log.warning("%s: message %s: %s", queue.queue_name, message.id, line(error))


@contextlib.contextmanager
def _renewed(queue: QueueClient, message: Any) -> Iterator[None]:
    """Keep a message invisible while its function runs."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(HIDDEN / 2):
            with contextlib.suppress(AzureError):
                renewed = queue.update_message(message, visibility_timeout=HIDDEN)
                message.pop_receipt = renewed.pop_receipt

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _metadata(message: Any) -> dict[str, Typed]:
    def moment(value: Any) -> Typed:
        return Typed("json", json.dumps(value.isoformat() if value else None))

    return {
        "Id": Typed("string", str(message.id)),
        "DequeueCount": Typed("json", json.dumps(message.dequeue_count)),
        "PopReceipt": Typed("string", str(message.pop_receipt)),
        "InsertionTime": moment(message.inserted_on),
        "ExpirationTime": moment(message.expires_on),
        "NextVisibleTime": moment(message.next_visible_on),
    }
