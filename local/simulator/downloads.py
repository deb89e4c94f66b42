"""A package on its way: whole, or as its fault has it."""

import gzip
from collections.abc import AsyncIterator, Iterator

from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Scope

from local.simulator.faults import cut
from local.simulator.records import Fault, Package


def download(package: Package, fault: Fault | None, scope: Scope) -> Response:
    """The answer with a package."""
    do, at = (fault.do, fault.bytes) if fault else ("", 0)
    chunks = package.chunks()
    headers = {"Content-Length": str(package.size)}
    if do == "corrupt":
        chunks = _flipped(chunks, at)
    elif do == "gzip":
        chunks = iter([gzip.compress(b"".join(chunks), 1)])
        headers = {"Content-Encoding": "gzip"}
    elif do == "longer":
        headers = {"Content-Length": str(package.size + 1)}
    elif do in ("chunked", "truncate-silently"):
        headers = {}
    if do in ("truncate", "truncate-silently", "reset-during"):
        chunks = _first(chunks, at)
    return StreamingResponse(
        _sent(chunks, do, scope), headers=headers, media_type="application/octet-stream"
    )


async def _sent(chunks: Iterator[bytes], do: str, scope: Scope) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if do == "reset-during":
        cut(scope)
    if do in ("truncate", "longer"):
        scope["transport"].close()
        raise ClientDisconnect


def _first(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:count]
        count -= len(chunk)
        if count <= 0:
            return


def _flipped(chunks: Iterator[bytes], at: int) -> Iterator[bytes]:
    for chunk in chunks:
        if 0 <= at < len(chunk):
            yield chunk[:at] + bytes([chunk[at] ^ 0xFF]) + chunk[at + 1 :]
        else:
            yield chunk
        at -= len(chunk)
