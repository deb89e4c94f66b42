"""The HTTP trigger (`/api/...`), and the host's own side (`/admin/...`)."""

import json
import re
import threading
from collections.abc import Mapping
from types import SimpleNamespace

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.host.blobs import reference
from local.host.invoking import App
from local.worker import Function, InvocationFailed, Typed

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def application(app: App) -> Starlette:
    """What the host serves (ASGI)."""

    async def status(_: Request) -> Response:
        return JSONResponse(app.status())

    async def events(request: Request) -> Response:
        app.deliver_events = bool((await request.json())["deliver"])
        return JSONResponse({})

    async def run(request: Request) -> Response:
        function = app.functions.get(request.path_params["name"])
        if function is None:
            return Response(status_code=404)
        said = json.loads(await request.body() or b"{}")
        given = (app, function, *_by_hand(function, str(said.get("input", ""))))
        if request.query_params.get("wait") != "true":
            threading.Thread(target=_failure, args=given, daemon=True).start()
            return Response(status_code=202)
        error = await run_in_threadpool(_failure, *given)
        return JSONResponse(
            {"status": "failure", "error": error} if error else {"status": "success"}
        )

    async def call(request: Request) -> Response:
        for function in app.functions.values():
            trigger = function.trigger
            if str(trigger["type"]).lower() != "httptrigger":
                continue
            route = str(trigger.get("route") or function.name)
            params = _matched(route, request.path_params["path"].strip("/"))
            methods = [str(each).upper() for each in trigger.get("methods") or METHODS]
            if params is None or request.method not in methods:
                continue
            asked = SimpleNamespace(
                method=request.method,
                url=str(request.url),
                headers=dict(request.headers.items()),
                params=params,
                query=dict(request.query_params),
                body=Typed("bytes", await request.body()),
            )
            try:
                answer = await run_in_threadpool(app.invoke, function, Typed("http", asked))
            except InvocationFailed:
                return Response(status_code=500)
            http = answer.return_value.http
            content = next(iter(vars(http.body).values())) if http.body else b""
            return Response(content, int(http.status_code), dict(http.headers))
        return Response(status_code=404)

    return Starlette(
        routes=[
            Route("/admin/host/status", status),
            Route("/admin/host/events", events, methods=["POST"]),
            Route("/admin/functions/{name}", run, methods=["POST"]),
            Route("/api/{path:path}", call, methods=METHODS),
        ]
    )


def _by_hand(function: Function, text: str) -> tuple[Typed, Mapping[str, Typed]]:
    """What a function gets that a person runs with this input."""
    kind = str(function.trigger["type"]).lower()
    if kind == "timertrigger":
        return Typed("json", '{"IsPastDue": false}'), {}
    if kind == "blobtrigger":
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


def _matched(route: str, path: str) -> dict[str, str] | None:
    """The values of a route's parameters, or None; `{*rest}` takes the rest, `{name?}` may be missing."""
    pattern = (
        re.escape(route.strip("/")).replace(r"\{", "{").replace(r"\}", "}").replace(r"\*", "*")
    )
    pattern = pattern.replace(r"\?}", "?}")
    pattern = re.sub(r"/\{(\w+)\?\}", r"(?:/(?P<\1>[^/]+))?", pattern)
    pattern = re.sub(r"\{\*(\w+)\}", r"(?P<\1>.*)", pattern)
    pattern = re.sub(r"\{(\w+)(?::\w+)?\??\}", r"(?P<\1>[^/]+)", pattern)
    match = re.fullmatch(pattern, path, re.IGNORECASE)
    return {k: v for k, v in match.groupdict().items() if v is not None} if match else None
