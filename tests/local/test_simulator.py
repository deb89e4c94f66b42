"""The simulator over TLS, and asked as clients ask that work against D365; the rest is tested by the tests that
use it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from local.hosting import ROOT
from local.simulator import Simulator, identity_settings, running_simulator
from shared.d365 import D365
from shared.identity import new_credential
from tests.conftest import EXPORT_ID, IMPORT_ID


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A certificate for loopback that clients trust, and its key."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    cert, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    own.cert_chain_pems[0].write_to_path(cert)
    own.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca))
    return str(cert), str(key)


def test_a_package_is_fetched_over_tls(
    certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token, the message and the package; and a fault breaks that connection too."""
    cert, key = certificate
    with running_simulator(cert=cert, key=key) as d365:
        for name, value in identity_settings(d365).items():
            monkeypatch.setenv(name, value)
        d365.add_package(EXPORT_ID, b"PK of an export job")
        client = D365(d365.base_url, new_credential)
        message = client.dequeue(EXPORT_ID)
        assert message
        assert message.download_location.startswith("https://")
        with client.download(message) as download:
            assert download.read(1 << 20) == b"PK of an export job"
        d365.add_fault("*", "reset")
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{d365.base_url}/anything", timeout=10)


def test_the_command_line_serves_over_tls(certificate: tuple[str, str]) -> None:
    """Its first line says where."""
    cert, key = certificate
    command = [sys.executable, "-m", "local.simulator", "--cert", cert, "--key", key]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = json.loads(process.stdout.readline())["url"]
            assert url.startswith("https://")
            assert requests.get(f"{url}/control/state", timeout=10).json()["packages"] == []
        finally:
            process.terminate()


@pytest.fixture
def ask(
    d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Sends a request with a token: the answer's status and JSON."""
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    token = new_credential().get_token(f"{d365.base_url}/.default").token

    def request(
        method: str, path: str, data: str = "", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        response = requests.request(
            method,
            d365.base_url + path,
            data=data,
            headers={"Authorization": f"Bearer {token}", **headers},
            timeout=10,
        )
        found = response.json() if response.content else None
        return response.status_code, found if isinstance(found, dict) else {"": found}

    return request


type Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.mark.parametrize("blank", [None, ""])
def test_a_message_is_acknowledged_with_its_three_fields(
    d365: Simulator, ask: Ask, blank: str | None
) -> None:
    """As the Recurring Integrations Scheduler does, with the location changed to https; and what is blank in a
    message is null or an empty text."""
    d365.blank = blank
    package = d365.add_package(EXPORT_ID, b"PK")
    _, message = ask("GET", f"/api/connector/dequeue/%7B{EXPORT_ID}%7D")
    assert message["LastDequeueDateTime"] == message["FileDownLoadErrorMessage"] == blank
    fields = {key: message[key] for key in ("CorrelationId", "PopReceipt", "DownloadLocation")}
    fields["DownloadLocation"] = fields["DownloadLocation"].replace("http:", "https:")
    kind = "application/json; charset=utf-8"
    path = f"/api/connector/ack/{EXPORT_ID}"
    assert ask("POST", path, json.dumps(fields), Content_Type=kind)[0] == 200
    assert package.acknowledged == 1


def test_an_action_takes_single_quotes(d365: Simulator, ask: Ask) -> None:
    """As d365fo.integrations sends them."""
    _, found = ask("POST", f"/api/connector/enqueue/%7b{IMPORT_ID}%7d", "1;2;3")
    action = "/data/DataManagementDefinitionGroups/Microsoft.Dynamics.DataEntities.GetMessageStatus"
    status, found = ask(
        "POST", action, f"{{'messageId':'{found['']}'}}", Content_Type="application/json"
    )
    assert (status, found["value"]) == (200, "Enqueued")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json;odata.metadata=minimal", 415),
        ("application/octet-stream", 200),
        ("application/zip", 200),
        ("", 200),
    ],
)
def test_a_file_that_calls_itself_json_is_turned_down(ask: Ask, kind: str, status: int) -> None:
    """No client that works sends one."""
    headers = {"Content_Type": kind} if kind else {}
    path = f"/api/connector/enqueue/{IMPORT_ID}?entity=Steps"
    assert ask("POST", path, "1;2;3", **headers)[0] == status
