"""Serves an ASGI app on a free loopback port from a thread of this process.

It adds to the scope what ASGI hides and faults need: `transport`, to reset the connection, and `wire_headers`,
the headers with their names in the case in which they came.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str


class _Protocol(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope["transport"] = self.transport
        scope["wire_headers"] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self.scope["wire_headers"].append((name.decode("latin-1"), value.decode("latin-1")))  # type: ignore[typeddict-item]


@contextlib.contextmanager
def serve(
    app: Any, port: int = 0, cert: str | None = None, key: str | None = None
) -> Iterator[Server]:
    """Serve on 127.0.0.1; `port` 0 takes a free one; with a certificate, over TLS."""
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    # asyncio does this only for a socket that was made with the protocol TCP, and this one was not. Without
    # it, small answers waited for 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=_Protocol,
        log_level="critical",  # errors that faults cause on purpose are not worth a line
        access_log=False,
        lifespan="off",
        ssl_certfile=cert,
        ssl_keyfile=key,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    scheme = "https" if cert else "http"
    while not server.started:
        thread.join(0.01)
        if not thread.is_alive():
            raise RuntimeError("the server ended while it started")
    try:
        yield Server(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(5)
        listener.close()


def reset(scope: Any) -> None:
    """End the connection with a TCP reset, as a crashing server or a broken network does."""
    transport = scope["transport"]
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
