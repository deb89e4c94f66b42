"""D365 and storage as plain sockets, so that they never set the pace: bytes come from a file by `sendfile`, and
what is sent is thrown away.

`python -m tests.bench.servers --package FILE --packages N --latency SECONDS` prints its URL. It speaks just
what the app asks: of D365 the recurring export and import and the token; of storage blocks and block lists,
ranged reads of one file, copies, deletes, metadata and queue messages. It keeps nothing and refuses nothing, so
it is no test of anything but speed; Azurite and the simulator are for the rest. `/counts` gives what was asked.
"""

import argparse
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

ETAG = '"0x8D0000000000001"'


class Server:
    """One listening socket, a thread for each connection."""

    def __init__(self, package: Path, packages: int, latency: float) -> None:
        self._package, self._size = package, package.stat().st_size
        self._latency = latency
        self._left = packages
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        buffer, waste = b"", memoryview(bytearray(1 << 20))
        with connection, self._package.open("rb") as package:
            while True:
                while b"\r\n\r\n" not in buffer:
                    more = connection.recv(1 << 16)
                    if not more:
                        return
                    buffer += more
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
                length = int(headers.get("content-length", "0"))
                if headers.get("expect", "").lower() == "100-continue":
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                taken = min(length, len(buffer))
                buffer = buffer[taken:]
                while taken < length:
                    got = connection.recv_into(waste[: min(len(waste), length - taken)])
                    if not got:
                        return
                    taken += got
                self._answer(connection, package, method, target, headers)

    def _answer(
        self,
        connection: socket.socket,
        package: Any,
        method: str,
        target: str,
        headers: dict[str, str],
    ) -> None:
        parts = urlsplit(target)
        kind = self._kind(method, parts.path, parts.query)
        with self._lock:
            self.counts[kind] += 1
        if kind.startswith("d365"):
            time.sleep(self._latency)
        status, answer_headers, body, file = self._made(kind, headers)
        size = len(body) if file is None else file[1]
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}"]
        lines += [f"{name}: {value}" for name, value in answer_headers.items()]
        if status.startswith(("204", "304")):
            lines.pop(1)
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        if file and method != "HEAD":
            at, left = file
            while left:
                sent = os.sendfile(connection.fileno(), package.fileno(), at, left)
                at, left = at + sent, left - sent

    @staticmethod
    def _kind(method: str, path: str, query: str) -> str:
        if match := re.match(r"/api/connector/(\w+)/", path):
            return f"d365 {match[1]}"
        if path.startswith("/data/"):
            return "d365 message status"
        if path.startswith(("/msi/", "/counts")):
            return path.split("/")[1]
        comp = parse_qs(query).get("comp", [""])[0]
        if method in ("GET", "HEAD") and re.search("/exports(-delivered)?/job-", path):
            return f"blob {method} missing"  # each package is a new one
        if method == "POST":
            return "queue put"
        return f"blob {method} {comp}".strip()

    def _made(
        self, kind: str, headers: dict[str, str]
    ) -> tuple[str, dict[str, str], bytes, tuple[int, int] | None]:
        answer_headers: dict[str, str] = {}
        if kind == "msi":
            expires = str(int(time.time()) + 3600)
            token = {
                "access_token": "t",
                "expires_on": expires,
                "resource": "",
                "token_type": "Bearer",
            }
            return "200 OK", answer_headers, json.dumps(token).encode(), None
        if kind == "counts":
            return "200 OK", answer_headers, json.dumps(self.counts).encode(), None
        if kind == "d365 dequeue":
            with self._lock:
                self._left -= 1
                left = self._left
            if left < 0:
                return "204 No Content", answer_headers, b"", None
            message = {"CorrelationId": str(uuid4()), "PopReceipt": "p", "DownloadLocation": ""}
            message["DownloadLocation"] = (
                f"{self.url}/api/connector/download/x/{message['CorrelationId']}"
            )
            return "200 OK", answer_headers, json.dumps(message).encode(), None
        if kind == "d365 download":
            return "200 OK", answer_headers, b"", (0, self._size)
        if kind == "d365 enqueue":
            return "200 OK", answer_headers, f'"{uuid4()}"'.encode(), None
        if kind == "d365 message status":
            return "200 OK", answer_headers, b'{"value": "Processed"}', None
        if kind.startswith("d365"):
            return "200 OK", answer_headers, b"", None
        return self._storage(kind, headers)

    def _storage(
        self, kind: str, headers: dict[str, str]
    ) -> tuple[str, dict[str, str], bytes, tuple[int, int] | None]:
        now = format_datetime(datetime.now(UTC), usegmt=True)
        answer_headers = {
            "ETag": ETAG,
            "Last-Modified": now,
            "x-ms-request-id": "1",
            "x-ms-version": "2025-01-05",
        }
        answer_headers |= {
            "Date": now,
            "x-ms-blob-type": "BlockBlob",
            "x-ms-request-server-encrypted": "true",
        }
        if kind.endswith("missing"):
            return "404 Not Found", {**answer_headers, "x-ms-error-code": "BlobNotFound"}, b"", None
        if kind == "blob HEAD":
            return "200 OK", {**answer_headers, "Content-Type": "text/csv"}, b"", (0, self._size)
        if kind == "blob GET":
            match = re.match(r"bytes=(\d+)-(\d+)", headers.get("x-ms-range", ""))
            first, last = (int(match[1]), int(match[2])) if match else (0, self._size - 1)
            last = min(last, self._size - 1)
            answer_headers["Content-Range"] = f"bytes {first}-{last}/{self._size}"
            answer_headers["Content-Type"] = "text/csv"
            return "206 Partial Content", answer_headers, b"", (first, last + 1 - first)
        if kind == "blob DELETE":
            return "202 Accepted", answer_headers, b"", None
        if kind == "queue put":
            message = (
                f"<MessageId>{uuid4()}</MessageId><InsertionTime>{now}</InsertionTime>"
                f"<ExpirationTime>{now}</ExpirationTime><PopReceipt>p</PopReceipt>"
                f"<TimeNextVisible>{now}</TimeNextVisible>"
            )
            text = f"<QueueMessagesList><QueueMessage>{message}</QueueMessage></QueueMessagesList>"
            return (
                "201 Created",
                {**answer_headers, "Content-Type": "application/xml"},
                text.encode(),
                None,
            )
        if "x-ms-copy-source" in headers:
            answer_headers |= {"x-ms-copy-status": "success", "x-ms-copy-id": "1"}
            return "202 Accepted", answer_headers, b"", None
        return ("200 OK" if "metadata" in kind else "201 Created"), answer_headers, b"", None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--packages", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    server = Server(options.package, options.packages, options.latency)
    print(server.url, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
