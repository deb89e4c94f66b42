"""The managed-identity endpoint, which issues tokens, and the check of the tokens in requests."""

import base64
import json
import time
from typing import Final
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.simulator.context import D365Request, rejection
from local.simulator.state import Simulator

IDENTITY_HEADER: Final = "local-identity-header"


def identity_settings(simulator: Simulator) -> dict[str, str]:
    """The environment variables with which `azure-identity` gets its tokens from the simulator."""
    return {
        "IDENTITY_ENDPOINT": f"{simulator.base_url}/msi/token",
        "IDENTITY_HEADER": IDENTITY_HEADER,
    }


def authorized(d365: Simulator, request: Request) -> bool:
    """Whether the request has a token for this environment that has not expired."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    audience, expires = d365.issuer.tokens.get(token, ("", 0.0))
    return audience == d365.base_url and time.time() < expires


def denial(request: D365Request) -> Response | None:
    """The answer that denies a request access; None where it has access."""
    d365, record = request.state["d365"], request.state["record"]
    if record.operation in ("token", "error_keys"):
        return None
    if not record.authorized:
        header = {"WWW-Authenticate": f'Bearer resource="{d365.base_url}"'}
        return Response(status_code=401, headers=header)
    if not d365.registered and record.operation != "applications":  # a person sends these
        text = "The application is not registered in Dynamics 365, or its user is disabled."
        return rejection(403, text)
    return None


async def token(request: D365Request) -> Response:
    """The App Service managed-identity endpoint (Microsoft Learn, "How to use managed identities for App
    Service and Azure Functions", section REST endpoint reference)."""
    if request.headers.get("x-identity-header") != IDENTITY_HEADER:
        return rejection(401, "The identity header is wrong.")
    d365, resource = request.state["d365"], request.query_params.get("resource", "")
    expires = time.time() + d365.token_seconds
    if d365.keeps_tokens and resource in d365.kept_tokens:
        issued, expires = d365.kept_tokens[resource]
    else:
        issued = _unsigned_jwt(resource, request.query_params.get("client_id", ""), expires)
        d365.kept_tokens[resource] = issued, expires
        d365.tokens[issued] = (resource.rstrip("/"), expires)
    return JSONResponse(
        {
            "access_token": issued,
            "expires_on": str(int(expires)),
            "resource": resource,
            "token_type": "Bearer",
        }
    )


def _unsigned_jwt(audience: str, client_id: str, expires: float) -> str:
    """A token in Entra's form. Azurite reads its claims, but does not check its signature."""
    claims = {
        "aud": audience.rstrip("/"),
        "appid": client_id,
        "iss": f"https://sts.windows.net/{UUID(int=1)}/",
        "oid": str(UUID(int=2)),
        "tid": str(UUID(int=1)),
        "iat": int(time.time()) - 60,
        "nbf": int(time.time()) - 60,
        "exp": int(expires),
        "jti": uuid4().hex,
    }
    parts = [{"typ": "JWT", "alg": "RS256"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"unsigned"]).decode()


ROUTES: Final = (Route("/msi/token", token),)
