"""A D365 environment on loopback, as far as `docs/d365-api.md` says what one does, with its identity endpoint.

It keeps to the contract and, on request, breaks it: faults make it answer wrongly, late, in part or not at
all. Everything that it was asked and everything that it took is recorded, so that a test can compare both.

`python -m local.simulator [--port N]` serves it alone; `/control/...` then stands for `Simulator`'s methods.
"""

import argparse
import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote
from uuid import UUID, uuid4

from local.serving import reset, serve

CHUNK: Final = 512 * 1024
KEPT: Final = 1024 * 1024
"""Bodies up to this many bytes are searched for `reject_text`."""

RUNNING: Final = ("Enqueued", "Processing")
IDENTITY_HEADER: Final = "local-identity-header"

type Json = dict[str, Any]


@dataclass
class Package:
    """What an export job offers."""

    activity_id: str
    content: bytes | Path
    correlation_id: str = field(default_factory=lambda: str(uuid4()))
    location: str = "{base}/api/connector/download/{activity}/{correlation}"
    """The download location to give, with {base}, {host}, {activity} and {correlation}."""
    pop_receipt: str = ""
    offered: int = 0
    offered_at: float = 0.0
    acknowledged: int = 0
    answer: bytes = b""
    acknowledgements: list[Json] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        if isinstance(self.content, Path):
            with self.content.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        else:
            for start in range(0, len(self.content), CHUNK):
                yield self.content[start : start + CHUNK]


@dataclass
class Received:
    """A file that D365 has taken."""

    message_id: str
    activity_id: str
    entity: str | None
    company: str | None
    external_id: str
    sha256: str
    length: int
    headers: dict[str, str]
    statuses: deque[str]
    errors: list[str]
    began: float
    """When its first byte was waited for; like the other times as `time.time()` says it."""
    taken: float
    """When all of it was there."""
    ended: float = 0.0
    """When its final status was first told; 0 while nobody was."""
    execution_id: str = field(default_factory=lambda: f"DMF-{uuid4().hex[:12].upper()}")
    status: str = "Enqueued"
    polls: int = 0


@dataclass
class Fault:
    """Something that goes wrong with the next `times` requests of an operation (-1: with all).

    `do` is one of: `answer` (status, headers, body) instead of serving; `answer-after`: serve, then this
    answer; `reset`: before the body is read; `reset-during`: after `bytes` of the body, either way;
    `reset-after`: serve, but the answer is lost; `delay` (seconds), then serve; `hang`: no answer for
    `seconds`; and of a download `truncate` (after `bytes`, the length was announced), `truncate-silently` (no
    length was), `corrupt` (the byte at `bytes` is flipped), `chunked`, `gzip`, `longer` (announces one byte
    more than comes and ends).
    """

    operation: str
    do: str
    times: int = 1
    skip: int = 0
    activity_id: str | None = None
    path: str = ""
    """Only requests whose path holds this."""
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    bytes: int = 0
    seconds: float = 0.0


@dataclass
class Recorded:
    """A request, as it came."""

    operation: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in the case that they came in; the token itself is left out."""
    authorized: bool
    status: int = 0
    """What it was answered; 0 for not at all."""
    length: int = 0


class Simulator:
    """The state of the environment; `app` serves it (ASGI)."""

    def __init__(self) -> None:
        self.base_url = ""
        self.reset()

    def reset(self) -> None:
        """Forget everything but the URL."""
        self.export_jobs: set[str] = set()
        self.import_jobs: set[str] = set()
        self.packages: list[Package] = []
        self.received: list[Received] = []
        self.aborted = 0
        self.faults: list[Fault] = []
        self.requests: list[Recorded] = []
        self.latency: dict[str, float] = {}
        self.reoffer_seconds = 1800.0
        self.strict_receipts = True
        self.registered = True
        self.largest_body = 1 << 62
        self.message_id_form = '"{}"'
        self.statuses: tuple[str, ...] = (*RUNNING, "Processed")
        self.reject_text = b"REJECT"
        self.reject_errors = ["The journal does not balance.", "Account 999999 does not exist."]
        self.keys_polls = 1
        """So often the URL of an error keys file is asked for in vain."""
        self.keys_location = "{base}/keys/{execution}/{entity}?sv=2026-01-01&sig=S3cretS1gnature"
        self.tokens: dict[str, tuple[str, float]] = {}
        self.token_seconds = 3600.0

    # -- what a test or the demo does --------------------------------------------------------------

    def add_export_job(self, activity_id: str) -> None:
        """A recurring export job."""
        self.export_jobs.add(activity_id.lower())

    def add_import_job(self, activity_id: str) -> None:
        """A recurring import job."""
        self.import_jobs.add(activity_id.lower())

    def add_package(self, activity_id: str, content: bytes | Path, **options: Any) -> Package:
        """Put a package on an export job's queue; `options` are fields of `Package`."""
        self.add_export_job(activity_id)
        package = Package(activity_id.lower(), content, **options)
        self.packages.append(package)
        return package

    def add_fault(self, operation: str, do: str, **options: Any) -> Fault:
        """Let something go wrong; `options` are fields of `Fault`."""
        fault = Fault(operation, do, **options)
        self.faults.append(fault)
        return fault

    def revoke_tokens(self) -> None:
        """Every token that was issued is refused from now on."""
        self.tokens.clear()

    def count(self, operation: str) -> int:
        """How many requests of an operation came."""
        return sum(request.operation == operation for request in self.requests)

    def state(self) -> Json:
        """Everything, as JSON."""
        return {
            "packages": [
                {
                    "activityId": p.activity_id,
                    "correlationId": p.correlation_id,
                    "bytes": p.size,
                    "sha256": p.sha256,
                    "offered": p.offered,
                    "acknowledged": p.acknowledged,
                    "acknowledgements": p.acknowledgements,
                }
                for p in self.packages
            ],
            "received": [{**asdict(r), "statuses": list(r.statuses)} for r in self.received],
            "aborted": self.aborted,
            "requests": [asdict(request) for request in self.requests],
        }

    # -- the wire -----------------------------------------------------------------------------------

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send)
        if scope["path"].startswith("/control/"):
            await self._control(exchange)
            return
        operation, activity_id, serve_it = self._route(exchange)
        wire = scope["wire_headers"]
        authorized = self._authorized(exchange)
        record = Recorded(
            operation,
            scope["method"],
            scope["path"],
            scope["query_string"].decode(),
            {name: value for name, value in wire if name.lower() != "authorization"},
            authorized,
        )
        self.requests.append(record)
        exchange.record = record
        if seconds := self.latency.get(operation, self.latency.get("*", 0.0)):
            await asyncio.sleep(seconds)
        exchange.fault = fault = self._fault(operation, activity_id, scope["path"])
        with contextlib.suppress(_Gone):
            if fault and await self._instead(exchange, fault):
                return
            if operation not in ("token", "error_keys") and not await self._admit(
                exchange, authorized
            ):
                return
            if serve_it is None:
                await exchange.error(404, f"No resource was found for {scope['path']}")
            else:
                await serve_it(exchange, activity_id)

    def _route(self, exchange: "_Exchange") -> tuple[str, str, "_Serve | None"]:
        path = unquote(exchange.scope["path"])
        if path == "/msi/token":
            return "token", "", self._token
        if path.startswith("/keys/"):
            exchange.rest = path.split("/")[2]
            return "error_keys", "", self._error_keys
        match = re.fullmatch(r"/api/connector/(\w+)/\{?([0-9A-Fa-f-]+)\}?(?:/(.+))?", path)
        routes: dict[str, tuple[str, str, _Serve]] = {
            "dequeue": ("GET", "dequeue", self._dequeue),
            "download": ("GET", "download", self._download),
            "ack": ("POST", "acknowledge", self._acknowledge),
            "enqueue": ("POST", "enqueue", self._enqueue),
            "jobstatus": ("GET", "job_status", self._job_status),
        }
        if match and match[1] in routes:
            method, operation, serve_it = routes[match[1]]
            exchange.rest = match[3] or ""
            return (
                operation,
                match[2].lower(),
                serve_it if exchange.scope["method"] == method else None,
            )
        if path.startswith("/data/DataManagementDefinitionGroups/Microsoft.Dynamics.DataEntities."):
            exchange.rest = path.rsplit(".", 1)[1]
            kinds = {"GetMessageStatus": "message_status", "GetExecutionErrors": "execution_errors"}
            return kinds.get(exchange.rest, "action"), "", self._action
        return "unknown", "", None

    def _authorized(self, exchange: "_Exchange") -> bool:
        token = exchange.headers.get("authorization", "").removeprefix("Bearer ")
        audience, expires = self.tokens.get(token, ("", 0.0))
        return audience == self.base_url and time.time() < expires

    async def _admit(self, exchange: "_Exchange", authorized: bool) -> bool:
        if not authorized:
            await exchange.drain()
            header = {"WWW-Authenticate": f'Bearer resource="{self.base_url}"'}
            await exchange.answer(401, b"", header)
        elif not self.registered:
            await exchange.drain()
            text = "The application is not registered in Dynamics 365, or its user is disabled."
            await exchange.error(403, text)
        return authorized and self.registered

    # -- faults -------------------------------------------------------------------------------------

    def _fault(self, operation: str, activity_id: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.operation not in (operation, "*") or fault.times == 0:
                continue
            if fault.activity_id and fault.activity_id.lower() != activity_id:
                continue
            if fault.path not in path:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            return fault
        return None

    async def _instead(self, exchange: "_Exchange", fault: Fault) -> bool:
        """Whether the fault was all that the request gets."""
        if fault.do == "answer":
            await exchange.drain()
            await exchange.answer(fault.status, fault.body.encode(), fault.headers)
        elif fault.do == "reset":
            reset(exchange.scope)
        elif fault.do == "hang":
            await asyncio.sleep(fault.seconds)
            reset(exchange.scope)
        elif fault.do == "delay":
            await asyncio.sleep(fault.seconds)
            return False
        elif fault.do == "reset-during" and exchange.scope["method"] == "POST":
            taken = 0
            async for chunk in exchange.body():
                taken += len(chunk)
                if taken >= fault.bytes:
                    break
            self.aborted += 1
            reset(exchange.scope)
        else:
            return False
        return True

    # -- export -------------------------------------------------------------------------------------

    async def _dequeue(self, exchange: "_Exchange", activity_id: str) -> None:
        if activity_id not in self.export_jobs:
            await exchange.error(404, f"The data job {activity_id} does not exist.")
            return
        now = time.monotonic()
        for package in self.packages:
            if package.activity_id != activity_id or package.acknowledged:
                continue
            if package.offered and now - package.offered_at < self.reoffer_seconds:
                continue
            package.offered += 1
            package.offered_at = now
            package.pop_receipt = uuid4().hex
            host = self.base_url.split("//")[1].rsplit(":", 1)[0]
            location = package.location.format(
                base=self.base_url,
                host=host,
                activity=activity_id,
                correlation=package.correlation_id,
            )
            package.answer = json.dumps(
                {
                    "CorrelationId": package.correlation_id,
                    "PopReceipt": package.pop_receipt,
                    "DownloadLocation": location,
                    "IsDownLoadFileExist": True,
                    "FileDownLoadErrorMessage": "",
                    "LastDequeueDateTime": None if package.offered == 1 else "2026-11-23T00:00:00",
                },
                indent=1,  # D365's spacing is not known, so an echo must be of the bytes
            ).encode()
            await exchange.answer(200, package.answer, {"Content-Type": "application/json"})
            return
        await exchange.answer(204, b"")

    async def _download(self, exchange: "_Exchange", activity_id: str) -> None:
        found = [p for p in self.packages if p.correlation_id == exchange.rest]
        if not found:
            await exchange.error(404, "The package does not exist or has expired.")
            return
        package, fault = found[-1], exchange.fault
        do = fault.do if fault else ""
        chunks: Iterator[bytes] = package.chunks()
        length: int | None = package.size
        headers = {"Content-Type": "application/octet-stream"}
        stop = -1
        if fault and do == "corrupt":
            chunks = _flipped(chunks, fault.bytes)
        elif do == "gzip":
            chunks = iter([gzip.compress(b"".join(chunks), 1)])
            headers["Content-Encoding"] = "gzip"
            length = None
        elif do == "longer":
            length = package.size + 1
        elif do in ("chunked", "truncate-silently"):
            length = None
        if fault and do in ("truncate", "truncate-silently", "reset-during"):
            stop = fault.bytes
        if length is not None:
            headers["Content-Length"] = str(length)
        await exchange.begin(200, headers)
        sent = 0
        for chunk in chunks:
            part = chunk if stop < 0 else chunk[: stop - sent]
            if part:
                await exchange.more(part)
            sent += len(part)
            if 0 <= stop <= sent:
                break
        if do == "reset-during":
            reset(exchange.scope)
        elif do in ("truncate", "longer"):
            exchange.scope["transport"].close()
        else:
            await exchange.more(b"", last=True)

    async def _acknowledge(self, exchange: "_Exchange", activity_id: str) -> None:
        raw = b"".join([chunk async for chunk in exchange.body()])
        exchange.length = len(raw)
        try:
            said = json.loads(raw)
            correlation_id, receipt = said["CorrelationId"], said["PopReceipt"]
        except (ValueError, KeyError, TypeError):
            await exchange.error(400, "The acknowledgement is not a dequeue response.")
            return
        for package in self.packages:
            if (package.activity_id, package.correlation_id) == (activity_id, correlation_id):
                same = {"asItCame": raw == package.answer, "receipt": receipt}
                if self.strict_receipts and receipt != package.pop_receipt:
                    await exchange.error(400, "The pop receipt is not valid any more.")
                    return
                package.acknowledgements.append(same)
                package.acknowledged += 1
                await self._finish(exchange, 200, b"")
                return
        await exchange.error(404, "The message does not exist.")

    # -- import -------------------------------------------------------------------------------------

    async def _enqueue(self, exchange: "_Exchange", activity_id: str) -> None:
        if activity_id not in self.import_jobs:
            await exchange.drain()
            await exchange.error(404, f"The data job {activity_id} does not exist.")
            return
        began = time.time()
        digest, length, kept = hashlib.sha256(), 0, bytearray()
        announced = exchange.headers.get("content-length")
        try:
            async for chunk in exchange.body():
                digest.update(chunk)
                length += len(chunk)
                if length <= KEPT:
                    kept += chunk
                if length > self.largest_body:
                    await exchange.drain()
                    await exchange.answer(413, b"<html>Request Entity Too Large</html>")
                    return
        except _Gone:
            self.aborted += 1
            raise
        if announced is not None and int(announced) != length:
            self.aborted += 1
            return
        exchange.length = length
        query = parse_qs(exchange.scope["query_string"].decode())
        rejected = bool(self.reject_text) and self.reject_text in kept
        ends = (*self.statuses[:-1], "ProcessedWithErrors") if rejected else self.statuses
        received = Received(
            message_id=str(uuid4()),
            activity_id=activity_id,
            entity=query.get("entity", [None])[0],
            company=query.get("company", [None])[0],
            external_id=exchange.headers.get("x-ms-dyn-externalidentifier", ""),
            sha256=digest.hexdigest(),
            length=length,
            headers=exchange.record.headers if exchange.record else {},
            statuses=deque(ends),
            errors=list(self.reject_errors) if rejected else [],
            began=began,
            taken=time.time(),
        )
        self.received.append(received)
        body = self.message_id_form.format(received.message_id).encode()
        await self._finish(exchange, 200, body, {"Content-Type": "application/json"})

    async def _action(self, exchange: "_Exchange", _: str) -> None:
        try:
            said = json.loads(b"".join([chunk async for chunk in exchange.body()]) or b"{}")
        except ValueError:
            await exchange.odata_error(400, "The request body is not valid JSON.")
            return
        if exchange.rest == "GetMessageStatus":
            received = self._by(lambda r: r.message_id == said.get("messageId"))
            if received is None:
                await exchange.odata_error(404, "No message with this id was found.")
                return
            received.polls += 1
            received.status = received.statuses[0]
            if len(received.statuses) > 1:
                received.statuses.popleft()
            else:
                received.ended = received.ended or time.time()
            await exchange.value(self.base_url, received.status)
        elif exchange.rest == "GetExecutionErrors":
            wanted = said.get("executionId")
            received = self._by(lambda r: wanted in (r.execution_id, r.message_id))
            errors = received.errors if received else []
            await exchange.value(self.base_url, json.dumps(errors))
        elif exchange.rest == "GenerateImportTargetErrorKeysFile":
            received = self._by(lambda r: r.execution_id == said.get("executionId"))
            await exchange.value(self.base_url, bool(received and received.errors))
        elif exchange.rest == "GetImportTargetErrorKeysFileUrl":
            execution, entity = quote(str(said["executionId"])), quote(str(said["entityName"]))
            url = self.keys_location.format(base=self.base_url, execution=execution, entity=entity)
            await exchange.value(self.base_url, "" if self.keys_polls else url)
            self.keys_polls = max(0, self.keys_polls - 1)
        elif exchange.rest == "GetExecutionSummaryPageUrl":
            page = f"{self.base_url}/?cmp=DAT&executionId={quote(str(said.get('executionId')))}"
            await exchange.value(self.base_url, page)
        else:
            await exchange.odata_error(404, f"No action {exchange.rest}.")

    async def _job_status(self, exchange: "_Exchange", activity_id: str) -> None:
        query = parse_qs(exchange.scope["query_string"].decode())
        wanted = query.get("jobId", [""])[0]
        received = self._by(lambda r: r.message_id == wanted and r.activity_id == activity_id)
        if received is None:
            await exchange.error(404, "The message does not exist.")
            return
        bad = len(received.errors)
        state = "Error" if bad else "Finished"
        found = {
            "DataJobStatus": {
                "DataProject": "Recurring import",
                "DataJobIdentifier": received.message_id,
                "ExternalIdentifier": received.external_id,
                "ExecutionIdentifier": received.execution_id,
                "DataJobStartedDateTime": "2026-11-23T12:00:00",
                "DataJobCompletedDateTime": "2026-11-23T12:00:30",
                "DataJobState": received.status,
            },
            "ExecutionLog": "\n".join(received.errors) or "The import has ended.",
            "ExecutionDetail": [
                {
                    "EntityName": received.entity or "Data package",
                    "Company": received.company or "DAT",
                    "StagingRecords": 20,
                    "StagingStatus": "Finished",
                    "StagingErrorCount": 0,
                    "TargetRecords": 20 - bad,
                    "TargetStatus": state,
                    "TargetErrorCount": bad,
                }
            ],
        }
        await exchange.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    async def _error_keys(self, exchange: "_Exchange", _: str) -> None:
        """A file in D365's own storage, which takes a signature and no token."""
        if "sig=" not in exchange.scope["query_string"].decode():
            await exchange.answer(403, b"<Error><Code>AuthenticationFailed</Code></Error>")
            return
        await exchange.answer(200, f"LINENUMBER\r\n17 of {exchange.rest}\r\n".encode())

    def _by(self, test: Callable[[Received], bool]) -> Received | None:
        return next((received for received in self.received if test(received)), None)

    async def _finish(
        self, exchange: "_Exchange", status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """The answer to what has been done, unless a fault eats it."""
        fault = exchange.fault
        if fault and fault.do == "reset-after":
            reset(exchange.scope)
        elif fault and fault.do == "answer-after":
            await exchange.answer(fault.status, fault.body.encode(), fault.headers)
        else:
            await exchange.answer(status, body, headers)

    # -- identity -----------------------------------------------------------------------------------

    async def _token(self, exchange: "_Exchange", _: str) -> None:
        """The App Service managed-identity endpoint (Microsoft Learn, "How to use managed identities for App
        Service and Azure Functions", section REST endpoint reference)."""
        if exchange.headers.get("x-identity-header") != IDENTITY_HEADER:
            await exchange.error(401, "The identity header is wrong.")
            return
        resource = parse_qs(exchange.scope["query_string"].decode()).get("resource", [""])[0]
        expires = time.time() + self.token_seconds
        token = _unsigned_jwt(resource, expires)
        self.tokens[token] = (resource.rstrip("/"), expires)
        found = {
            "access_token": token,
            "expires_on": str(int(expires)),
            "resource": resource,
            "token_type": "Bearer",
        }
        await exchange.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    # -- control ------------------------------------------------------------------------------------

    async def _control(self, exchange: "_Exchange") -> None:
        raw = b"".join([chunk async for chunk in exchange.body()])
        said = json.loads(raw or b"{}")
        what = exchange.scope["path"].removeprefix("/control/")
        result: Any = None
        if what == "state":
            result = self.state()
        elif what == "package":
            content: bytes | Path = (
                Path(said.pop("file")) if "file" in said else said.pop("text").encode("latin-1")
            )
            result = self.add_package(said.pop("activity_id"), content, **said).correlation_id
        elif what == "fault":
            self.add_fault(said.pop("operation"), said.pop("do"), **said)
        elif what == "settings":
            for name, value in said.items():
                setattr(self, name, type(getattr(self, name))(value))
        else:
            do = {
                "export-job": self.add_export_job,
                "import-job": self.add_import_job,
            }.get(what)
            if do:
                do(said["activity_id"])
            elif what == "clear-faults":
                self.faults.clear()
            elif what == "reset":
                self.reset()
            else:
                await exchange.error(404, f"no control {what}")
                return
        await exchange.answer(
            200, json.dumps(result).encode(), {"Content-Type": "application/json"}
        )


def _unsigned_jwt(audience: str, expires: float) -> str:
    """A token of Entra's form. Azurite reads its claims, and checks no signature."""
    claims = {
        "aud": audience.rstrip("/"),
        "iss": f"https://sts.windows.net/{UUID(int=1)}/",
        "iat": int(time.time()) - 60,
        "nbf": int(time.time()) - 60,
        "exp": int(expires),
        "jti": uuid4().hex,
    }
    parts = [{"typ": "JWT", "alg": "RS256"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"unsigned"]).decode()


class _Gone(Exception):
    """The client is gone."""


class _Exchange:
    """A request with its answer."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self.rest = ""
        self.fault: Fault | None = None
        self.record: Recorded | None = None
        self.length = 0
        self._ended = False

    async def body(self) -> AsyncIterator[bytes]:
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            self._ended = not message.get("more_body", False)
            yield message.get("body", b"")

    async def drain(self) -> None:
        async for _ in self.body():
            pass

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        if self.record:
            self.record.status, self.record.length = status, self.length
        pairs = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def more(self, chunk: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not last})

    async def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        length = {} if status == 204 else {"Content-Length": str(len(body))}
        await self.begin(status, {**length, **(headers or {})})
        await self.more(body, last=True)

    async def error(self, status: int, text: str) -> None:
        """An error as the connector gives it."""
        await self.drain()
        body = {"Message": "An error has occurred.", "ExceptionMessage": text}
        await self.answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    async def odata_error(self, status: int, text: str) -> None:
        """An error as the OData service gives it."""
        body = {
            "error": {
                "code": "",
                "message": "An error has occurred.",
                "innererror": {"message": text},
            }
        }
        await self.answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    async def value(self, base: str, value: str | bool) -> None:
        body = {"@odata.context": f"{base}/data/$metadata#Edm.String", "value": value}
        await self.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})


type _Serve = Callable[[_Exchange, str], Any]


def _flipped(chunks: Iterator[bytes], at: int) -> Iterator[bytes]:
    seen = 0
    for chunk in chunks:
        if seen <= at < seen + len(chunk):
            changed = bytearray(chunk)
            changed[at - seen] ^= 0xFF
            yield bytes(changed)
        else:
            yield chunk
        seen += len(chunk)


@contextlib.contextmanager
def running_simulator(port: int = 0) -> Iterator[Simulator]:
    """A simulator served from a thread of this process."""
    simulator = Simulator()
    with serve(simulator.app, port) as server:
        simulator.base_url = server.url
        yield simulator


def identity_settings(simulator: Simulator) -> dict[str, str]:
    """The environment in which `azure-identity` takes its tokens from the simulator."""
    return {
        "IDENTITY_ENDPOINT": f"{simulator.base_url}/msi/token",
        "IDENTITY_HEADER": IDENTITY_HEADER,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a simulator until interrupted; the first line on stdout says where."""
    parser = argparse.ArgumentParser(description="A D365 environment on loopback.")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    with running_simulator(options.port) as simulator:
        print(json.dumps({"url": simulator.base_url, **identity_settings(simulator)}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
