"""URLs by which another account reads a blob of ours: signed for that, and for nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import trustme

from local.azurite import Certificate, running_azurite
from local.simulator import Simulator, identity_settings
from shared import identity
from shared.config.settings import Storage
from shared.storage import signed
from shared.storage.account import IMPORTS, DataAccount, connect

NAME = "vendors/Écritures 1.zip"


@pytest.fixture
def without_key(
    d365: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DataAccount]:
    """An account over https that the managed identity opens, as in Azure, with a blob."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("127.0.0.1", "localhost")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    identity.credential.cache_clear()
    https = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    with running_azurite(https=https) as azurite:
        account = connect(Storage(None, azurite.blob_endpoint, azurite.queue_endpoint, None))
        account.blobs.create_container(IMPORTS)
        account.blobs.get_blob_client(IMPORTS, NAME).upload_blob(b"1;2;3")
        yield account
    identity.credential.cache_clear()


def test_the_identity_signs_for_one_blob_and_an_hour(without_key: DataAccount) -> None:
    """A user delegation SAS, by a key that storage gives the identity for as long: to read this blob, and
    nothing else."""
    url = signed.read_url(without_key, without_key.blobs.get_blob_client(IMPORTS, NAME))
    fields = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert (fields["sr"], fields["sp"], fields["sks"]) == ("b", "r", "b")
    assert {"skoid", "sktid", "skt", "ske", "skv", "sig"} <= fields.keys()
    for end in (fields["se"], fields["ske"]):
        left = datetime.fromisoformat(end) - datetime.now(UTC)
        assert timedelta(minutes=30) < left <= timedelta(hours=1)
    assert requests.get(url, timeout=30).content == b"1;2;3"
    assert requests.delete(url, timeout=30).status_code == 403
    other = url.replace("%201.zip", "%202.zip")
    assert other != url
    assert requests.get(other, timeout=30).status_code == 403
