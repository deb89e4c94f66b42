"""The request that each endpoint of the simulator gets, and the error answer of D365's connector."""

from typing import TypedDict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local.simulator.records import Fault, Recorded
from local.simulator.state import Simulator


class Context(TypedDict):
    """What the middleware puts into `request.state`."""

    d365: Simulator
    activity_id: str
    """The recurring job's, in small letters and without braces; empty if the path has none."""
    record: Recorded
    fault: Fault | None


type D365Request = Request[Context]


def rejection(status: int, text: str) -> Response:
    """An error answer in the connector's form."""
    return JSONResponse(
        {"Message": "An error has occurred.", "ExceptionMessage": text}, status_code=status
    )
