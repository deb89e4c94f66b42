"""Sends requests to D365: connections, token, throttling, retries."""

import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from math import inf
from threading import Lock
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import requests
import urllib3
from azure.core.exceptions import AzureError

from shared import __version__, clock, connections, deadline
from shared.d365.errors import D365Error, Denied, Unavailable, Uncertain
from shared.d365.responses import SENDS, Response, drain, error_of, require_success
from shared.identity import why_no_token
from shared.observability.events import emit

HEADERS: Final = {
    "OData-Version": "4.0",
    "OData-MaxVersion": "4.0",
    "Content-Type": "application/json;odata.metadata=minimal",
    "Accept": "application/json;odata.metadata=minimal",
    "Accept-Charset": "UTF-8",
    # A compressed answer would hide the length that we check, and nothing here gains by it.
    "Accept-Encoding": "identity",
    "User-Agent": f"d365-blob-bridge/{__version__}",
}
"""Sent with every request to D365; `Authorization`, `Host` and the lengths are added to each."""

CONNECT_TIMEOUT: Final = 15.0
READ_TIMEOUT: Final = 300.0
"""Seconds between two reads of a download."""

QUESTION_TIMEOUT: Final = 120.0
"""Seconds for one attempt at a request that carries no file, with all of its answer."""

FILE_TIMEOUT: Final = 3600.0
"""Seconds until D365 answers to a file or a package that it has got: so long waits Microsoft's Recurring
Integrations Scheduler too. An answer that is not waited for leaves a file of which nobody knows."""

TOKEN_TIMEOUT: Final = 60.0
"""Seconds for a token, with all tries of `azure-identity`."""

ATTEMPTS: Final = 4
LONGEST_WAIT: Final = 30.0
"""Seconds. A longer wait is not spent inside a run: the error says when to come back."""

JITTER: Final = 0.25
"""So much longer than D365 asks may a wait be, in parts of it: those who wait come back one after the other."""

VAIN_RENEWAL: Final = 60.0
"""Seconds in which no further token is got after a new one was refused as well."""


PROMPT: Final = 5.0
"""Seconds within which a D365 answers that is not slow."""

PROMPT_FOR: Final = 2.0
"""So long an answer shows that it is not."""

SLOW_FOR: Final = 30.0
"""So long it counts as slow once a question has shown it, unless something else is answered."""

TROUBLE: Final = (408, 429, 502, 503, 504)
"""Answers of a D365, or of a gateway before it, that can do nothing just now."""


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

    def __init__(self, url: str, new_credential: Callable[[], Credential], setting: str) -> None:
        """`url` is `https://host` without a slash at its end; `new_credential` makes a fresh credential;
        `setting` tells a person where the address is set."""
        self.url, self._setting = url, setting
        self._new_credential = new_credential
        self._credential = new_credential()
        self._token_lock = Lock()
        self._vain_until = 0.0
        self._session = connections.session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._answered = self._found_slow = -inf
        """When D365 answered last, in no trouble, and when it was last found to be slow."""
        self._throttle_lock = Lock()
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
        attempt, answer_lost = 1, False
        limit = nullcontext if operation in SENDS else _question
        while True:
            self.wait_for_throttle(operation)
            try:
                with (
                    limit(),
                    self.open(operation, method, self.url + path, body, headers) as response,
                ):
                    answer = Response(response.status, drain(operation, response))
                if not 200 <= answer.status < 300:
                    raise error_of(operation, answer, response.headers, self._setting)
                if operation not in SENDS:
                    require_success(operation, answer)
                return answer
            except D365Error as error:
                self.note_throttle(error)
                error.answer_lost = answer_lost
                # I2: a file is sent once; whether again, and when, says its flow, which has its state in hand.
                if operation in SENDS or not isinstance(error, Unavailable | Uncertain):
                    raise
                _wait(operation, error, attempt)
                answer_lost |= isinstance(error, Uncertain)
                attempt += 1

    def wait_for_throttle(self, operation: str) -> None:
        """Wait as long as D365 asks. It counts an application's requests together: when it asks one to wait,
        all wait (A2). Raises `Unavailable` where that is longer than a run has."""
        seconds = self._resume_at - clock.monotonic()
        if seconds > min(LONGEST_WAIT, deadline.left()):
            early = Unavailable(
                operation, f"not sent, D365 asks for {seconds:.0f} s without requests"
            )
            early.retry_after = seconds
            raise early
        if seconds > 0:
            clock.sleep(min(_jittered(seconds), deadline.left()))

    def known_promptness(self) -> bool | None:
        """Whether D365 answers within seconds, as far as that is known without asking."""
        now = clock.monotonic()
        if self._resume_at > now + PROMPT:
            return False
        if self._answered > now - PROMPT_FOR:
            return True
        return False if self._found_slow > max(self._answered, now - SLOW_FOR) else None

    def note_promptness(self) -> bool:
        """Whether the question that was just asked was answered; it is kept where it was not."""
        now = clock.monotonic()
        prompt = self._answered > now - PROMPT_FOR
        if not prompt:
            self._found_slow = now
        return prompt

    def note_throttle(self, error: D365Error) -> None:
        """Keep what D365 asks all to wait, if this error says so: of several waits, the longest."""
        if error.status == 429 or (error.status == 503 and error.retry_after):
            resume_at = clock.monotonic() + (error.retry_after or 1.0)
            with self._throttle_lock:
                self._resume_at = max(self._resume_at, resume_at)

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
        token = self._token(operation) if authorize else ""
        response = self._send(operation, method, url, body, headers, token)
        try:
            if response.status == 401 and token and (new := self._token(operation, rejected=token)):
                response.close()
                response = self._send(operation, method, url, body, headers, new)
                vain = response.status == 401
                self._vain_until = clock.monotonic() + VAIN_RENEWAL if vain else 0.0
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
        token: str,
    ) -> urllib3.BaseHTTPResponse:
        if not deadline.left():
            raise Unavailable(operation, "not sent, the invocation's time is up")
        started = _Started(body) if isinstance(body, Body) else None
        read_timeout = (
            FILE_TIMEOUT
            if operation in SENDS
            else READ_TIMEOUT
            if operation == "download"
            else QUESTION_TIMEOUT
        )
        try:
            response = self._session.request(
                method,
                url,
                data=b"" if isinstance(body, Body) and not body.length else started or body,  # type: ignore[arg-type]  # any sized iterable of bytes is taken
                headers={**HEADERS, **(headers or {})},
                auth=_Bearer(token),
                timeout=(CONNECT_TIMEOUT, read_timeout),
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
                cause = (str(error) or type(error).__name__).splitlines()[0]
                why = f"not sent, the file could not be read to its end from storage: {cause}"
                raise Unavailable(operation, why) from error
            # A body shorter than its Content-Length is no request: D365 has nothing of it. Once its last byte
            # was handed to the network, nobody can know (I2).
            reached = started.handed_over if started else not _never_connected(error)
            raise (Uncertain if reached else Unavailable)(
                operation, _unreached(url, error)
            ) from error
        raw: urllib3.BaseHTTPResponse = response.raw
        if raw.status not in TROUBLE:
            self._answered = clock.monotonic()
        if started and not started.handed_over and raw.status >= 500:
            raw.close()
            why = f"D365 answered {raw.status} before it had all of the file"
            raise Unavailable(operation, why, raw.status)
        return raw

    def _token(self, operation: str, rejected: str = "") -> str:
        """The token, one for all threads; another than the `rejected` one, or "" where there is no other.

        Raises `Denied`, or `Unavailable` where no time is left.
        """
        try:
            with deadline.within(TOKEN_TIMEOUT), self._one_at_a_time():
                token = self._cached_token()
                if token != rejected:
                    return token
                if clock.monotonic() > self._vain_until:
                    self._credential = self._new_credential()
                    token = self._cached_token()
                    if token != rejected:
                        return token
                    # The identity endpoint keeps its tokens: it has no other for hours, perhaps.
                    self._vain_until = clock.monotonic() + VAIN_RENEWAL
                return ""
        except (AzureError, deadline.Expired) as error:
            if not deadline.left():
                why = "not sent, the invocation's time is up, and no token has come"
                raise Unavailable(operation, why) from error
            cause = why_no_token(error).rstrip(".")
            why = f"no token for {self.url} could be had: {cause}. Check the app's managed identity"
            emit("d365.denied", level=logging.ERROR, operation=operation, error=why)
            raise Denied(operation, why) from error

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Threads that need the first token at once ask for one. Raises `Expired`."""
        if not self._token_lock.acquire(timeout=deadline.bounded(TOKEN_TIMEOUT)):
            raise deadline.Expired
        try:
            yield
        finally:
            self._token_lock.release()

    def _cached_token(self) -> str:
        return str(self._credential.get_token(f"{self.url}/.default").token)


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
            if taken < self._body.length:
                raise OSError(f"it has {taken} bytes of the {self._body.length} announced")
        except (AzureError, OSError):
            self.broke_off = not self.handed_over
            raise


class _Bearer(requests.auth.AuthBase):
    """The token, or none (""). As an `auth` it keeps requests from putting a .netrc password in its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


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
    text = re.sub(r"^<[^>]*>: |'?<[^>]* object at [^>]*>'?[:,]? ?", "", str(cause))
    return f"no answer from {urlsplit(url).netloc}: {text or type(cause).__name__}"


def _wait(operation: str, error: Unavailable | Uncertain, attempt: int) -> None:
    """Wait before the next attempt, or raise the error: too many, or a longer wait than a run has time for."""
    retry_after = error.retry_after
    seconds = _jittered(retry_after if retry_after is not None else min(2.0**attempt, 8.0) * 0.5)
    if attempt >= ATTEMPTS or (retry_after or 0) > LONGEST_WAIT or seconds >= deadline.left():
        raise error
    emit(
        "d365.retry",
        level=logging.WARNING,
        operation=operation,
        error=str(error),
        attempt=attempt,
        waitSeconds=round(seconds, 1),
    )
    clock.sleep(seconds)


def _jittered(seconds: float) -> float:
    """Somewhat more: those who wait come back one after the other."""
    return seconds * random.uniform(1.0, 1.0 + JITTER)


def _question() -> AbstractContextManager[None]:
    """The time of one attempt at a request that carries no file."""
    return deadline.within(QUESTION_TIMEOUT)
