"""`d365-blob-bridge register`, against the simulator.

The Azure CLI can't sign in here, so an `az` of the test's own gives the real `AzureCliCredential` its token.
"""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from local.simulator import Simulator, identity_settings
from shared.d365 import D365, MessageId
from shared.d365.errors import Denied, Rejected
from shared.identity import new_credential
from tools.register import main

CLIENT_ID = "5f4c9f2e-6d0b-4c6e-9b1a-2f7d8e3c1a00"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its az is a shell script")


@pytest.fixture
def az(d365: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Signed in as an administrator of the environment."""
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    token = {
        "accessToken": new_credential().get_token(f"{d365.base_url}/.default").token,
        "expires_on": int(time.time()) + 3600,
        "expiresOn": "2099-01-01 00:00:00.000000",
    }
    path = tmp_path / "az"
    path.write_text(f"#!/bin/sh\necho '{json.dumps(token)}'\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return path


def status(d365: Simulator) -> object:
    return D365(d365.base_url, new_credential).message_status(MessageId("some"))


def test_an_application_comes_in_once_it_is_registered(
    d365: Simulator, az: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second time changes nothing."""
    d365.registered = False
    with pytest.raises(Denied):
        status(d365)
    assert main([f"{d365.base_url}/", CLIENT_ID, "bridge"]) == 0
    assert d365.applications == [
        {"AADClientId": CLIENT_ID, "Name": "d365-blob-bridge", "UserId": "bridge"}
    ]
    with pytest.raises(Rejected):  # there is no such message: the application is let in
        status(d365)
    assert main([d365.base_url, CLIENT_ID, "Bridge"]) == 0
    assert len(d365.applications) == 1
    assert "registered already" in capsys.readouterr().out


def test_one_that_has_another_user_stays_as_it_is(d365: Simulator, az: Path) -> None:
    main([d365.base_url, CLIENT_ID, "bridge"])
    with pytest.raises(SystemExit, match="as the user bridge"):
        main([d365.base_url, CLIENT_ID, "Admin"])
    assert [each["UserId"] for each in d365.applications] == ["bridge"]


def test_what_d365_says_against_it_is_said(d365: Simulator, az: Path) -> None:
    with pytest.raises(SystemExit, match=r"400.*'nobody' in field 'User ID' is not found"):
        main([d365.base_url, CLIENT_ID, "nobody"])


def test_who_is_no_administrator_is_told_to_sign_in_as_one(d365: Simulator, az: Path) -> None:
    d365.revoke_tokens()
    with pytest.raises(SystemExit, match=r"\(401\).*System administrator"):
        main([d365.base_url, CLIENT_ID, "bridge"])


def test_who_is_not_signed_in_is_told_to(d365: Simulator, az: Path) -> None:
    az.write_text("#!/bin/sh\necho \"Please run 'az login' to setup account.\" >&2\nexit 1\n")
    with pytest.raises(SystemExit, match="az login"):
        main([d365.base_url, CLIENT_ID, "bridge"])


def test_what_is_no_d365_is_said_to_be_none(d365: Simulator, az: Path) -> None:
    """A page of something else, say."""
    d365.add_fault("applications", "answer", status=200, body=b"<html>Welcome</html>")
    with pytest.raises(SystemExit, match="is this a D365 Finance & Operations environment"):
        main([d365.base_url, CLIENT_ID, "bridge"])
