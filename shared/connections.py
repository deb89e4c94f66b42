"""HTTP connections to D365 and to Azure that keep the invocation's deadline (A6).

The HTTP libraries count a time-out anew with each byte that comes or goes. Here each connect, each write and
each read has besides at most what is left of the deadline. An interim answer (RFC 9110, section 15.2: 102, 103)
is passed over; no connection that was idle for long is used again.
"""

import http.client
import logging
import time
from io import BufferedReader, RawIOBase
from math import inf
from typing import Any, Final, override

import requests
import urllib3
from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from shared import clock, deadline
from shared.observability.events import redact

WRITE_TIMEOUT: Final = 300.0
"""Seconds in which a receiver must take something of what is sent."""

IDLE_LIMIT: Final = 30.0
"""Seconds after which an idle connection is not used again: Azure's load balancers drop these without a word,
and a file sent into one would be a file of which nobody knows whether it arrived."""

POOL_SIZE: Final = 256
"""Connections to a host that are kept: more than all threads use at once."""


def _in_time(timeout: float | None) -> float | None:
    """A socket's time-out, None for none, or what is left of the deadline. Raises `Expired`."""
    seconds = deadline.bounded(inf if timeout is None else timeout)
    return None if seconds == inf else seconds


class _Reads(RawIOBase):
    """What comes on a socket; each read has its time-out, or what is left of the deadline."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._timeout = socket, socket.gettimeout()
        self._raw = socket.makefile("rb", buffering=0)

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any, /) -> int | None:
        self._socket.settimeout(_in_time(self._timeout))
        count: int | None = self._raw.readinto(buffer)
        return count

    @override
    def close(self) -> None:
        self._raw.close()
        super().close()


class _Socket:
    """A socket as `http.client.HTTPResponse` wants it."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def makefile(self, _mode: str) -> BufferedReader:
        return BufferedReader(_Reads(self._socket))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(_Socket(sock), *args, **kwargs)  # type: ignore[arg-type]  # no more is used of it

    @override
    def begin(self) -> None:
        super().begin()
        while 101 < self.status < 200:  # the final one is still to come
            self.headers = None  # type: ignore[assignment]  # the library's sign that none was read yet
            super().begin()


class _Connection(HTTPConnection):
    response_class = _Response

    @override
    def _new_conn(self) -> Any:
        try:
            self.timeout = _in_time(self.timeout)
            socket = super()._new_conn()
            socket.settimeout(_in_time(self.timeout))  # for the handshake
        except deadline.Expired as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, str(error)) from error
        return socket

    @override
    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        rest = memoryview(data).cast("B")
        while rest:
            self.sock.settimeout(deadline.bounded(WRITE_TIMEOUT))
            rest = rest[self.sock.send(rest) :]


class _TlsConnection(_Connection, HTTPSConnection):
    @override
    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            # The library has one error for a failed handshake and for TLS that breaks later: after this one
            # nothing was sent.
            raise urllib3.exceptions.NewConnectionError(self, str(error)) from error


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)
        if time.monotonic() - getattr(conn, "idle_since", time.monotonic()) > IDLE_LIMIT:
            conn.close()
        return conn


class _TlsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS: Final = {"http": _Pool, "https": _TlsPool}


class _Adapter(HTTPAdapter):
    @override
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    @override
    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def session() -> requests.Session:
    """A session of `requests` with such connections, safe for use by several threads."""
    session_ = requests.Session()
    adapter = _Adapter(pool_connections=8, pool_maxsize=POOL_SIZE)
    for scheme in ("https://", "http://"):
        session_.mount(scheme, adapter)
    return session_


class SdkTransport(RequestsTransport):  # type: ignore[misc]  # the SDK loads it when it is asked for
    """How a client of the Azure SDKs, or a credential, sends its requests: over such connections."""

    def __init__(self, **options: Any) -> None:
        """`options` are those of `RequestsTransport`."""
        super().__init__(session=session(), **options)

    @override
    def send(self, request: Any, **options: Any) -> Any:
        if not deadline.left():
            raise ServiceRequestError(f"{request.method} was not sent: {deadline.Expired()}")
        return super().send(request, **options)

    @override
    def sleep(self, duration: float) -> None:
        pause(duration)


def pause(seconds: float) -> None:
    """Wait before a further try, where that leaves time for one. Raises `ServiceRequestError`."""
    if seconds >= deadline.left():
        raise ServiceRequestError(f"not tried again: {deadline.Expired()}")
    clock.sleep(seconds)


class _Redact(logging.Filter):
    """Takes signatures out of the URLs that urllib3 logs (A3)."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_Redact())
