"""A request to D365 as what serves it gets it, and the error that D365 answers."""

from typing import TypedDict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local.simulator.records import Fault, Recorded
from local.simulator.state import Simulator


class Context(TypedDict):
    """What the middleware gives every request on its way: `request.state`."""

    d365: Simulator
    activity_id: str
    """Of the recurring job, in small letters and without braces; empty where the path has none."""
    record: Recorded
    fault: Fault | None


type D365Request = Request[Context]


def refused(status: int, text: str) -> Response:
    """An error as the connector gives it."""
    return JSONResponse(
        {"Message": "An error has occurred.", "ExceptionMessage": text}, status_code=status
    )
