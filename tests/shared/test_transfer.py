"""Bytes into a blob and out of it: whole or not at all, never over another, in order."""

import hashlib
import io
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.core.exceptions import ResourceModifiedError
from azure.storage.blob import BlobClient

from shared import blobs, transfer
from shared.blobs import DataAccount
from shared.transfer import BLOCK, OtherContent, Stored

SIZES = [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 7 * BLOCK + 12345]


def some(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def put(blob: BlobClient, data: bytes) -> Stored:
    return transfer.store(
        io.BytesIO(data).read,
        blob,
        verify=lambda _: None,
        metadata={"job": "j"},
        content_type="application/zip",
    )


@pytest.fixture
def blob(account: DataAccount) -> BlobClient:
    return account.blobs.get_blob_client(blobs.EXPORTS, "j/p.zip")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_read_is_what_is_stored(blob: BlobClient, size: int) -> None:
    """At and around every block's edge; with SHA-256 in the metadata and MD5 in the properties."""
    data = some(size)
    stored = put(blob, data)
    assert stored == Stored(size, hashlib.sha256(data).hexdigest(), created=True)
    found = blob.get_blob_properties()
    assert blob.download_blob().readall() == data
    assert found.metadata == {"job": "j", "sha256": stored.sha256}
    assert bytes(found.content_settings.content_md5 or b"") == hashlib.md5(data).digest()


@pytest.mark.parametrize("size", SIZES)
def test_what_is_stored_is_what_is_loaded(
    blob: BlobClient, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """In order, whatever order the parts arrive in."""
    monkeypatch.setattr(transfer, "PART", BLOCK)
    data = some(size)
    put(blob, data)
    etag = str(blob.get_blob_properties().etag)
    assert b"".join(transfer.load(blob, etag, size)) == data


def test_short_reads_make_whole_blocks(blob: BlobClient) -> None:
    """A network gives what it has; a block is filled all the same."""
    data = some(2 * BLOCK + 5)
    source = io.BytesIO(data)
    stored = transfer.store(
        lambda size: source.read(min(size, 1_000_003)),
        blob,
        verify=lambda _: None,
        metadata={},
        content_type="application/zip",
    )
    assert stored.bytes == len(data)
    assert len(blob.get_block_list()[0]) == 3


def test_a_transfer_holds_a_few_blocks_whatever_its_size(
    blob: BlobClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E6: a source that is faster than storage waits for it."""
    monkeypatch.setattr(transfer, "BLOCK", 1000)
    source, stage = io.BytesIO(some(40_000)), blob.stage_block
    held: list[int] = []
    staged: list[str] = []

    def read(size: int) -> bytes:
        held.append(source.tell() // 1000 - len(staged))
        return source.read(size)

    def slow(name: str, data: bytes, **options: Any) -> None:
        time.sleep(0.01)
        stage(name, data, **options)
        staged.append(name)

    monkeypatch.setattr(blob, "stage_block", slow)
    transfer.store(read, blob, verify=lambda _: None, metadata={}, content_type="a/b")
    assert len(staged) == 40
    assert max(held) <= transfer.PARALLEL + 2


def test_every_byte_is_watched_once_and_in_order(blob: BlobClient) -> None:
    """So that the zip can be checked on the way."""
    data, seen = some(3 * BLOCK + 1), bytearray()
    source = io.BytesIO(data)
    transfer.store(
        source.read,
        blob,
        verify=lambda _: None,
        watch=seen.extend,
        metadata={},
        content_type="application/zip",
    )
    assert bytes(seen) == data


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
def test_nothing_is_visible_when_the_check_fails(blob: BlobClient, size: int) -> None:
    """E4: and the same name is free for the next try."""

    def verify(length: int) -> None:
        raise ValueError(f"{length} bytes will not do")

    with pytest.raises(ValueError, match="will not do"):
        transfer.store(
            io.BytesIO(some(size)).read, blob, verify=verify, metadata={}, content_type="a/b"
        )
    assert not blob.exists()
    assert put(blob, some(size)).created


def test_nothing_is_visible_when_the_source_breaks_off(blob: BlobClient) -> None:
    """E4: staged blocks are nobody's."""
    source = io.BytesIO(some(2 * BLOCK))

    def read(size: int) -> bytes:
        return source.read(size) or (_ for _ in ()).throw(ConnectionResetError())

    with pytest.raises(ConnectionResetError):
        transfer.store(read, blob, verify=lambda _: None, metadata={}, content_type="a/b")
    assert not blob.exists()


def test_a_small_upload_after_one_that_broke_off(blob: BlobClient) -> None:
    """Blocks that were left uncommitted are in nobody's way."""
    blob.stage_block(transfer._block_id("0" * 32, 0), b"left")
    assert put(blob, b"small").created
    assert blob.download_blob().readall() == b"small"


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
def test_the_same_bytes_again_are_stored_already(blob: BlobClient, size: int) -> None:
    """E2: nothing is written, and nobody is told otherwise."""
    first, etag = put(blob, some(size)), None
    etag = blob.get_blob_properties().etag
    again = put(blob, some(size))
    assert (first.created, again.created, again.sha256) == (True, False, first.sha256)
    assert blob.get_blob_properties().etag == etag


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
def test_other_bytes_never_overwrite(blob: BlobClient, size: int) -> None:
    """E2: the caller learns the hash of what it has, to name a second blob by."""
    put(blob, some(size))
    with pytest.raises(OtherContent) as caught:
        put(blob, some(size, seed=2))
    assert caught.value.sha256 == hashlib.sha256(some(size, seed=2)).hexdigest()
    assert blob.download_blob().readall() == some(size)


def test_many_uploads_of_one_blob_at_once_do_not_mix(blob: BlobClient) -> None:
    """Two runs that got the same message: one blob, whole, and each knows it."""
    data = some(3 * BLOCK)
    with ThreadPoolExecutor(6) as pool:
        stored = list(pool.map(lambda _: put(blob, data), range(6)))
    assert sum(each.created for each in stored) == 1
    assert blob.download_blob().readall() == data


def test_a_version_that_changes_while_it_is_loaded_is_noticed(blob: BlobClient) -> None:
    """Half of one version and half of another are no file."""
    size = 9 * BLOCK  # more than is read ahead
    put(blob, some(size))
    parts = transfer.load(blob, str(blob.get_blob_properties().etag), size)
    next(parts)
    blob.upload_blob(some(size, seed=2), overwrite=True)
    with pytest.raises(ResourceModifiedError):
        list(parts)


def test_a_blob_reads_and_seeks_like_a_file(blob: BlobClient) -> None:
    """What unzipping needs."""
    data = some(2 * BLOCK + 17)
    put(blob, data)
    with transfer.reader(blob, len(data)) as file:
        assert file.seek(-17, io.SEEK_END) == 2 * BLOCK
        assert file.read() == data[-17:]
        file.seek(BLOCK - 3)
        assert file.read(6) == data[BLOCK - 3 : BLOCK + 3]
        assert file.read(0) == b""
