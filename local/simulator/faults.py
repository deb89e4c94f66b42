"""Applies faults to requests and their answers; `downloads` applies those that change a package."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import NoReturn

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Scope

from local.asgi_server import reset
from local.simulator.context import D365Request
from local.simulator.records import Fault


def choose(faults: Iterable[Fault], operation: str, activity_id: str, path: str) -> Fault | None:
    """The first fault that applies to a request. A fault that still skips requests counts this one."""
    for fault in faults:
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


async def before_serving(request: D365Request) -> Response | None:
    """Apply a fault before the request is served. Returns its answer, or None to serve the request.

    Raises `ClientDisconnect` where the connection has ended.
    """
    match fault := request.state["fault"]:
        case Fault(do="answer"):
            return _answer(fault)
        case Fault(do="delay"):
            await asyncio.sleep(fault.seconds)
        case Fault(do="hang"):
            await _sleep(request.scope, fault.seconds)
            cut(request.scope)
        case Fault(do="reset"):
            cut(request.scope)
        case Fault(do="reset-during") if request.method == "POST":
            length = 0
            async for chunk in request.stream():
                length += len(chunk)
                if length >= fault.bytes:
                    break
            request.state["d365"].aborted += 1
            cut(request.scope)
    return None


def after_serving(request: D365Request, answer: Response) -> Response:
    """Apply a fault after D365 has done its work: the answer to give. Raises `ClientDisconnect`."""
    match fault := request.state["fault"]:
        case Fault(do="reset-after"):
            cut(request.scope)
        case Fault(do="answer-after"):
            return _answer(fault)
    return answer


def before_answer(fault: Fault | None, scope: Scope) -> None:
    """Apply a fault that sends an interim answer first."""
    if fault and fault.do == "interim":
        scope["transport"].write(f"HTTP/1.1 {fault.status} Wait\r\n\r\n".encode())


async def answer_parts(
    fault: Fault | None, scope: Scope, message: Message
) -> AsyncIterator[Message]:
    """A message of an answer; several smaller ones if a fault slows it down. Raises `ClientDisconnect`."""
    body = message.get("body", b"")
    if not fault or fault.do != "drip" or not body:
        yield message
        return
    size = max(1, fault.bytes)
    starts = range(0, len(body), size)
    for start in starts:
        if start:
            await _sleep(scope, fault.seconds)
        last = start + size >= len(body)
        more = message.get("more_body", False) or not last
        yield {**message, "body": body[start : start + size], "more_body": more}


async def _sleep(scope: Scope, seconds: float) -> None:
    """Wait. Raises `ClientDisconnect` as soon as the client has disconnected."""
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        if scope["transport"].is_closing():
            raise ClientDisconnect
        await asyncio.sleep(min(rest, 0.1))


def cut(scope: Scope) -> NoReturn:
    """Reset the connection, and raise `ClientDisconnect`, as if the client had disconnected."""
    reset(scope)
    raise ClientDisconnect


def _answer(fault: Fault) -> Response:
    return Response(fault.body, fault.status, fault.headers)
