"""The simulator over TLS; everything else of it is tested by the tests that use it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import trustme

from local.hosting import ROOT
from local.simulator import identity_settings, running_simulator
from shared.d365 import D365
from shared.identity import new_credential
from tests.conftest import EXPORT_ID


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
