"""The way to D365: session, connection pools, token, throttling, attempts."""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from threading import Lock
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import requests
import urllib3
from azure.core.exceptions import AzureError
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from shared import clock, telemetry
from shared.d365.errors import D365Error, Denied, Unavailable, Uncertain
from shared.d365.responses import Response, drain, refusal

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

_IDLE_LIMIT: Final = 30.0


class Credential(Protocol):
    """What we need of an `azure-identity` credential."""

    def get_token(self, *scopes: str) -> Any:
        """A token with `.token`."""


@dataclass(frozen=True)
class Body:
    """A file to send: `open` gives its bytes anew for each attempt."""

    open: Callable[[], Iterator[bytes]]
    length: int


class Transport:
    """Requests to one D365 environment. Safe for use by several threads; connections and token are shared."""

    def __init__(self, url: str, new_credential: Callable[[], Credential]) -> None:
        """`url` is `https://host` without a slash at its end; `new_credential` makes a fresh credential."""
        self.url = url
        self._new_credential = new_credential
        self._credential = new_credential()
        self._lock = Lock()
        self._session = _session()
        self._resume_at = 0.0

    def call(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes | Body | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Response:
        """A request with its answer; tried again while that can do no harm. Raises `D365Error`.

        `headers` join `HEADERS`; None leaves one of these out.
        """
        attempt = 1
        while True:
            self.keep_pause(operation)
            try:
                with self.open(operation, method, self.url + path, body, headers) as response:
                    answer = Response(response.status, drain(operation, response))
                if not 200 <= answer.status < 300:
                    raise refusal(operation, answer, response.headers)
                return answer
            except (Unavailable, Uncertain) as error:
                self.pause_after(error)
                # I2: of a file, only what was surely refused is sent again here.
                if isinstance(body, Body) and isinstance(error, Uncertain):
                    raise
                _wait(operation, error, attempt)
                attempt += 1

    def keep_pause(self, operation: str) -> None:
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

    def pause_after(self, error: D365Error) -> None:
        if error.status == 429:
            self._resume_at = clock.monotonic() + (error.retry_after or 1.0)

    @contextmanager
    def open(
        self,
        operation: str,
        method: str,
        url: str,
        body: bytes | Body | None = None,
        headers: Mapping[str, str | None] | None = None,
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
        body: bytes | Body | None,
        headers: Mapping[str, str | None] | None,
        *,
        authorize: bool,
    ) -> urllib3.BaseHTTPResponse:
        token = self._token(operation) if authorize else None
        started = _Started(body) if isinstance(body, Body) else None
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
                said = (str(error) or type(error).__name__).splitlines()[0]
                why = f"not sent, the file could not be read to its end from storage: {said}"
                raise Unavailable(operation, why) from error
            # A body shorter than its Content-Length is no request: D365 has nothing of it. Once its last byte
            # was handed to the network, nobody can know (I2).
            reached = started.handed_over if started else not _never_connected(error)
            raise (Uncertain if reached else Unavailable)(
                operation, _unreached(url, error)
            ) from error
        raw: urllib3.BaseHTTPResponse = response.raw
        if started and not started.handed_over and raw.status >= 500:
            raw.close()
            why = f"D365 answered {raw.status} before it had all of the file"
            raise Unavailable(operation, why, raw.status)
        return raw

    def _token(self, operation: str) -> str:
        try:
            with self._lock:  # threads that need the first token at once ask for one
                return str(self._credential.get_token(f"{self.url}/.default").token)
        except AzureError as error:
            telemetry.report("d365.denied", level=40, operation=operation, error=str(error))
            why = f"no token for {self.url} could be had: {error}. Check the app's managed identity"
            raise Denied(operation, why) from error


class _Started:
    """A body being sent: its length goes into `Content-Length`, and it knows how far it has come."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.handed_over = False
        """Whether the network has taken all bytes that were announced."""
        self.broke_off = False
        """Whether they could not be read to their end."""

    def __len__(self) -> int:
        return self._body.length

    def __iter__(self) -> Iterator[bytes]:
        taken = 0
        try:
            for chunk in self._body.open():
                if taken + len(chunk) > self._body.length:
                    # D365's host would take what is too much for a request of its own.
                    raise OSError(f"it has more than the {self._body.length} bytes announced")
                yield chunk
                taken += len(chunk)  # whoever asks for the next chunk has written this one
                self.handed_over = taken >= self._body.length
        except (AzureError, OSError):
            self.broke_off = not self.handed_over
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
