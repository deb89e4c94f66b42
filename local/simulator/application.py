"""The simulator as an ASGI application, and its server."""

import contextlib
from collections.abc import Iterator

from starlette.middleware import Middleware
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from local.asgi_server import serve
from local.simulator import connector, entities, identity, odata, package_api
from local.simulator.context import rejection
from local.simulator.control import control
from local.simulator.middleware import Recorder
from local.simulator.state import Simulator


def application(simulator: Simulator) -> ASGIApp:
    """The simulator as an ASGI application."""
    routes = (
        *connector.ROUTES,
        *package_api.ROUTES,
        *odata.ROUTES,
        *entities.ROUTES,
        *identity.ROUTES,
    )
    recorder = Middleware(Recorder, simulator, routes)
    d365 = Router([*routes, Mount("", _unknown)], middleware=[recorder])
    return Router([control(simulator), Mount("", d365)])


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    await rejection(404, f"No resource was found for {scope['path']}")(scope, receive, send)


@contextlib.contextmanager
def running_simulator(
    port: int = 0, *, cert: str | None = None, key: str | None = None
) -> Iterator[Simulator]:
    """A simulator served from a thread of this process; with a certificate, over TLS."""
    simulator = Simulator()
    with serve(application(simulator), port, cert, key) as server:
        simulator.base_url = server.url
        yield simulator
