"""`d365-blob-bridge register URL CLIENT_ID USER`: let an application into D365, as its form *Microsoft Entra
applications* does.

It signs in as you (az login). You must be a System administrator there. It writes to D365's OData entity
SysAADClients (Microsoft Learn, "Open Data Protocol (OData)").
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Final

import requests
from azure.core.exceptions import AzureError
from azure.identity import AzureCliCredential

NAME: Final = "d365-blob-bridge"
TIMEOUT: Final = 60.0


def register(url: str, token: str, client_id: str, user: str) -> str:
    """Register an application. Returns a sentence that says what was done.

    Raises `ValueError` with D365's reason, and `requests.RequestException` where D365 can't be reached.
    """
    entity = f"{url}/data/SysAADClients"
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        condition = {"$filter": f"AADClientId eq '{client_id}'"}
        response = session.get(entity, params=condition, timeout=TIMEOUT)
        if registered := _content(response)["value"]:
            registered_user = registered[0]["UserId"]
            if registered_user.lower() == user.lower():
                return f"{client_id} is registered already, as the user {user}."
            raise ValueError(
                f"{client_id} is registered already, as the user {registered_user}. Change it on the "
                "form Microsoft Entra applications."
            )
        application = {"AADClientId": client_id, "Name": NAME, "UserId": user}
        _content(session.post(entity, json=application, timeout=TIMEOUT))
    return f"{client_id} is registered, as the user {user}. It works at once."


def _content(response: requests.Response) -> dict[str, list[dict[str, str]]]:
    """The content of an answer. Raises `ValueError` with D365's error text."""
    if response.status_code in (401, 403):
        raise ValueError(
            f"D365 does not let you do this ({response.status_code}). You must be a user of this D365 with the "
            "role System administrator. Sign in as that user: az login --tenant TENANT --allow-no-subscriptions"
        )
    try:
        content = response.json()
        if response.ok:
            return dict(content)
        error = content["error"]
        text = error.get("innererror", error)["message"]
    except (requests.JSONDecodeError, KeyError, TypeError):
        text = "the answer is not OData; is this a D365 Finance & Operations environment?"
    raise ValueError(f"D365 answered {response.status_code}: {text}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Register an application, and print what was done. If it fails, exit with 1 and print the reason."""
    parser = argparse.ArgumentParser("d365-blob-bridge register", description=__doc__)
    parser.add_argument("url", help="the environment: https://….dynamics.com")
    parser.add_argument("client_id", help="the application's client id; the deployment prints it")
    parser.add_argument("user", help="the id of the D365 user as which the application works")
    options = parser.parse_args(arguments)
    url = options.url.rstrip("/")
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # errors are printed here
    try:
        token = AzureCliCredential().get_token(f"{url}/.default").token
        print(register(url, token, options.client_id, options.user))
    except AzureError as error:
        sys.exit(f"No token for {url}. Sign in with az login. {error}")
    except (ValueError, requests.RequestException) as error:
        sys.exit(f"Not registered. {error}")
    return 0
