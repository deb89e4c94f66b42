"""The process's credential for Azure and D365: `azure-identity` chooses it by its environment variables.

In Azure it is the function app's managed identity (`AZURE_CLIENT_ID` names a user-assigned one); on a
developer's machine the Azure CLI's sign-in, or a client secret or certificate in `AZURE_…` variables. To D365
it may be an app registration that trusts the managed identity.
"""

import base64
import json
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from shared.connections import SdkTransport

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    from shared.config.settings import Registration


def new_credential(
    client_id: str | None = None,
) -> "DefaultAzureCredential | ManagedIdentityCredential":
    """A credential with an empty token cache; `client_id` names a user-assigned managed identity, and then it
    is that one, whatever else the environment holds (a client secret for D365, say)."""
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    options: dict[str, Any] = {"transport": SdkTransport()}
    if client_id:
        return ManagedIdentityCredential(client_id=client_id, **options)
    return DefaultAzureCredential(**options)


def new_d365_credential(
    registration: "Registration | None" = None, **options: Any
) -> "TokenCredential":
    """A credential for D365 with an empty token cache: the environment's own, or an app registration that
    trusts the managed identity (Microsoft Learn, "Configure an application to trust a managed identity": both
    in one tenant, also where D365 is in another). `options` are those of `azure-identity`."""
    if registration is None:
        return new_credential()
    from azure.identity import ClientAssertionCredential, ManagedIdentityCredential

    transport = SdkTransport()
    own = ManagedIdentityCredential(client_id=registration.identity or None, transport=transport)
    return ClientAssertionCredential(
        registration.tenant_id,
        registration.client_id,
        lambda: own.get_token("api://AzureADTokenExchange/.default").token,
        **{"transport": transport, **options},
    )


def why_no_token(error: Exception) -> str:
    """What a person needs of a token that could not be had: of all credentials that `DefaultAzureCredential`
    tries, the one that is set up here, in one line."""
    tried = dict(re.findall(r"^\t(\w+): (.*(?:\n(?!\t|To mitigate).*)*)", str(error), re.MULTILINE))
    # It ends at the first one that is set up and fails; where none is, the last is the broker's.
    last = next(reversed(tried), "")
    if "IDENTITY_ENDPOINT" in os.environ and "ManagedIdentityCredential" in tried:
        last = "ManagedIdentityCredential"
    elif last == "BrokerCredential":
        last = "AzureCliCredential"
    text = f"{last}: {tried[last]}" if last else str(error) or type(error).__name__
    return " ".join(text.split())[:500]


@lru_cache(maxsize=4)
def credential(
    client_id: str | None = None,
) -> "DefaultAzureCredential | ManagedIdentityCredential":
    """The process's shared credential, whose tokens are cached."""
    return new_credential(client_id)


def holder(token: str) -> str:
    """Who D365 sees, by the claims of a token (Microsoft Learn, "Access token claims reference"): a person, or
    an application's client id; empty where the token can't be read."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims.get("upn") or claims.get("appid") or "")
    except (ValueError, IndexError, AttributeError):
        return ""
