"""The HTTP trigger (`/api/…`), the blob trigger's webhook, and the administration of the host (`/admin/…`)."""

import json
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.host.blobs import WEBHOOK, BlobTrigger, InvalidEvent, reference
from local.host.event_grid import Subscription
from local.host.functions import App
from local.host.keys import Keys
from local.host.workers import InvocationFailed
from local.protocol import Function, Typed

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

type _Endpoint = Callable[[Request], Awaitable[Response]]


def application(
    app: App, keys: Keys, blobs: BlobTrigger, subscriptions: Sequence[Subscription]
) -> Starlette:
    """The ASGI application of the host. `subscriptions` may get more members later."""

    def admin(endpoint: _Endpoint) -> _Endpoint:
        async def guarded(request: Request) -> Response:
            if not keys.open_admin(request.query_params, request.headers):
                return Response(status_code=401)
            return await endpoint(request)

        return guarded

    async def status(_: Request) -> Response:
        return JSONResponse(app.status())

    async def deliver(request: Request) -> Response:
        for each in subscriptions:
            each.delivers = bool((await request.json())["deliver"])
        return JSONResponse({})

    async def run(request: Request) -> Response:
        function = app.functions.get(request.path_params["name"])
        if function is None:
            return Response(status_code=404)
        fields = json.loads(await request.body() or b"{}")
        call = (app, function, *_manual_input(function, str(fields.get("input", ""))))
        if request.query_params.get("wait") != "true":
            threading.Thread(target=_failure, args=call, daemon=True).start()
            return Response(status_code=202)
        error = await run_in_threadpool(_failure, *call)
        return JSONResponse(
            {"status": "failure", "error": error} if error else {"status": "success"}
        )

    async def webhook(request: Request) -> Response:
        if not keys.open_webhook(request.query_params, request.headers):
            return Response(status_code=401)
        events = json.loads(await request.body() or b"[]")
        match request.headers.get("aeg-event-type"):
            case "SubscriptionValidation":
                code = events[0]["data"]["validationCode"]
                return JSONResponse({"validationResponse": code})
            case "Unsubscribe":
                return Response(status_code=202)
            case "Notification":
                function_id = request.query_params.get("functionName", "")
                try:
                    await run_in_threadpool(blobs.notify, function_id, events)
                except InvalidEvent:
                    return Response(status_code=500)
                return Response(status_code=202)
            case _:
                return Response(status_code=400)

    async def call(request: Request) -> Response:
        for function in app.functions.values():
            trigger = function.trigger
            if function.kind != "httptrigger":
                continue
            route = str(trigger.get("route") or function.name)
            params = _route_values(route, request.path_params["path"].strip("/"))
            methods = [str(each).upper() for each in trigger.get("methods") or METHODS]
            if params is None or request.method not in methods:
                continue
            if not keys.open_function(function, request.query_params, request.headers):
                return Response(status_code=401)
            incoming = SimpleNamespace(
                method=request.method,
                url=str(request.url),
                headers=dict(request.headers.items()),
                params=params,
                query=dict(request.query_params),
                body=Typed("bytes", await request.body()),
            )
            try:
                ended = await run_in_threadpool(app.invoke, function, Typed("http", incoming))
            except InvocationFailed:
                return Response(status_code=500)
            http = ended.return_value.http
            content = next(iter(vars(http.body).values())) if http.body else b""
            return Response(content, int(http.status_code), dict(http.headers))
        return Response(status_code=404)

    return Starlette(
        routes=[
            Route("/admin/host/status", admin(status)),
            Route("/admin/host/events", admin(deliver), methods=["POST"]),
            Route("/admin/functions/{name}", admin(run), methods=["POST"]),
            Route(WEBHOOK, webhook, methods=["POST"]),
            Route("/api/{path:path}", call, methods=METHODS),
        ]
    )


def _manual_input(function: Function, text: str) -> tuple[Typed, Mapping[str, Typed]]:
    """The data and the metadata for a call by a person with this input."""
    if function.kind == "timertrigger":
        return Typed("json", '{"IsPastDue": false}'), {}
    if function.kind == "blobtrigger":
        container, _, blob = text.partition("/")
        return reference(function, container, blob)
    return Typed("string", text), {}


def _failure(app: App, function: Function, data: Typed, metadata: Mapping[str, Typed]) -> str:
    """Why an invocation failed; empty if it did not."""
    try:
        app.invoke(function, data, metadata)
    except InvocationFailed as error:
        return str(error)
    return ""


def _route_values(route: str, path: str) -> dict[str, str] | None:
    """The values of a route's parameters in a path; None where the path does not match the route.

    `{*rest}` takes the rest of the path, `{name?}` may be missing in it.
    """
    pattern = (
        re.escape(route.strip("/")).replace(r"\{", "{").replace(r"\}", "}").replace(r"\*", "*")
    )
    pattern = pattern.replace(r"\?}", "?}")
    pattern = re.sub(r"/\{(\w+)\?\}", r"(?:/(?P<\1>[^/]+))?", pattern)
    pattern = re.sub(r"\{\*(\w+)\}", r"(?P<\1>.*)", pattern)
    pattern = re.sub(r"\{(\w+)(?::\w+)?\??\}", r"(?P<\1>[^/]+)", pattern)
    match = re.fullmatch(pattern, path, re.IGNORECASE)
    return {k: v for k, v in match.groupdict().items() if v is not None} if match else None
