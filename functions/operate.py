"""HTTP: the operating page, and the same views as JSON. Its modules are imported at the first request."""

from typing import TYPE_CHECKING

import azure.functions as func

if TYPE_CHECKING:
    from shared.operations.web import Request, Response

blueprint = func.Blueprint()


@blueprint.function_name("operate")
@blueprint.route(
    route="operate/{view?}", methods=["GET", "POST"], auth_level=func.AuthLevel.FUNCTION
)
def operate(req: func.HttpRequest) -> func.HttpResponse:
    """Jobs, files, one file, the check; and by POST what a person does about a file."""
    from shared.operations import web

    return _response(web.page(_request(req)))


@blueprint.function_name("operate_api")
@blueprint.route(
    route="operate/api/{view}", methods=["GET", "POST"], auth_level=func.AuthLevel.FUNCTION
)
def operate_api(req: func.HttpRequest) -> func.HttpResponse:
    """The same as JSON."""
    from shared.operations import web

    return _response(web.api(_request(req)))


def _request(req: func.HttpRequest) -> "Request":
    from shared.operations.web import Request

    return Request(
        method=req.method,
        url=req.url,
        view=req.route_params.get("view", ""),
        query=req.params,
        headers={name.lower(): value for name, value in req.headers.items()},
        body=req.get_body(),
    )


def _response(response: "Response") -> func.HttpResponse:
    return func.HttpResponse(
        response.body, status_code=response.status, headers=dict(response.headers)
    )
