"""An app that notes what the host does with it: a line of JSON for each call, in the file that NOTES names."""

import json
import logging
import os
import threading
import time
from pathlib import Path

import azure.functions as func
import azurefunctions.extensions.bindings.blob as sdk

app = func.FunctionApp()


def note(what: str, **fields: object) -> None:
    line = json.dumps({"what": what, "pid": os.getpid(), "at": time.time(), **fields})
    file = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode() + b"\n")
    os.close(file)


def act(name: str) -> None:
    """`fail` in a name raises, `sleep` takes a second and a half, `hang` a minute."""
    if "fail" in name:
        raise ValueError("as the name says")
    if "sleep" in name:
        time.sleep(1.5)
    if "hang" in name:
        time.sleep(60)


@app.function_name("on_blob")
@app.blob_trigger(
    arg_name="blob",
    path="drops/{name}",
    connection="DataStorage",
    source=func.BlobSource.EVENT_GRID,
)
def on_blob(blob: sdk.BlobClient) -> None:
    note("blob", container=blob.container_name, name=blob.blob_name)
    act(blob.blob_name)
    note("blob ended", name=blob.blob_name)


@app.function_name("on_message")
@app.queue_trigger(arg_name="message", queue_name="work", connection="DataStorage")
def on_message(message: func.QueueMessage) -> None:
    text = message.get_body().decode()
    note("message", name=text, dequeued=message.dequeue_count)
    act(text)
    note("message ended", name=text)


@app.function_name("on_time")
@app.timer_trigger(
    arg_name="timer", schedule=os.environ.get("TIMER", "0 0 0 1 1 *"), use_monitor=True
)
def on_time(timer: func.TimerRequest) -> None:
    note("timer", past_due=timer.past_due)


@app.function_name("ajar")
@app.route(route="open", auth_level=func.AuthLevel.ANONYMOUS)
def ajar(req: func.HttpRequest) -> func.HttpResponse:
    """Also: which settings this process had at its start, and which it has now."""
    log = logging.getLogger("app")
    log.info("a line of the invocation's own thread")
    thread = threading.Thread(target=log.info, args=("a line of a thread without invocation",))
    thread.start()
    thread.join()
    at_start = "NOTES" in Path("/proc/self/environ").read_text(encoding="utf-8", errors="replace")
    return func.HttpResponse(json.dumps({"pid": os.getpid(), "settingsAtStart": at_start}))


@app.function_name("locked")
@app.route(route="shut", auth_level=func.AuthLevel.FUNCTION)
def locked(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps({"pid": os.getpid()}))
