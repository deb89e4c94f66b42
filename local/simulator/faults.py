"""What goes wrong with a request, whatever it asks for; `downloads` has what goes wrong with a package."""

import asyncio
from collections.abc import Iterable
from typing import NoReturn

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from local.serving import reset
from local.simulator.exchange import Asked
from local.simulator.records import Fault


def chosen(faults: Iterable[Fault], operation: str, activity_id: str, path: str) -> Fault | None:
    """The fault that a request meets. Each that it could meet counts it, up to this one."""
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


async def instead(request: Asked) -> Response | None:
    """The fault's answer, where the request is not to be served. Raises `ClientDisconnect`."""
    match fault := request.state["fault"]:
        case Fault(do="answer"):
            return _answer(fault)
        case Fault(do="delay"):
            await asyncio.sleep(fault.seconds)
        case Fault(do="hang"):
            await asyncio.sleep(fault.seconds)
            cut(request.scope)
        case Fault(do="reset"):
            cut(request.scope)
        case Fault(do="reset-during") if request.method == "POST":
            taken = 0
            async for chunk in request.stream():
                taken += len(chunk)
                if taken >= fault.bytes:
                    break
            request.state["d365"].aborted += 1
            cut(request.scope)
    return None


def finished(request: Asked, answer: Response) -> Response:
    """The answer to what has been done, unless a fault eats it. Raises `ClientDisconnect`."""
    match fault := request.state["fault"]:
        case Fault(do="reset-after"):
            cut(request.scope)
        case Fault(do="answer-after"):
            return _answer(fault)
    return answer


def cut(scope: Scope) -> NoReturn:
    """Reset the connection. What serves it then ends as it does when the client is gone."""
    reset(scope)
    raise ClientDisconnect


def _answer(fault: Fault) -> Response:
    return Response(fault.body, fault.status, fault.headers)
