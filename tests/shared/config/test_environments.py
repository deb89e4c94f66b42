"""Environments: one address for all of its spellings, and none that the token must not go to."""

from pathlib import Path

import pytest

from shared.config import environments, settings
from tests.helpers import APP_SETTINGS


def test_the_url_loses_its_slash_and_keeps_its_port(app: Path) -> None:
    """So that `{url}/.default` is the right scope."""
    for url in (
        APP_SETTINGS["D365_URL"],
        "https://contoso.operations.dynamics.com:443",
        "https://Contoso.Operations.Dynamics.com",
    ):
        (environment,) = settings.load({**APP_SETTINGS, "D365_URL": url}, app).environments
        assert environment.url == "https://contoso.operations.dynamics.com"
    (local,) = settings.load(
        {**APP_SETTINGS, "D365_URL": "http://127.0.0.1:8080/"}, app
    ).environments
    assert local.url == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    "url",
    [
        "http://contoso.operations.dynamics.com",
        "http://127.0.0.1.evil.example",
        "contoso.operations.dynamics.com",
        "https://",
        "https://host/path",
        "https://host?x=1",
        "https://user:pass@host",
        "https://host:port",
        "https://[::1",
        "ftp://host",
    ],
)
def test_a_url_that_the_token_must_not_go_to_is_refused(url: str, app: Path) -> None:
    """The token goes to one host over TLS; http is for a loopback host alone (A1)."""
    with pytest.raises(settings.InvalidSettings, match="D365_URL"):
        settings.load({**APP_SETTINGS, "D365_URL": url}, app)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (" https://Contoso.Example./\n", "https://contoso.example"),
        ("https://contoso.example:8443", "https://contoso.example:8443"),
        ("http://localhost:80/", "http://localhost"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_address_is_written_in_one_way(text: str, url: str) -> None:
    """Or one environment would be taken for two, and asked for a token of another audience."""
    assert environments.normalized(text) == url
    assert environments.normalized(url) == url
