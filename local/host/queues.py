"""The queue trigger: visibility, dequeue count, poison queue."""

import contextlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.queue import QueueClient, QueueServiceClient

from local.host.invoking import App
from local.host.settings import resolved
from local.host.storage import connect, decoded, line, poison
from local.worker import Function, InvocationFailed, Typed

log = logging.getLogger("host")

HIDDEN: Final = 600
"""Seconds for which a message is hidden while its function runs; the real host renews it."""


def messages(app: App, function: Function) -> Callable[[], None]:
    """What runs a function for each message of a queue. Raises `AppFailed`."""
    name = resolved(str(function.trigger["queueName"]))
    _, queues = connect(str(function.trigger["connection"]))
    queue = queues.get_queue_client(name)
    batch = int(app.settings.host("extensions/queues/batchSize", "16"))
    threshold = int(app.settings.host("extensions/queues/newBatchThreshold", str(batch // 2)))
    longest = min(2.0, app.settings.seconds("extensions/queues/maxPollingInterval", "00:00:02"))
    pool = ThreadPoolExecutor(batch + threshold, thread_name_prefix=function.name)

    def poll() -> None:
        wait = 0.1
        while not app.stopping.is_set():
            if app.running[function.name] > threshold:
                app.stopping.wait(0.05)
                continue
            try:
                found = list(
                    queue.receive_messages(
                        visibility_timeout=HIDDEN, messages_per_page=batch, max_messages=batch
                    )
                )
            except ResourceNotFoundError:
                log.warning("the queue %s is missing; it is made", name)
                with contextlib.suppress(AzureError):
                    queue.create_queue()
                continue
            except AzureError as error:
                log.warning("%s can't be read: %s", name, line(error))
                found = []
                app.stopping.wait(2)
            for message in found:
                pool.submit(_take, app, function, queues, queue, message)
            wait = 0.1 if found else min(longest, wait * 1.5)
            app.stopping.wait(0.02 if found else wait)
        pool.shutdown(cancel_futures=True)

    return poll


def _take(
    app: App, function: Function, queues: QueueServiceClient, queue: QueueClient, message: Any
) -> None:
    tries = int(app.settings.host("extensions/queues/maxDequeueCount", "5"))
    later = app.settings.seconds("extensions/queues/visibilityTimeout", "00:00:00")
    try:
        failed = False
        try:
            text = decoded(app.settings, message.content)
            app.invoke(function, Typed("string", text), _metadata(message))
        except ValueError:
            log.error("%s: a message is not base64: to the poison queue", function.name)
            failed, message.dequeue_count = True, tries
        except InvocationFailed:
            failed = True
        if failed and message.dequeue_count < tries:
            queue.update_message(message, visibility_timeout=round(later))
            return
        if failed:
            log.error("%s: message %s goes to the poison queue", function.name, message.id)
            poison(queues.get_queue_client(f"{queue.queue_name}-poison"), message.content)
        queue.delete_message(message)
    except AzureError as error:
        # The message comes again when it is visible again; at-least-once is all that a queue gives.
        log.warning("%s: message %s: %s", function.name, message.id, line(error))


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
