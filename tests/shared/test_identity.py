"""Who we are to D365: the managed identity, or a registration that trusts it; and what the check says of it."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
from azure.core.credentials import TokenCredential

from local.asgi_server import serve
from local.simulator import Simulator, identity_settings
from shared.bridge import Bridge
from shared.config import settings
from shared.config.settings import InvalidSettings, Registration
from shared.d365 import D365
from shared.d365.errors import Denied
from shared.identity import holder, new_credential, new_d365_credential
from shared.operations import health
from tests.helpers import EXPORT_ID, Events

TENANT, CLIENT = "44444444-4444-4444-8444-444444444444", "11111111-1111-4111-8111-111111111111"
IDENTITY = "33333333-3333-4333-8333-333333333333"
REGISTRATION = Registration(TENANT, CLIENT, IDENTITY)


class Entra:
    """As much of a tenant's authority as a client with an assertion needs."""

    def __init__(self) -> None:
        self.token_request: dict[str, list[str]] = {}
        self.url = ""
        self.error = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, status = (await receive()).get("body", b""), 200
        base = f"{self.url}/{TENANT}"
        if scope["path"].endswith("/.well-known/openid-configuration"):
            answer: dict[str, Any] = {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
        elif self.error:
            answer, status = {"error": "invalid_client", "error_description": self.error}, 401
        else:
            self.token_request = parse_qs(body.decode())
            answer = {"access_token": "for D365", "token_type": "Bearer", "expires_in": 3600}
        content = json.dumps(answer).encode()
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": kind})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture
def identity(d365: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's managed identity, as in Azure."""
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_CLIENT_ID", IDENTITY)


@pytest.fixture
def entra(certificate: str) -> Iterator[Entra]:
    entra = Entra()
    with serve(entra, cert=certificate) as server:
        entra.url = server.url
        yield entra


def at(entra: Entra) -> Callable[[Registration | None], TokenCredential]:
    """Credentials of this authority, where it asks no other about it."""
    return partial(new_d365_credential, authority=entra.url, disable_instance_discovery=True)


def test_the_managed_identity_vouches_for_the_registration(entra: Entra, identity: None) -> None:
    """No secret: the assertion is the managed identity's own token for the exchange."""
    credential = at(entra)(REGISTRATION)
    assert credential.get_token("https://x.dynamics.com/.default").token == "for D365"
    assert entra.token_request["client_id"] == [CLIENT]
    assert entra.token_request["scope"] == ["https://x.dynamics.com/.default"]
    (assertion,) = entra.token_request["client_assertion"]
    claims = json.loads(base64.urlsafe_b64decode(assertion.split(".")[1] + "=="))
    assert (claims["aud"], claims["appid"]) == ("api://AzureADTokenExchange", IDENTITY)


def said_of(what: str, bridge: Bridge) -> str:
    """By the check, which finds it wrong."""
    (line,) = (line for line in health.check(bridge, 0) if line.what == what)
    assert line.verdict == "wrong"
    return line.text


@pytest.mark.parametrize(
    ("error", "todo"),
    [
        ("AADSTS700213: No matching federated identity record found", "federated credential"),
        ("AADSTS700236: Entra ID tokens issued by issuer", "multi-tenant"),
        ("AADSTS7000229: The client application is missing service principal", "az ad sp create"),
        ("AADSTS500011: The resource principal was not found", "is D365_URL right?"),
        ("AADSTS90000: something else", "is the managed identity assigned"),
    ],
)
def test_the_check_says_what_a_registration_lacks(
    error: str,
    todo: str,
    entra: Entra,
    identity: None,
    bridge: Bridge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With Entra's own words."""
    monkeypatch.setattr(health, "new_d365_credential", at(entra))
    entra.error = error
    (environment,) = bridge.settings.environments
    registered = msgspec.structs.replace(environment, tenant_id=TENANT, client_id=CLIENT)
    asking = Bridge(
        replace(bridge.settings, environments=(registered,)), bridge.clients, bridge.account
    )
    text = said_of("token", asking)
    assert error in text
    assert todo in text


def test_the_check_says_whom_d365_does_not_let_in(
    identity: None, bridge: Bridge, d365: Simulator
) -> None:
    """And that it may take no managed identity at all, where it is one."""
    d365.registered = False
    text = said_of("D365", bridge)
    assert f"let {IDENTITY} in" in text
    assert "takes no managed identity" in text


def test_the_holder_of_a_token_is_a_person_or_an_application() -> None:
    """A token is not ours to read: one of another form says nothing."""

    def token(**claims: str) -> str:
        return f"x.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"

    assert holder(token(appid=CLIENT)) == CLIENT
    assert holder(token(appid=CLIENT, upn="anna@contoso.com")) == "anna@contoso.com"
    assert [holder(text) for text in ("", "opaque", "a.b.c", "a.WzFd.c")] == [""] * 4


@pytest.mark.parametrize("setting", ["D365_TENANT_ID", "D365_CLIENT_ID"])
def test_half_a_registration_is_a_mistake(setting: str) -> None:
    """Either would be silently unused."""
    environment = {
        "D365_URL": "https://x.operations.dynamics.com",
        "DataStorage": "UseDevelopmentStorage=true",
        setting: TENANT,
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
    app_settings = settings.load(environment)
    assert app_settings.registration(app_settings.environments[0]) == Registration(
        TENANT, CLIENT, "the identity"
    )
    assert app_settings.function_timeout == timedelta(minutes=30)


def test_of_a_chain_of_credentials_the_one_that_matters_is_told(
    d365: Simulator, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """Not the twenty lines of those that nobody has set up."""
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    d365.add_fault("token", "answer", status=400, body='{"message": "not assigned"}', times=-1)
    with pytest.raises(Denied) as failed:
        D365(d365.base_url, new_credential).dequeue(EXPORT_ID)
    for text in (str(failed.value), events("d365.denied")[0]["error"]):
        assert "ManagedIdentityCredential: " in text
        assert "EnvironmentCredential" not in text
        assert len(text) < 700
        assert "\n" not in text
