"""What the tests of shared/ share."""

from collections.abc import Iterator
from typing import Any

import pytest

from local.asgi_server import serve
from tests.helpers import Elsewhere


@pytest.fixture
def elsewhere(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Elsewhere]]:
    """An https server that is not D365, with a certificate that we trust."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("127.0.0.1", "localhost")
    own.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    server = Elsewhere()
    with serve(server, cert=str(tmp_path / "own.pem")) as served:
        yield served.url.replace("127.0.0.1", "localhost"), server
