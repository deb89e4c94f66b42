"""An OData action of D365: a POST with its arguments in JSON.

The headers, and JSON without spaces, are those of Microsoft's Recurring Integrations Scheduler.
"""

import json
from collections.abc import Mapping
from typing import Final

from shared.d365.responses import Response
from shared.d365.transport import Transport

PATH: Final = "/data/DataManagementDefinitionGroups/Microsoft.Dynamics.DataEntities."

HEADERS: Final = {
    "Accept": "application/json",
    "Content-Type": "application/json; charset=utf-8",
}


def body_of(arguments: Mapping[str, str | bool]) -> bytes:
    """The body of an action's request."""
    return json.dumps(arguments, separators=(",", ":")).encode()


def call(transport: Transport, name: str, arguments: Mapping[str, str | bool]) -> Response:
    """The answer of an action. Raises `D365Error`."""
    return transport.call(name, "POST", PATH + name, body_of(arguments), HEADERS)
