"""Storage fetches from storage: whole, of one version, or not at all; who is refused is told so at once."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient, generate_blob_sas

from local.azurite import Azurite
from shared import clock
from shared.config.settings import Storage
from shared.storage import block_copy
from shared.storage.account import EXPORTS, DataAccount, connect
from shared.storage.block_copy import NotCopied
from tests.helpers import D365_STORAGE, contents

BLOCK = 64 * 1024
DATA = os.urandom(3 * BLOCK + 7)


@pytest.fixture
def source(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> BlobClient:
    """A blob there of several blocks. Nothing was tried between the accounts yet."""
    monkeypatch.setattr(block_copy, "BLOCK", BLOCK)
    block_copy._refused.clear()
    container = "tests"
    service = connect(Storage(azurite.connection_string_of(D365_STORAGE), None, None, None)).blobs
    if not service.get_container_client(container).exists():
        service.create_container(container)
    blob = service.get_blob_client(container, "package.zip")
    blob.upload_blob(DATA, overwrite=True)
    return blob


@pytest.fixture
def target(account: DataAccount) -> BlobClient:
    return account.blobs.get_blob_client(EXPORTS, "vendors/package.zip")


def signed(source: BlobClient, key: str, seconds: float = 300, permission: str = "r") -> str:
    """A URL of a blob, good for so long."""
    query = generate_blob_sas(
        str(source.account_name),
        source.container_name,
        source.blob_name,
        account_key=key,
        permission=permission,
        expiry=datetime.now(UTC) + timedelta(seconds=seconds),
    )
    return f"{source.url}?{query}"


@pytest.fixture
def url(source: BlobClient, azurite: Azurite) -> Callable[..., str]:
    def make(seconds: float = 300, permission: str = "r") -> str:
        return signed(source, azurite.account_key, seconds, permission)

    return make


def etag_of(blob: BlobClient) -> str:
    return str(blob.get_blob_properties().etag)


def test_storage_fetches_it_whole(
    source: BlobClient, target: BlobClient, account: DataAccount, url: Callable[..., str]
) -> None:
    """By one URL, in blocks of which the last is shorter; with the metadata that belong to it."""
    urls: list[str] = []

    def new_url() -> str:
        urls.append(url())
        return urls[-1]

    block_copy.copy(new_url, etag_of(source), len(DATA), target, metadata={"job": "vendors"})
    assert contents(account, EXPORTS) == {"vendors/package.zip": DATA}
    assert target.get_blob_properties().metadata == {"job": "vendors"}
    assert len(urls) == 1


def test_a_url_that_expires_meanwhile_is_asked_for_anew(
    source: BlobClient,
    target: BlobClient,
    account: DataAccount,
    url: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was fetched by then is not fetched again."""
    urls = [url(), url(301)]
    staged: list[tuple[str, int]] = []
    stage = BlobClient.stage_block_from_url
    expired: set[str] = set()

    def staging(self: BlobClient, id_: str, url: str, *args: object, **options: object) -> object:
        staged.append((url, int(str(options["source_offset"]))))
        if len(staged) == 3:  # from now on it is refused, as storage does with an expired one
            expired.add(url)
        bad = url.replace("sig=", "sig=A") if url in expired else url
        return stage(self, id_, bad, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(BlobClient, "stage_block_from_url", staging)
    monkeypatch.setattr(block_copy, "PARALLEL", 1)
    remaining = iter(urls)
    block_copy.copy(lambda: next(remaining), etag_of(source), len(DATA), target)
    assert contents(account, EXPORTS) == {"vendors/package.zip": DATA}
    assert [start for url, start in staged if url == urls[1]] == [2 * BLOCK, 3 * BLOCK]


@pytest.mark.parametrize("permission", ["r", "w"])
def test_a_refusal_is_told_at_once_and_remembered(
    source: BlobClient,
    target: BlobClient,
    account: DataAccount,
    url: Callable[..., str],
    permission: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One request shows it; for an hour none is made between the two accounts. Nothing becomes visible."""
    seconds = -60 if permission == "r" else 300  # expired, or good for something else
    block_ids: list[str] = []
    stage = BlobClient.stage_block_from_url

    def staging(self: BlobClient, id_: str, *args: object, **options: object) -> object:
        block_ids.append(id_)
        return stage(self, id_, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(BlobClient, "stage_block_from_url", staging)
    for _ in range(2):
        with pytest.raises(NotCopied, match="CannotVerifyCopySource") as refusal:
            block_copy.copy(lambda: url(seconds, permission), etag_of(source), len(DATA), target)
        assert "sig=" not in str(refusal.value)
    assert len(block_ids) == 1
    assert contents(account, EXPORTS) == {}
    monkeypatch.setattr(clock, "monotonic", lambda: 1e12)  # an hour later
    block_copy.copy(url, etag_of(source), len(DATA), target)
    assert contents(account, EXPORTS) == {"vendors/package.zip": DATA}


def test_a_source_that_can_not_be_reached_is_a_refusal(
    source: BlobClient, target: BlobClient
) -> None:
    """As a firewall before D365's storage would have it."""
    with pytest.raises(NotCopied):
        block_copy.copy(lambda: "http://127.0.0.1:9/dmf/x?sig=1", etag_of(source), 10, target)


def test_blocks_of_two_versions_are_never_mixed(
    source: BlobClient, target: BlobClient, account: DataAccount, url: Callable[..., str]
) -> None:
    """A source that changes meanwhile is an error of storage, not a reason to carry the bytes."""
    etag = etag_of(source)
    source.upload_blob(os.urandom(len(DATA)), overwrite=True)
    with pytest.raises(HttpResponseError) as error:
        block_copy.copy(url, etag, len(DATA), target)
    assert error.value.status_code == 412
    assert contents(account, EXPORTS) == {}
    assert not block_copy._refused


def test_an_empty_source_is_an_empty_blob(
    source: BlobClient, target: BlobClient, account: DataAccount, url: Callable[..., str]
) -> None:
    source.upload_blob(b"", overwrite=True)
    block_copy.copy(url, etag_of(source), 0, target)
    assert contents(account, EXPORTS) == {"vendors/package.zip": b""}
