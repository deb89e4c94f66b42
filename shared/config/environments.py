"""D365 environments, as the jobs file and the app settings name them."""

import ipaddress
from collections.abc import Iterator
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

ONLY: Final = "default"
"""What the environment is named that D365_URL alone says."""

Id = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$(?!\n)",
        extra={"mistake": "must be an id as Microsoft Entra shows it"},
    ),
]


class InvalidUrl(ValueError):
    """An address that is no environment's. The message says what it must be."""


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A D365 environment that the bridge serves."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$(?!\n)",
            description="By which jobs, the page and the telemetry name it. Letters, digits and inner hyphens.",
            extra={"mistake": "must be 1 to 63 letters, digits and inner hyphens"},
        ),
    ]
    url: Annotated[
        str,
        Meta(
            description="Its address, https://….dynamics.com; once it is read, https://host without a slash."
        ),
    ]
    tenant_id: Annotated[
        Id | None,
        Meta(
            description="Its tenant, where its app registration is not the one of D365_CLIENT_ID."
        ),
    ] = None
    client_id: Annotated[
        Id | None,
        Meta(description="The app registration that it knows, with tenantId."),
    ] = None


def normalized(text: str) -> str:
    """An environment's address as `https://host`, the same for all of its spellings. Raises `InvalidUrl`.

    It is also the audience of the token, which has no port of its scheme's own.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = (parts.hostname or "").removesuffix("."), parts.port
    except ValueError as error:
        raise InvalidUrl(f"not a URL ({error})") from error
    if parts.scheme not in ("https", "http") or not host:
        raise InvalidUrl("must be https:// and the environment's host")
    if parts.scheme == "http" and not is_loopback(host):
        raise InvalidUrl("must be https (http is taken for a loopback host only)")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise InvalidUrl("must be the host alone, without a path, query or user")
    netloc = f"[{host}]" if ":" in host else host
    other_port = port and port != {"https": 443, "http": 80}[parts.scheme]
    return f"{parts.scheme}://{netloc}" + (f":{port}" if other_port else "")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def repeated(environments: list[tuple[str, str, str]]) -> Iterator[str]:
    """A mistake for each name and address that stands twice; of each environment its path, name and URL."""
    names: dict[str, str] = {}
    urls: dict[str, str] = {}
    for path, name, url in environments:
        if (other := names.setdefault(name.lower(), path)) != path:
            yield f"{path}.name: {name} is the name of {other} too"
        if (other := urls.setdefault(url, path)) != path:
            yield f"{path}.url: {other} has the same, {url}; one environment has one name"
