"""What the tests of shared/ share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from local.asgi_server import serve
from tests.helpers import Elsewhere


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file of a certificate for this machine, of an authority that we trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("127.0.0.1", "localhost")
    own.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    return str(tmp_path / "own.pem")


@pytest.fixture
def elsewhere(certificate: str) -> Iterator[tuple[str, Elsewhere]]:
    """An https server that is not D365."""
    server = Elsewhere()
    with serve(server, cert=certificate) as served:
        yield served.url.replace("127.0.0.1", "localhost"), server
