"""The middleware that every request to D365 passes before it is served."""

import asyncio
import contextlib
from collections.abc import Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local.simulator import faults, identity
from local.simulator.context import Context, D365Request
from local.simulator.records import Recorded
from local.simulator.state import Simulator


class Recorder:
    """Records a request, delays it, applies a fault to it and checks its token; then it is served."""

    def __init__(self, app: ASGIApp, d365: Simulator, routes: Sequence[Route]) -> None:
        self._app, self._d365, self._routes = app, d365, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unread = True

        async def read() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                while unread:  # every answer comes after the whole request body, a denial too
                    await read()
                record.status = message["status"]
                faults.before_answer(fault, scope)
                await send(message)
            else:
                async for part in faults.answer_parts(fault, scope, message):
                    await send(part)

        d365, (operation, activity_id) = self._d365, self._operation(scope)
        record = Recorded(
            operation,
            scope["method"],
            scope["path"],
            scope["query_string"].decode(),
            {k: v for k, v in scope["wire_headers"] if k.lower() != "authorization"},
            identity.authorized(d365, Request(scope)),
        )
        d365.requests.append(record)
        if seconds := d365.latency.get(operation, d365.latency.get("*", 0.0)):
            await asyncio.sleep(seconds)
        target = f"{scope['path']}?{record.query}"
        fault = faults.choose(d365.faults, operation, activity_id, target)
        scope["state"] = Context(d365=d365, activity_id=activity_id, record=record, fault=fault)
        request: D365Request = Request(scope, read)
        with contextlib.suppress(ClientDisconnect):
            served: ASGIApp = (
                await faults.before_serving(request) or identity.denial(request) or self._app
            )
            await served(scope, read, answer)

    def _operation(self, scope: Scope) -> tuple[str, str]:
        """The operation, which is the name of the request's route, and the activity id."""
        for route in self._routes:
            match, child_scope = route.matches(scope)
            if match is not Match.NONE:
                activity_id = child_scope["path_params"].get("activity_id", "")
                return route.name, activity_id.strip("{}").lower()
        return "unknown", ""
