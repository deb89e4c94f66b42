"""Who we are to D365 where it is in another tenant: an app registration that trusts the managed identity."""

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme

from local.serving import serve
from local.simulator import Simulator, identity_settings
from shared import settings
from shared.identity import new_d365_credential
from shared.settings import InvalidSettings, Registration

TENANT, CLIENT = "44444444-4444-4444-8444-444444444444", "11111111-1111-4111-8111-111111111111"


class Entra:
    """As much of a tenant's authority as a client with an assertion needs."""

    def __init__(self) -> None:
        self.asked: dict[str, list[str]] = {}
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        base = f"{self.url}/{TENANT}"
        if scope["path"].endswith("/.well-known/openid-configuration"):
            found: dict[str, Any] = {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
        else:
            self.asked = parse_qs(body.decode())
            found = {"access_token": "for D365", "token_type": "Bearer", "expires_in": 3600}
        content = json.dumps(found).encode()
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": content})


def test_the_managed_identity_vouches_for_the_registration(
    d365: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret: the assertion is the managed identity's own token for the exchange."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("127.0.0.1", "localhost")
    own.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    entra = Entra()
    with serve(entra, cert=str(tmp_path / "own.pem")) as server:
        entra.url = server.url
        credential = new_d365_credential(
            Registration(TENANT, CLIENT, CLIENT),
            authority=server.url,
            disable_instance_discovery=True,
        )
        assert credential.get_token("https://x.dynamics.com/.default").token == "for D365"
    assert entra.asked["client_id"] == [CLIENT]
    assert entra.asked["scope"] == ["https://x.dynamics.com/.default"]
    (assertion,) = entra.asked["client_assertion"]
    claims = json.loads(base64.urlsafe_b64decode(assertion.split(".")[1] + "=="))
    assert claims["aud"] == "api://AzureADTokenExchange"


@pytest.mark.parametrize("given", ["D365_TENANT_ID", "D365_CLIENT_ID"])
def test_half_a_registration_is_a_mistake(given: str) -> None:
    """Either would be silently unused."""
    environment = {
        "D365_URL": "https://x.operations.dynamics.com",
        "DataStorage": "UseDevelopmentStorage=true",
        given: TENANT,
    }
    with pytest.raises(InvalidSettings, match="set both, or neither"):
        settings.load(environment)


def test_a_registration_is_read() -> None:
    """With the identity that it trusts."""
    environment = {
        "D365_URL": "https://x.operations.dynamics.com",
        "DataStorage": "UseDevelopmentStorage=true",
        "D365_TENANT_ID": TENANT,
        "D365_CLIENT_ID": CLIENT,
        "AZURE_CLIENT_ID": "the identity",
    }
    found = settings.load(environment)
    assert found.registration == Registration(TENANT, CLIENT, "the identity")
    assert found.function_timeout == timedelta(minutes=30)
