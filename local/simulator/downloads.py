"""The download of a package: whole, or broken by a fault."""

import gzip
import re
from collections.abc import AsyncIterator, Iterator

from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Scope

from local.simulator.context import D365Request
from local.simulator.faults import cut
from local.simulator.records import Package


def download(package: Package, request: D365Request) -> Response:
    """The answer with a package, or with the part of it that the request asks for."""
    fault, size = request.state["fault"], package.size
    do, at = (fault.do, fault.bytes) if fault else ("", 0)
    package.downloads += 1
    start = _start(request)
    if start and start >= size:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    chunks = package.chunks(start)
    headers = {"Content-Length": str(size - start)}
    if do == "corrupt":
        chunks = _corrupt(chunks, at - start, package.downloads % 255 + 1)
    elif do == "gzip":
        chunks = iter([gzip.compress(b"".join(chunks), 1)])
        headers = {"Content-Encoding": "gzip"}
    elif do == "longer":
        headers = {"Content-Length": str(size - start + 1)}
    elif do in ("chunked", "truncate-silently"):
        headers = {}
    if do in ("truncate", "truncate-silently", "reset-during"):
        chunks = _first_bytes(chunks, at)
    if start:
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    return StreamingResponse(
        _send(chunks, do, request.scope),
        status_code=206 if start else 200,
        headers=headers,
        media_type="application/octet-stream",
    )


def _start(request: D365Request) -> int:
    """The first byte that the request asks for (`Range`); 0 if the environment ignores that header."""
    byte_range = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    return int(byte_range[1]) if byte_range and request.state["d365"].gives_ranges else 0


async def _send(chunks: Iterator[bytes], do: str, scope: Scope) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if do == "reset-during":
        cut(scope)
    if do in ("truncate", "longer"):
        scope["transport"].close()
        raise ClientDisconnect


def _first_bytes(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:count]
        count -= len(chunk)
        if count <= 0:
            return


def _corrupt(chunks: Iterator[bytes], at: int, bits: int) -> Iterator[bytes]:
    for chunk in chunks:
        if 0 <= at < len(chunk):
            yield chunk[:at] + bytes([chunk[at] ^ bits]) + chunk[at + 1 :]
        else:
            yield chunk
        at -= len(chunk)
