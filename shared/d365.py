"""The D365 client: dequeue, download, acknowledge, enqueue, message status, execution errors.

Facts on the API come from Microsoft Learn, "Recurring integrations" (sections on dequeue, acknowledge,
enqueue, message status and Http vs Https) and "Data management package REST API"; where these are silent,
from the source of Microsoft's Recurring Integrations Scheduler. `docs/d365-api.md` has what we rely on.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from http.cookiejar import DefaultCookiePolicy
from threading import Lock
from typing import Any, Final, NewType, Protocol
from urllib.parse import quote, urljoin, urlsplit
from uuid import uuid4

import requests
import urllib3
from azure.core.exceptions import AzureError
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from shared import clock, telemetry
from shared.errors import D365Error, Denied, Rejected, Unavailable, Uncertain

MessageId = NewType("MessageId", str)

HEADERS: Final = {
    "OData-Version": "4.0",
    "OData-MaxVersion": "4.0",
    "Content-Type": "application/json;odata.metadata=minimal",
    "Accept": "application/json;odata.metadata=minimal",
    "Accept-Charset": "UTF-8",
    # A compressed answer would hide the length that we check, and nothing here gains by it.
    "Accept-Encoding": "identity",
    "User-Agent": "d365-blob-bridge",
}
"""Sent with every request to D365; `Authorization`, `Host` and the lengths are added to each."""

TIMEOUT: Final = (15.0, 300.0)
"""Seconds to connect, and between two reads of a transfer. D365 may take minutes over a large body."""

QUESTION_TIMEOUT: Final = (15.0, 120.0)
"""The same of what carries no file: with its further attempts it must leave a run its time."""

ATTEMPTS: Final = 4
LONGEST_WAIT: Final = 30.0
"""Seconds. A longer wait is not spent inside a run: the error says when to come back."""

LONGEST_ASKED: Final = 24 * 3600.0
"""Seconds. Whoever asks for a longer wait is asked again after these."""

KEYS_WAITS: Final = (1, 2, 4, 8, 8, 8)
"""Seconds to wait while D365 makes a file of error keys."""

_ANSWER_LIMIT: Final = 16 * 1024 * 1024
_PAGE_LIMIT: Final = 8 * 1024
"""Bytes of an answer that is no JSON, in which its words are looked for."""
_IDLE_LIMIT: Final = 30.0
_GUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_ODATA: Final = "/data/DataManagementDefinitionGroups/Microsoft.Dynamics.DataEntities."


@dataclass(frozen=True)
class DequeuedMessage:
    """A package that D365 offers."""

    correlation_id: str
    download_location: str
    """Empty where D365 could make no file; `problem` is then what it says of that."""
    body: bytes
    """The answer as it came, unknown fields included: it is what the acknowledgement sends back (E5)."""
    problem: str = ""


@dataclass(frozen=True)
class Download:
    """A package on its way: `read(n)` gives up to n bytes, b"" at the end."""

    read: Callable[[int], bytes]
    length: int | None
    """Bytes that D365 announced; None where it announced none."""


class Credential(Protocol):
    """What we need of an `azure-identity` credential."""

    def get_token(self, *scopes: str) -> Any:
        """A token with `.token`."""


class D365:
    """One D365 environment. Safe for use by several threads; connections and token are shared."""

    def __init__(self, url: str, new_credential: Callable[[], Credential]) -> None:
        """`url` is `https://host` without a slash at its end; `new_credential` makes a fresh credential."""
        self._url = url
        self._host = (urlsplit(url).hostname or "").lower()
        self._new_credential = new_credential
        self._credential = new_credential()
        self._lock = Lock()
        self._session = _session()
        self._resume_at = 0.0
        self._in_doubt = False

    # -- export -----------------------------------------------------------------------------------

    def dequeue(self, activity_id: str) -> DequeuedMessage | None:
        """Take the next message of an export job's queue; None when it is empty.

        Raises `D365Error`.
        """
        response = self._call("dequeue", "GET", f"/api/connector/dequeue/{_guid(activity_id)}")
        if response.status == 204 or not response.body.strip():
            return None
        fields = _json(response, "dequeue")
        if not fields:  # null, "", [] or {}: nothing that could be a message
            return None
        if not isinstance(fields, dict):
            raise Rejected(
                "dequeue", f"D365 answered with something else than a message: {fields!r}"
            )
        # Case is D365's to change, so it is not relied on.
        lower = {key.lower(): value for key, value in fields.items()}
        location, problem = lower.get("downloadlocation"), lower.get("filedownloaderrormessage")
        if not location or not isinstance(location, str):
            if not problem and not lower.get("popreceipt"):
                return None
            location = ""
        correlation_id = lower.get("correlationid")
        if not isinstance(correlation_id, str) or not correlation_id.strip():
            # The blob's name must follow from the message; the location's path stands in for the id.
            correlation_id = sha256(urlsplit(location).path.encode()).hexdigest()[:32]
        return DequeuedMessage(
            correlation_id.strip().strip("{}"), location, response.body, str(problem or "")
        )

    @contextmanager
    def download(self, message: DequeuedMessage) -> Iterator[Download]:
        """Open a package's download. Raises `D365Error`, also while it is read."""
        if not message.download_location:
            said = message.problem or "and does not say why"
            raise Rejected("download", f"D365 offers a message without a package: {said}")
        with self._fetch(message.download_location) as download:
            yield download

    @contextmanager
    def _fetch(self, location: str) -> Iterator[Download]:
        url, ours = self._download_url(location)
        if ours:
            self._keep_pause("download")
        with self._open("download", "GET", url, authorize=ours) as response:
            if response.status != 200:
                answer = _Answer(response.status, _drain("download", response))
                if not ours:
                    raise _refusal_elsewhere(url, answer, response.headers)
                refusal = _refusal("download", answer, response.headers)
                self._pause_after(refusal)
                raise refusal
            yield Download(_reader(response), _announced_length(response))

    def acknowledge(self, activity_id: str, message: DequeuedMessage) -> None:
        """Tell D365 that the package is stored: it is never offered again. Raises `D365Error`."""
        path = f"/api/connector/ack/{_guid(activity_id)}"
        self._call("acknowledge", "POST", path, message.body)

    def _download_url(self, location: str) -> tuple[str, bool]:
        """Where to fetch from, and whether the token may go there (A1).

        Behind a load balancer D365 gives `http://`; the same host is then asked over https, without the
        port (Microsoft Learn, "Recurring integrations", section Http vs Https).
        """
        try:
            absolute = urljoin(self._url + "/", location)
            parts = urlsplit(absolute)
            host, base = (parts.hostname or "").lower(), urlsplit(self._url)
            same_port = (parts.port or 443) == (base.port or 443)
        except ValueError as error:
            raise Rejected(
                "download", f"D365 gave a download location that is no URL: {error}"
            ) from error
        if host == self._host and (parts.scheme == "http" or same_port):
            return parts._replace(scheme=base.scheme, netloc=base.netloc).geturl(), True
        if parts.scheme != "https":
            where = f"{parts.scheme}://{host}"
            raise Rejected(
                "download", f"D365 gave a download location on {where}; only https is fetched"
            )
        return absolute, False

    # -- import -----------------------------------------------------------------------------------

    def enqueue(
        self,
        activity_id: str,
        body: Callable[[], Iterator[bytes]],
        length: int,
        *,
        entity: str | None,
        company: str | None,
        external_id: str,
    ) -> MessageId:
        """Send one file of `length` bytes; `body` opens it anew for each attempt.

        Raises `Refused` (D365 has surely not taken it) or `Uncertain` (nobody can know).
        """
        names = {"entity": entity, "company": company}
        query = "&".join(
            f"{name}={quote(value, safe='')}" for name, value in names.items() if value
        )
        path = f"/api/connector/enqueue/{_guid(activity_id)}" + (f"?{query}" if query else "")
        headers = {"x-ms-dyn-externalidentifier": external_id}
        if self._in_doubt:
            self._ask_first()
        try:
            return _message_id(self._call("enqueue", "POST", path, _Body(body, length), headers))
        except Uncertain:
            self._in_doubt = True
            raise

    def _ask_first(self) -> None:
        """Ask D365 for what does no harm (the status of no message) before the next file goes out.

        Where one send was lost, as in D365's maintenance, the next would be too: it waits until D365 itself
        answers, whatever it says. Raises `Refused`.
        """
        body = json.dumps({"messageId": str(uuid4())}).encode()
        url = f"{self._url}{_ODATA}GetMessageStatus"
        try:
            with self._open("enqueue", "POST", url, body) as response:
                answer = _Answer(response.status, _drain("enqueue", response))
        except Uncertain as error:
            raise Unavailable(
                "enqueue", f"not sent, D365 does not answer a question: {error}"
            ) from error
        if answer.status in (408, 429, 502, 503, 504):
            text = f"not sent, D365 is in trouble: it answers {answer.status} to a question: "
            trouble = Unavailable("enqueue", text + _said(answer.body), answer.status)
            trouble.retry_after = _retry_after(response.headers.get("Retry-After"))
            raise trouble
        self._in_doubt = False

    def message_status(self, message_id: MessageId) -> str:
        """The status of a message as D365 says it. Raises `D365Error`."""
        return _text_value(self._action("GetMessageStatus", {"messageId": message_id}))

    def job_status(self, activity_id: str, message_id: MessageId) -> dict[str, Any]:
        """The connector's own status of a message: state, execution id, log, counts for each entity.

        `DataJobStatus`, `ExecutionLog` and `ExecutionDetail` as in the Scheduler's source. Raises `D365Error`.
        """
        path = f"/api/connector/jobstatus/{_guid(activity_id)}?jobId={quote(message_id)}"
        found = _json(self._call("job status", "GET", path), "job status")
        if not isinstance(found, dict):
            raise Rejected("job status", "D365 answered with something else than a job status")
        return found

    def execution_errors(self, execution_id: str) -> Any:
        """D365's errors of an execution: a list of messages, as far as it is one. Raises `D365Error`."""
        text = _text_value(self._action("GetExecutionErrors", {"executionId": execution_id}))
        try:
            return _parsed(text)
        except ValueError:
            return text

    def execution_summary_url(self, execution_id: str) -> str:
        """D365's page for a person on an execution, on D365's own host. Raises `D365Error`.

        Microsoft Learn, "Data management package REST API", section GetExecutionSummaryPageUrl.
        """
        url = _text_value(self._action("GetExecutionSummaryPageUrl", {"executionId": execution_id}))
        if (urlsplit(url).hostname or "").lower() != self._host:
            raise Rejected("GetExecutionSummaryPageUrl", f"D365 gave a page elsewhere: {url}")
        return url

    @contextmanager
    def error_keys(self, execution_id: str, entity: str) -> Iterator[Download | None]:
        """The keys of an entity's records that did not come from staging into their table; None for none.

        Microsoft Learn, "Data management package REST API": GenerateImportTargetErrorKeysFile says whether
        there are any, GetImportTargetErrorKeysFileUrl gives the file's URL once it is made (a shared access
        signature on another host: our token does not go there). Raises `D365Error`.
        """
        arguments = {"executionId": execution_id, "entityName": entity}
        if _text_value(self._action("GenerateImportTargetErrorKeysFile", arguments)) != "true":
            yield None
            return
        for wait in KEYS_WAITS:
            url = _text_value(self._action("GetImportTargetErrorKeysFileUrl", arguments)).strip()
            if url not in ("", "null"):
                with self._fetch(url) as download:
                    yield download
                return
            clock.sleep(wait)
        raise Unavailable("error keys", f"D365 has not made the file in {sum(KEYS_WAITS)} seconds")

    def _action(self, name: str, arguments: Mapping[str, str]) -> "_Answer":
        return self._call(name, "POST", _ODATA + name, json.dumps(arguments).encode())

    # -- the wire ---------------------------------------------------------------------------------

    def _call(
        self,
        operation: str,
        method: str,
        path: str,
        body: "bytes | _Body | None" = None,
        headers: Mapping[str, str] | None = None,
    ) -> "_Answer":
        """A request with its answer; tried again while that can do no harm. Raises `D365Error`."""
        attempt = 1
        while True:
            self._keep_pause(operation)
            try:
                with self._open(operation, method, self._url + path, body, headers) as response:
                    answer = _Answer(response.status, _drain(operation, response))
                if not 200 <= answer.status < 300:
                    raise _refusal(operation, answer, response.headers)
                return answer
            except (Unavailable, Uncertain) as error:
                self._pause_after(error)
                # I2: of a file, only what was surely refused is sent again here.
                if isinstance(body, _Body) and isinstance(error, Uncertain):
                    raise
                _wait(operation, error, attempt)
                attempt += 1

    def _keep_pause(self, operation: str) -> None:
        """Wait as long as D365 asks. It counts an application's requests together: when it asks one to wait,
        all wait (A2). Raises `Unavailable` where that is longer than a run has."""
        pause = self._resume_at - clock.monotonic()
        if pause > LONGEST_WAIT:
            early = Unavailable(
                operation, f"not sent, D365 asks for {pause:.0f} s without requests"
            )
            early.retry_after = pause
            raise early
        if pause > 0:
            clock.sleep(pause)

    def _pause_after(self, error: D365Error) -> None:
        if error.status == 429:
            self._resume_at = clock.monotonic() + (error.retry_after or 1.0)

    @contextmanager
    def _open(
        self,
        operation: str,
        method: str,
        url: str,
        body: "bytes | _Body | None" = None,
        headers: Mapping[str, str] | None = None,
        *,
        authorize: bool = True,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """One request; a token that D365 refuses is renewed once (A2). Raises `D365Error`."""
        response = self._send(operation, method, url, body, headers, authorize=authorize)
        if response.status == 401 and authorize:
            response.close()
            with self._lock:
                self._credential = self._new_credential()
            response = self._send(operation, method, url, body, headers, authorize=True)
        try:
            yield response
        finally:
            # What is read to its end goes back to the pool; of the rest, only closing is safe.
            response.release_conn() if response.closed else response.close()

    def _send(
        self,
        operation: str,
        method: str,
        url: str,
        body: "bytes | _Body | None",
        headers: Mapping[str, str] | None,
        *,
        authorize: bool,
    ) -> urllib3.BaseHTTPResponse:
        token = self._token(operation) if authorize else None
        started = _Started(body) if isinstance(body, _Body) else None
        try:
            response = self._session.request(
                method,
                url,
                data=started or body,  # type: ignore[arg-type]  # any sized iterable of bytes is taken
                headers={**HEADERS, **(headers or {})},
                auth=_Bearer(token),
                timeout=TIMEOUT if started or operation == "download" else QUESTION_TIMEOUT,
                allow_redirects=False,
                stream=True,
            )
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            AzureError,
            OSError,
        ) as error:
            if started and started.broke_off:
                # Shorter than its Content-Length, which a server does not take for a whole request.
                said = (str(error) or type(error).__name__).splitlines()[0]
                why = f"not sent, the file could not be read to its end from storage: {said}"
                raise Unavailable(operation, why) from error
            # Without a body's first byte D365 has nothing; after it, nobody can know (I2).
            reached = started.begun if started else not _never_connected(error)
            raise (Uncertain if reached else Unavailable)(
                operation, _unreached(url, error)
            ) from error
        raw: urllib3.BaseHTTPResponse = response.raw
        return raw

    def _token(self, operation: str) -> str:
        try:
            with self._lock:  # threads that need the first token at once ask for one
                return str(self._credential.get_token(f"{self._url}/.default").token)
        except AzureError as error:
            telemetry.report("d365.denied", level=40, operation=operation, error=str(error))
            why = (
                f"no token for {self._url} could be had: {error}. Check the app's managed identity"
            )
            raise Denied(operation, why) from error


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes


@dataclass(frozen=True)
class _Body:
    """A file to send: `open` gives its bytes anew for each attempt."""

    open: Callable[[], Iterator[bytes]]
    length: int


class _Started:
    """A body being sent: its length goes into `Content-Length`, and it knows whether it was begun."""

    def __init__(self, body: _Body) -> None:
        self._body = body
        self.begun = False
        self.broke_off = False

    def __len__(self) -> int:
        return self._body.length

    def __iter__(self) -> Iterator[bytes]:
        given = 0
        try:
            for chunk in self._body.open():
                self.begun = True
                given += len(chunk)
                yield chunk
        except (AzureError, OSError):
            self.broke_off = given < self._body.length
            raise


class _Bearer(requests.auth.AuthBase):
    """The token, or none. As an `auth` it keeps requests from putting a .netrc password in its place."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _FreshPool(HTTPConnectionPool):
    """A pool that reuses no connection idle for long: Azure's load balancers drop these without a word,
    and a file sent into one would be a file of which nobody knows whether it arrived."""

    def _validate_conn(self, conn: Any) -> None:
        super()._validate_conn(conn)
        if conn.is_closed:
            conn.connect()
        # urllib3 would keep to the time for connecting until the whole body is sent.
        conn.timeout = TIMEOUT[1]

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)
        if time.monotonic() - getattr(conn, "idle_since", time.monotonic()) > _IDLE_LIMIT:
            conn.close()
        return conn


class _FreshTlsPool(_FreshPool, HTTPSConnectionPool):
    """The same over TLS."""


def _session() -> requests.Session:
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = HTTPAdapter(pool_connections=4, pool_maxsize=64)
    adapter.poolmanager.pool_classes_by_scheme = {"http": _FreshPool, "https": _FreshTlsPool}
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return session


def _guid(activity_id: str) -> str:
    return quote(activity_id.strip("{}"), safe="")


def _never_connected(error: Exception) -> bool:
    causes = (error, *error.args, *(getattr(arg, "reason", None) for arg in error.args))
    kinds = (
        requests.exceptions.ConnectTimeout,
        requests.exceptions.ProxyError,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.NameResolutionError,
    )
    return any(isinstance(cause, kinds) for cause in causes)


def _unreached(url: str, error: Exception) -> str:
    """What a person needs of it: the innermost cause, not the layers of libraries around it."""
    cause: BaseException = error
    while inner := next(
        (
            each
            for each in (getattr(cause, "reason", None), *cause.args, cause.__cause__)
            if isinstance(each, BaseException)
        ),
        None,
    ):
        cause = inner
    said = re.sub(r"^<[^>]*>: |'?<[^>]* object at [^>]*>'?[:,]? ?", "", str(cause))
    return f"no answer from {urlsplit(url).netloc}: {said or type(cause).__name__}"


def _wait(operation: str, error: Unavailable | Uncertain, attempt: int) -> None:
    """Wait before the next attempt, or raise the error: too many, or D365 asks for more than a run has."""
    asked = error.retry_after
    seconds = asked if asked is not None else min(2.0**attempt, 8.0) * random.uniform(0.5, 1.0)
    if attempt >= ATTEMPTS or seconds > LONGEST_WAIT:
        raise error
    telemetry.report(
        "d365.retry",
        level=30,
        operation=operation,
        error=str(error),
        attempt=attempt,
        waitSeconds=round(seconds, 1),
    )
    clock.sleep(seconds)


def _drain(operation: str, response: urllib3.BaseHTTPResponse) -> bytes:
    """The whole answer. Raises `Uncertain` where it breaks off: what was asked may have been done."""
    try:
        body = response.read(_ANSWER_LIMIT + 1, decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        if 300 <= response.status < 500:  # turned down, whatever it would have said of that
            return b""
        raise Uncertain(operation, f"D365's answer broke off: {error}", response.status) from error
    if len(body) > _ANSWER_LIMIT:
        raise Uncertain(operation, "D365's answer is larger than any that it should give")
    return body


def _reader(response: urllib3.BaseHTTPResponse) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        try:
            return response.read(size, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable("download", f"the package broke off on its way: {error}") from error

    return read


def _announced_length(response: urllib3.BaseHTTPResponse) -> int | None:
    """The package's length, as far as the answer says: an encoded answer's length is another one."""
    text = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")
    return int(text) if text.isdecimal() and not encoded else None


def _refusal(operation: str, answer: _Answer, headers: Mapping[str, str]) -> D365Error:
    """The error for an answer that is no success."""
    status, said = answer.status, _said(answer.body)
    retry_after = _retry_after(headers.get("Retry-After"))
    kind = verdict(
        status, from_d365=said_by_d365(answer.body), asks_to_wait=retry_after is not None
    )
    text = f"D365 answered {status}" + (f": {said.rstrip('.')}" if said else "")
    todo = _TODO.get(300 if 300 <= status < 400 else status)
    error = kind(operation, f"{text}. {todo}" if todo else text, status)
    error.retry_after = retry_after
    if isinstance(error, Denied):
        telemetry.report("d365.denied", level=40, operation=operation, error=str(error))
    return error


def _refusal_elsewhere(url: str, answer: _Answer, headers: Mapping[str, str]) -> Unavailable:
    """The same of a host that is not D365's, at which we are nobody: its signed URL may have run out."""
    text = f"{urlsplit(url).hostname} answered {answer.status}: {_said(answer.body) or 'nothing'}"
    error = Unavailable("download", text, answer.status)
    error.retry_after = _retry_after(headers.get("Retry-After"))
    return error


def verdict(status: int, *, from_d365: bool, asks_to_wait: bool) -> type[D365Error]:
    """What an answer that is no success proves: did D365 do what we asked? (I2)

    `from_d365`: it has D365's own error body; `asks_to_wait`: it has `Retry-After`. `docs/reliability.md` gives
    the reason for each line; `tests/faults/sending.py` tries each.
    """
    match status:
        case 401 | 403:
            return Denied
        case 408 | 429:
            return Unavailable
        case 500 | 503 if from_d365 or asks_to_wait:
            # Its own words, or a wish to wait, come from a server that has turned the request down.
            return Unavailable
        case _ if status >= 500:
            # A gateway between, whatever it says, does not know what became of the request behind it.
            return Uncertain
        case _:
            return Rejected


_TODO: Final = {
    300: "That is a redirect, as a sign-in page or an on-premises system gives: check D365_URL",
    401: "It does not accept the token: check that D365_URL is this environment's own address",
    403: "It does not know the application, or its user may not do this: register the client id under "
    "System administration > Setup > Microsoft Entra applications, and allow it in the recurring data job's "
    "authorisation policy",
    404: "Is the activity id that of a recurring data job in this environment, and enabled?",
    413: "The file is larger than D365 takes in one request: split it, or zip it as a data package",
}


def _retry_after(text: str | None) -> float | None:
    """Seconds to wait, from either form of the header (RFC 9110, section 10.2.3)."""
    if not text:
        return None
    try:
        if text.strip().isdecimal():
            seconds = float(text)
        else:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(0.0, seconds), LONGEST_ASKED)


def said_by_d365(body: bytes) -> bool:
    """Whether a body is one of D365's own error bodies (not a gateway's page)."""
    try:
        found = _parsed(body)
    except ValueError:
        return False
    keys = {key.lower() for key in found} if isinstance(found, dict) else set()
    # With a status code beside the message it is an API gateway's.
    return "statuscode" not in keys and bool(
        keys & {"error", "message", "exceptionmessage", "odata.error"}
    )


def _said(body: bytes) -> str:
    """What an error body says, in at most 500 characters."""
    text = body[:_PAGE_LIMIT].decode("utf-8", "replace")
    try:
        found = _parsed(body)
        if isinstance(found, dict):
            error = found.get("error", found.get("odata.error", found))
            inner = error.get("innererror") if isinstance(error, dict) else None
            parts = [
                part[key].get("value") if isinstance(part[key], dict) else part[key]
                for part in (error, inner)
                if isinstance(part, dict)
                for key in ("code", "message", "Message", "ExceptionMessage")
                if part.get(key)
            ]
            text = "; ".join(map(str, parts)) or text
    except ValueError:
        text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
    return " ".join(text.split())[:500]


def _parsed(text: str | bytes) -> Any:
    """JSON, of which all text can be written. Raises `ValueError`, also where it is nested beyond all sense."""
    try:
        found = json.loads(text)
        # Half a surrogate pair is JSON, but not UTF-8: it would break whoever writes it down.
        return json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _json(answer: _Answer, operation: str) -> Any:
    try:
        return _parsed(answer.body)
    except ValueError as error:
        raise Rejected(operation, f"D365's answer is not JSON: {_said(answer.body)}") from error


def _text_value(answer: _Answer) -> str:
    """The `value` of an OData action's answer, which stands directly or nested ([P] shows both)."""
    value = _json(answer, "D365")
    while isinstance(value, dict) and "value" in value:
        value = value["value"]
    return value if isinstance(value, str) else json.dumps(value)


def _message_id(answer: _Answer) -> MessageId:
    """The message id of an enqueue's answer: a GUID, bare, quoted, in braces, or in an OData `value`."""
    text = answer.body.decode("utf-8", "replace").strip()
    try:
        found = _parsed(text)
        while isinstance(found, dict) and "value" in found:
            found = found["value"]
        text = found if isinstance(found, str) else text
    except ValueError:
        pass
    text = text.strip().strip("\"'{}")
    if not _GUID.fullmatch(text) or not text.strip("0-"):
        said = (
            f"D365 answered {answer.status} without a message id: {_said(answer.body) or 'nothing'}"
        )
        raise Uncertain("enqueue", said, answer.status)
    return MessageId(text)
