"""The OData entity behind D365's form *Microsoft Entra applications*.

Its set, key and fields are those of D365's metadata (`SysAADClients`: AADClientId, Name, UserId).
"""

import re
from typing import Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.simulator.context import D365Request
from local.simulator.odata import rejection


async def applications(request: D365Request) -> Response:
    """The applications with the client id of a filter; without a filter, all."""
    d365 = request.state["d365"]
    condition = request.query_params.get("$filter", "")
    match = re.fullmatch("AADClientId eq '([^']*)'", condition)
    if condition and not match:
        return rejection(400, f"Invalid filter: {condition}")
    entities = [
        each
        for each in d365.applications
        if match is None or each["AADClientId"].lower() == match[1].lower()
    ]
    return JSONResponse({"@odata.context": f"{d365.base_url}/data/$metadata", "value": entities})


async def add_application(request: D365Request) -> Response:
    """Register an application. From then on D365 lets requests in (`registered`)."""
    d365, application = request.state["d365"], await request.json()
    if application["UserId"].lower() not in d365.users:
        return rejection(
            400,
            "Write failed for table row of type 'SysAADClientEntity'. Infolog: Error: The value "
            f"'{application['UserId']}' in field 'User ID' is not found in the related table 'User "
            "information'.",
        )
    d365.applications.append(application)
    d365.registered = True
    return JSONResponse(application, status_code=201)


ROUTES: Final = (
    Route("/data/SysAADClients", applications, methods=["GET"], name="applications"),
    Route("/data/SysAADClients", add_application, methods=["POST"], name="applications"),
)
