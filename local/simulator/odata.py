"""The OData actions about an import, and the error keys file. One of the actions gives its URL."""

import ast
import json
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote
from uuid import UUID

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.simulator.context import D365Request
from local.simulator.records import Json
from local.simulator.state import Simulator

type Value = str | bool | None


def _message_status(d365: Simulator, arguments: Json) -> Value:
    received = d365.taken(lambda r: r.message_id == arguments.get("messageId"))
    if received is None:
        return None
    received.polls += 1
    received.status = received.statuses[0]
    if len(received.statuses) > 1:
        received.statuses.popleft()
    else:
        received.ended = received.ended or time.time()
    return received.status


def _execution_id(d365: Simulator, arguments: Json) -> Value:
    received = d365.taken(lambda r: r.message_id == arguments[d365.execution_parameter])
    if received is None:
        return None
    return str(UUID(int=0)) if received.status == "Enqueued" else received.execution_id


def _execution_errors(d365: Simulator, arguments: Json) -> Value:
    received = d365.taken(lambda r: arguments.get("executionId") in (r.execution_id, r.message_id))
    execution = d365.execution(str(arguments.get("executionId")))
    errors = received.errors if received else execution.errors if execution else []
    if d365.package_api.broken_errors:
        record = '{{"RecordId":"{}","Field":"","ErrorMessage":"{}"}}'
        return f"[{','.join(record.format(*each) for each in enumerate(errors, 1))}]"
    return json.dumps(errors)


def _generate_error_keys(d365: Simulator, arguments: Json) -> Value:
    received = d365.taken(lambda r: r.execution_id == arguments.get("executionId"))
    return bool(received and received.errors)


def _error_keys_url(d365: Simulator, arguments: Json) -> Value:
    if d365.keys_polls > 0:
        d365.keys_polls -= 1
        return ""
    execution, entity = quote(str(arguments["executionId"])), quote(str(arguments["entityName"]))
    return d365.keys_location.format(base=d365.base_url, execution=execution, entity=entity)


def _summary_page(d365: Simulator, arguments: Json) -> Value:
    return f"{d365.base_url}/?cmp=DAT&executionId={quote(str(arguments.get('executionId')))}"


def rejection(status: int, text: str) -> Response:
    """An error answer in the OData service's form."""
    error = {"code": "", "message": "An error has occurred.", "innererror": {"message": text}}
    return JSONResponse({"error": error}, status_code=status)


def answer(d365: Simulator, value: Value) -> Response:
    """The answer of an action with its value."""
    context = f"{d365.base_url}/data/$metadata#Edm.String"
    return JSONResponse({"@odata.context": context, "value": value})


def arguments(body: bytes) -> Json:
    """An action's arguments. D365 accepts single quotes too, which d365fo.integrations sends.

    Raises `ValueError` or `SyntaxError`.
    """
    try:
        return dict(json.loads(body or b"{}"))
    except ValueError:
        return dict(ast.literal_eval(body.decode()))


def _action(name: str, do: Callable[[Simulator, Json], Value], operation: str = "action") -> Route:
    async def act(request: D365Request) -> Response:
        d365 = request.state["d365"]
        try:
            value = do(d365, arguments(await request.body()))
        except KeyError as error:
            return rejection(400, f"The parameter {error} is missing.")
        except (ValueError, SyntaxError):
            return rejection(400, "The request body is not valid JSON.")
        if value is None:
            return rejection(404, "No message with this id was found.")
        return answer(d365, value)

    return Route(ACTIONS + name, act, methods=["POST"], name=operation)


async def no_action(request: D365Request) -> Response:
    """Answer a request for an action that D365 does not have."""
    return rejection(404, f"No action {request.path_params['name']}.")


async def error_keys(request: D365Request) -> Response:
    """Download an error keys file from D365's storage, which checks a signature and no token."""
    if "sig" not in request.query_params:
        return Response("<Error><Code>AuthenticationFailed</Code></Error>", 403)
    return Response(f"LINENUMBER\r\n17 of {request.path_params['execution_id']}\r\n")


ACTIONS: Final = "/data/DataManagementDefinitionGroups/Microsoft.Dynamics.DataEntities."

ROUTES: Final = (
    _action("GetMessageStatus", _message_status, "message_status"),
    _action("GetExecutionIdByMessageId", _execution_id, "execution_id"),
    _action("GetExecutionErrors", _execution_errors, "execution_errors"),
    _action("GenerateImportTargetErrorKeysFile", _generate_error_keys),
    _action("GetImportTargetErrorKeysFileUrl", _error_keys_url),
    _action("GetExecutionSummaryPageUrl", _summary_page),
    Route(ACTIONS + "{name}", no_action, methods=["POST"], name="action"),
    Route("/keys/{execution_id}/{entity:path}", error_keys),
)
"""Each route has the name of its operation."""
