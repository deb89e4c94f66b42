"""The one credential of the process: `azure-identity`'s own environment decides what stands behind it.

In Azure it is the function app's managed identity (`AZURE_CLIENT_ID` names a user-assigned one); a client
secret or certificate in `AZURE_…` variables goes before it; on a developer's machine the Azure CLI's sign-in.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential


def new_credential(
    client_id: str | None = None,
) -> "DefaultAzureCredential | ManagedIdentityCredential":
    """A credential with an empty token cache; `client_id` names a user-assigned managed identity, and then it
    is that one, whatever else the environment holds (a client secret for D365, say)."""
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    return ManagedIdentityCredential(client_id=client_id) if client_id else DefaultAzureCredential()


@lru_cache(maxsize=4)
def credential(
    client_id: str | None = None,
) -> "DefaultAzureCredential | ManagedIdentityCredential":
    """The process's shared credential, whose tokens are cached."""
    return new_credential(client_id)
