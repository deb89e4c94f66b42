"""`/control/...`: other processes call methods of `Simulator`, with the arguments as a JSON object."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from local.simulator.context import rejection
from local.simulator.state import Simulator


def control(d365: Simulator) -> Mount:
    """The routes by which other processes control a simulator."""

    def package(activity_id: str, file: str = "", text: str = "", **options: Any) -> str:
        content = Path(file) if file else text.encode("latin-1")
        return d365.add_package(activity_id, content, **options).correlation_id

    def fault(**options: Any) -> None:
        d365.add_fault(**options)

    def settings(**values: Any) -> None:
        _set(d365, values)

    def package_settings(**values: Any) -> None:
        _set(d365.package_api, values)

    methods: dict[str, Callable[..., Any]] = {
        "state": d365.state,
        "package": package,
        "fault": fault,
        "settings": settings,
        "package-settings": package_settings,
        "storage": d365.use_storage,
        "export-job": d365.add_export_job,
        "import-job": d365.add_import_job,
        "clear-faults": lambda: d365.faults.clear(),  # noqa: PLW0108 - reset makes a new list
        "reset": d365.reset,
    }

    async def call(request: Request) -> Response:
        name, raw = request.path_params["name"], await request.body()
        if name not in methods:
            return rejection(404, f"no control {name}")
        return JSONResponse(methods[name](**json.loads(raw or b"{}")))

    return Mount("/control", routes=[Route("/{name}", call, methods=["GET", "POST"])])


def _set(target: object, values: dict[str, Any]) -> None:
    """Set attributes. JSON's values become the types that the attributes have."""
    for name, value in values.items():
        setattr(target, name, type(getattr(target, name))(value))
