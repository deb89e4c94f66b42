"""The trigger host: plays the part of the Azure Functions host for one app on one machine.

The app runs in the real worker library (`local/worker.py`); what the host does around it is played
here, against the storage that the app settings name: timers, blob events, the queue with visibility,
dequeue count and poison queue, HTTP. Differences from the real host, all on purpose:

- Azurite has no Event Grid, so containers are polled, and each new ETag is an event. As with Event Grid an
  event may come twice (after a restart every blob's comes again), and it names the blob alone, not the version.
- One process, no scaling; an invocation that outlasts `functionTimeout` is reported, but no thread is ended.
- Function keys: none is asked for, as with Core Tools.
- `POST /admin/functions/{name}` runs a function at once, as the real host's does; with `?wait=true` it answers
  when the function has ended. `POST /admin/host/events {"deliver": false}` loses blob events, for tests.
"""

import argparse
import base64
import contextlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient, QueueServiceClient
from croniter import croniter

from local.serving import serve
from local.worker import AppFailed, Function, InvocationFailed, Typed, Worker

log = logging.getLogger("host")

HIDDEN: Final = 600
"""Seconds for which a message is hidden while its function runs; the real host renews it."""

BLOB_POLL: Final = 0.5

USER_AGENT: Final = "trigger-host"
"""Begins the `User-Agent` of the host's own requests, by which they are told from the app's."""


class Settings:
    """App settings and host.json, with the settings that override it (`AzureFunctionsJobHost__a__b`)."""

    def __init__(self, file: Path, app: Path) -> None:
        raw = json.loads(file.read_text(encoding="utf-8-sig"))
        values = raw.get("Values", raw) if isinstance(raw, dict) else None
        if not isinstance(values, dict):
            raise SystemExit(f'{file}: must be an object with "Values"')
        os.environ.update({name: str(value) for name, value in values.items()})
        try:
            self._host = json.loads((app / "host.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SystemExit(f"{app} has no host.json: is it a function app?") from None

    def host(self, path: str, default: str) -> str:
        """A value of host.json, such as `extensions/queues/batchSize`."""
        if (
            text := os.environ.get(f"AzureFunctionsJobHost__{path.replace('/', '__')}")
        ) is not None:
            return text
        node: Any = self._host
        for part in path.split("/"):
            node = node.get(part, {}) if isinstance(node, dict) else {}
        return str(node) if node != {} else default

    def seconds(self, path: str, default: str) -> float:
        """A value of the form hh:mm:ss, in seconds."""
        hours, minutes, seconds = self.host(path, default).split(":")
        return timedelta(
            hours=int(hours), minutes=int(minutes), seconds=float(seconds)
        ).total_seconds()


def resolved(text: str) -> str:
    """A binding's text with `%SETTING%` replaced. Raises `AppFailed` where the setting is missing."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise AppFailed(f"the app setting {match[1]}, which a binding names, is missing")
        return os.environ[match[1]]

    return re.sub(r"%([^%]+)%", value, text)


def connect(connection: str) -> tuple[BlobServiceClient, QueueServiceClient]:
    """The storage of a connection: a connection string, or service URIs with an identity."""
    if text := os.environ.get(connection):
        return (
            BlobServiceClient.from_connection_string(text, retry_total=0, user_agent=USER_AGENT),
            QueueServiceClient.from_connection_string(text, retry_total=0, user_agent=USER_AGENT),
        )
    try:
        uris = [os.environ[f"{connection}__{kind}ServiceUri"] for kind in ("blob", "queue")]
    except KeyError as missing:
        raise AppFailed(f"the app setting {missing} is missing (or {connection})") from None
    client_id = os.environ.get(f"{connection}__clientId")
    credential = (
        ManagedIdentityCredential(client_id=client_id) if client_id else DefaultAzureCredential()
    )
    return (
        BlobServiceClient(uris[0], credential=credential, retry_total=0, user_agent=USER_AGENT),
        QueueServiceClient(uris[1], credential=credential, retry_total=0, user_agent=USER_AGENT),
    )


class Host:
    """The running app with its triggers."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        self._worker = worker
        self._settings = settings
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._running: Counter[str] = Counter()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self.deliver_events = True
        self._timeout = settings.seconds("functionTimeout", "00:30:00")

    def start(self) -> None:
        """Start every trigger. Raises `AppFailed`."""
        starts: dict[str, Callable[[Function], Callable[[], None] | None]] = {
            "timertrigger": self._timer,
            "blobtrigger": self._blobs,
            "queuetrigger": self._queue,
            "httptrigger": lambda _: None,
        }
        for function in self._worker.functions.values():
            kind = str(function.trigger["type"]).lower()
            if kind not in starts:
                raise AppFailed(f"{function.name}: this host has no {function.trigger['type']}")
            if run := starts[kind](function):
                thread = threading.Thread(target=run, name=function.name, daemon=True)
                self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take nothing new, and let what runs end within ten seconds."""
        self._stopping.set()
        until = time.monotonic() + 10
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        while sum(self._running.values()) and time.monotonic() < until:
            time.sleep(0.05)

    def status(self) -> dict[str, Any]:
        """Which functions there are, and how their invocations ended."""
        names = list(self._worker.functions)
        return {
            "state": "Running",
            "functions": names,
            "invocations": {
                name: {
                    "succeeded": self._ended[name, "succeeded"],
                    "failed": self._ended[name, "failed"],
                    "running": self._running[name],
                }
                for name in names
            },
        }

    # -- invocation ---------------------------------------------------------------------------------

    def invoke(
        self, function: Function, data: Typed, metadata: Mapping[str, Typed] | None = None
    ) -> Any:
        """Call a function and write its outputs. Raises `InvocationFailed`."""
        with self._lock:
            self._running[function.name] += 1
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
                self._running[function.name] -= 1
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
                queue.send_message(self._encoded(text if isinstance(text, str) else text.decode()))

    def _encoded(self, text: str) -> str:
        plain = self._settings.host("extensions/queues/messageEncoding", "base64") == "none"
        return text if plain else base64.b64encode(text.encode()).decode()

    # -- timers -------------------------------------------------------------------------------------

    def _timer(self, function: Function) -> Callable[[], None]:
        schedule = resolved(str(function.trigger["schedule"]))
        if not croniter.is_valid(schedule, second_at_beginning=True):
            raise AppFailed(f"{function.name}: {schedule!r} is no NCRONTAB of six fields")

        def run() -> None:
            last = datetime.now(UTC)
            times = croniter(schedule, last, second_at_beginning=True)
            while True:
                due = times.get_next(datetime)
                # A run that outlasted later times is followed by one late run, not by one for each.
                late = due < datetime.now(UTC) - timedelta(seconds=1)
                while late and times.get_next(datetime) < datetime.now(UTC):
                    pass
                if late:
                    times = croniter(schedule, datetime.now(UTC), second_at_beginning=True)
                elif self._stopping.wait(max(0.0, (due - datetime.now(UTC)).total_seconds())):
                    return
                if self._stopping.is_set():
                    return
                self._run_timer(function, past_due=late, last=last)
                last = datetime.now(UTC)

        return run

    def _run_timer(self, function: Function, *, past_due: bool, last: datetime) -> None:
        info = {
            "IsPastDue": past_due,
            "ScheduleStatus": {"Last": last.isoformat(), "LastUpdated": last.isoformat()},
            "Schedule": {"AdjustForDST": True},
        }
        with contextlib.suppress(InvocationFailed):
            self.invoke(function, Typed("json", json.dumps(info)))

    # -- blobs --------------------------------------------------------------------------------------

    def _blobs(self, function: Function) -> Callable[[], None]:
        container_name, _, pattern = resolved(str(function.trigger["path"])).partition("/")
        blobs, queues = connect(str(function.trigger["connection"]))
        container = blobs.get_container_client(container_name)
        folder = pattern.partition("{")[0]
        tries = int(self._settings.host("extensions/blobs/poisonBlobThreshold", "5"))
        at_once = int(self._settings.host("extensions/blobs/maxDegreeOfParallelism", "8"))
        pool = ThreadPoolExecutor(at_once, thread_name_prefix=function.name)
        seen: set[tuple[str, str]] = set()

        def deliver(name: str, etag: str) -> None:
            for _ in range(tries):
                if self._stopping.is_set():
                    return
                try:
                    self.invoke(function, *self._blob(function, container_name, name))
                    return
                except InvocationFailed:
                    self._stopping.wait(0.2)
            poison = {
                "FunctionId": f"Host.Functions.{function.name}",
                "BlobType": "BlockBlob",
                "ContainerName": container_name,
                "BlobName": name,
                "ETag": etag,
            }
            log.error("%s: %s goes to webjobs-blobtrigger-poison", function.name, name)
            with contextlib.suppress(AzureError):
                self._put(queues.get_queue_client("webjobs-blobtrigger-poison"), json.dumps(poison))

        def poll() -> None:
            while not self._stopping.wait(BLOB_POLL):
                try:
                    there = {
                        (found.name, str(found.etag))
                        for found in container.list_blobs(name_starts_with=folder or None)
                    }
                except AzureError as error:
                    log.warning("%s can't be listed: %s", container_name, _line(error))
                    self._stopping.wait(2)
                    continue
                new = there - seen
                seen.intersection_update(there)
                seen.update(new)
                if self.deliver_events:
                    for name, etag in sorted(new):
                        pool.submit(deliver, name, etag)
            pool.shutdown(cancel_futures=True)

        return poll

    @staticmethod
    def _blob(function: Function, container: str, name: str) -> tuple[Typed, dict[str, Typed]]:
        """A blob as the host hands it to an SDK-type binding: a reference, never its content."""
        reference = {
            "Connection": function.trigger["connection"],
            "ContainerName": container,
            "BlobName": name,
        }

        class Model:
            version = "1.0"
            source = "AzureStorageBlobs"
            content_type = "application/json"
            content = json.dumps(reference).encode()

        metadata = {
            "BlobTrigger": Typed("string", f"{container}/{name}"),
            "name": Typed("string", name),
        }
        return Typed("model_binding_data", Model()), metadata

    # -- queues -------------------------------------------------------------------------------------

    def _queue(self, function: Function) -> Callable[[], None]:
        name = resolved(str(function.trigger["queueName"]))
        _, queues = connect(str(function.trigger["connection"]))
        queue = queues.get_queue_client(name)
        batch = int(self._settings.host("extensions/queues/batchSize", "16"))
        threshold = int(self._settings.host("extensions/queues/newBatchThreshold", str(batch // 2)))
        longest = min(
            2.0, self._settings.seconds("extensions/queues/maxPollingInterval", "00:00:02")
        )
        pool = ThreadPoolExecutor(batch + threshold, thread_name_prefix=function.name)

        def poll() -> None:
            wait = 0.1
            while not self._stopping.is_set():
                if self._running[function.name] > threshold:
                    self._stopping.wait(0.05)
                    continue
                try:
                    messages = list(
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
                    log.warning("%s can't be read: %s", name, _line(error))
                    messages = []
                    self._stopping.wait(2)
                for message in messages:
                    pool.submit(self._take, function, queues, queue, message)
                wait = 0.1 if messages else min(longest, wait * 1.5)
                self._stopping.wait(0.02 if messages else wait)
            pool.shutdown(cancel_futures=True)

        return poll

    def _take(
        self, function: Function, queues: QueueServiceClient, queue: QueueClient, message: Any
    ) -> None:
        tries = int(self._settings.host("extensions/queues/maxDequeueCount", "5"))
        later = self._settings.seconds("extensions/queues/visibilityTimeout", "00:00:00")
        try:
            failed = False
            try:
                text = message.content
                if self._settings.host("extensions/queues/messageEncoding", "base64") != "none":
                    text = base64.b64decode(text, validate=True).decode()
                self.invoke(function, Typed("string", text), _queue_metadata(message))
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
                self._put(
                    queues.get_queue_client(f"{queue.queue_name}-poison"), None, message.content
                )
            queue.delete_message(message)
        except AzureError as error:
            # The message comes again when it is visible again; at-least-once is all that a queue gives.
            log.warning("%s: message %s: %s", function.name, message.id, _line(error))

    def _put(self, queue: QueueClient, text: str | None, raw: str = "") -> None:
        with contextlib.suppress(ResourceExistsError):
            queue.create_queue()
        queue.send_message(raw if text is None else self._encoded(text), time_to_live=-1)

    # -- HTTP ---------------------------------------------------------------------------------------

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """The host's own HTTP side (ASGI): `/api/...` and `/admin/...`."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        import asyncio

        loop = asyncio.get_running_loop()
        status, headers, content = await loop.run_in_executor(None, self._respond, scope, body)
        pairs = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
        pairs.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": content})

    def _respond(self, scope: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        path, method = unquote(scope["path"]), scope["method"]
        json_type = {"Content-Type": "application/json"}
        if path == "/admin/host/status":
            return 200, json_type, json.dumps(self.status()).encode()
        if path == "/admin/host/events" and method == "POST":
            self.deliver_events = bool(json.loads(body)["deliver"])
            return 200, json_type, b"{}"
        if path.startswith("/admin/functions/") and method == "POST":
            return self._run_by_hand(path.rsplit("/", 1)[1], scope, body)
        if path.startswith("/api"):
            return self._http(path.removeprefix("/api").strip("/"), scope, body)
        return 404, {}, b""

    def _run_by_hand(self, name: str, scope: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        function = self._worker.functions.get(name)
        if function is None:
            return 404, {}, b""
        said = str(json.loads(body or b"{}").get("input", ""))
        kind = str(function.trigger["type"]).lower()
        data: tuple[Typed, dict[str, Typed]]
        if kind == "timertrigger":
            data = Typed("json", '{"IsPastDue": false}'), {}
        elif kind == "blobtrigger":
            container, _, blob = said.partition("/")
            data = self._blob(function, container, blob)
        else:
            data = Typed("string", said), {}
        wait = dict(parse_qsl(scope["query_string"].decode())).get("wait") == "true"
        if not wait:
            threading.Thread(target=self._quietly, args=(function, *data), daemon=True).start()
            return 202, {}, b""
        error = self._quietly(function, *data)
        result = {"status": "failure", "error": error} if error else {"status": "success"}
        return 200, {"Content-Type": "application/json"}, json.dumps(result).encode()

    def _quietly(self, function: Function, data: Typed, metadata: Mapping[str, Typed]) -> str:
        try:
            self.invoke(function, data, metadata)
        except InvocationFailed as error:
            return str(error)
        return ""

    def _http(self, path: str, scope: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        for function in self._worker.functions.values():
            trigger = function.trigger
            if str(trigger["type"]).lower() != "httptrigger":
                continue
            params = _matched(str(trigger.get("route") or function.name), path)
            methods = [str(each).upper() for each in trigger.get("methods") or ()]
            if params is None or (methods and scope["method"] not in methods):
                continue
            query = scope["query_string"].decode()
            headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}

            class Http:
                method = scope["method"]
                url = f"http://{headers.get('host', '')}/api/{path}" + (
                    f"?{query}" if query else ""
                )

            Http.headers = headers  # type: ignore[attr-defined]
            Http.params = params  # type: ignore[attr-defined]
            Http.query = dict(parse_qsl(query, keep_blank_values=True))  # type: ignore[attr-defined]
            Http.body = Typed("bytes", body)  # type: ignore[attr-defined]
            try:
                answer = self.invoke(function, Typed("http", Http))
            except InvocationFailed:
                return 500, {}, b""
            http = answer.return_value.http
            content = next(iter(vars(http.body).values())) if http.body else b""
            content = content if isinstance(content, bytes) else str(content).encode()
            return int(http.status_code), dict(http.headers), content
        return 404, {}, b""


def _matched(route: str, path: str) -> dict[str, str] | None:
    """The values of a route's parameters, or None; `{*rest}` takes the rest, `{name?}` may be missing."""
    pattern = (
        re.escape(route.strip("/")).replace(r"\{", "{").replace(r"\}", "}").replace(r"\*", "*")
    )
    pattern = pattern.replace(r"\?}", "?}")
    pattern = re.sub(r"/\{(\w+)\?\}", r"(?:/(?P<\1>[^/]+))?", pattern)
    pattern = re.sub(r"\{\*(\w+)\}", r"(?P<\1>.*)", pattern)
    pattern = re.sub(r"\{(\w+)(?::\w+)?\??\}", r"(?P<\1>[^/]+)", pattern)
    match = re.fullmatch(pattern, path, re.IGNORECASE)
    return {k: v for k, v in match.groupdict().items() if v is not None} if match else None


def _queue_metadata(message: Any) -> dict[str, Typed]:
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


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the app until interrupted; the first line on stdout says where it is, the log goes to stderr."""
    parser = argparse.ArgumentParser(prog="dev.py host", description="Run the app on this machine.")
    parser.add_argument("--settings", type=Path, default=Path("local.settings.json"))
    parser.add_argument("--app", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--no-events", action="store_true", help="lose every blob event")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="[%(asctime)s] [%(threadName)s] %(levelname)s %(message)s",
    )
    for noisy in ("azure", "azure_functions_runtime", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if not options.settings.is_file():
        parser.error(f"{options.settings} is not there; see local.settings.sample.json")
    settings_file, app = options.settings.resolve(), options.app.resolve()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = Settings(settings_file, app)
        host = Host(Worker(app), settings)
        host.deliver_events = not options.no_events
        host.start()
    except AppFailed as error:
        print(f"The app did not start.\n{error}", file=sys.stderr, flush=True)
        return 1
    with serve(host.app, options.port) as server:
        found = {"url": server.url, "pid": os.getpid(), "functions": host.status()["functions"]}
        print(json.dumps(found), flush=True)
        while not stop.wait(0.5):
            pass
        host.stop()
    return 0


if __name__ == "__main__":
    code = main()
    # Threads of the worker and of pools would keep the process; what they had to end has ended.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
