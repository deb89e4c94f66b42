"""Bytes into a blob and out of it: whole or not at all, never over another, in order."""

import hashlib
import io
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

import pytest
from azure.core.exceptions import ResourceModifiedError
from azure.storage.blob import BlobClient, ContentSettings

from shared import deadline
from shared.storage import transfer
from shared.storage.account import EXPORTS, DataAccount
from shared.storage.transfer import BLOCK, Digest, OtherContent, Stored

SIZES = [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 7 * BLOCK + 12345]


def some(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def store(
    blob: BlobClient,
    read: Callable[[int], bytes],
    *,
    verify: Callable[[Digest], Mapping[str, str]] = lambda _: {},
    watch: Callable[[bytes | memoryview], None] = lambda _: None,
) -> Stored:
    return transfer.store(
        read,
        blob,
        verify=verify,
        watch=watch,
        metadata={"job": "j"},
        content_settings=ContentSettings(content_type="application/zip"),
    )


def put(blob: BlobClient, data: bytes) -> Stored:
    return store(blob, io.BytesIO(data).read)


@pytest.fixture
def blob(account: DataAccount) -> BlobClient:
    return account.blobs.get_blob_client(EXPORTS, "j/p.zip")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_read_is_what_is_stored(blob: BlobClient, size: int) -> None:
    """At and around every block's edge; with SHA-256 in the metadata."""
    data = some(size)
    stored = put(blob, data)
    content = Digest(size, hashlib.sha256(data).hexdigest())
    assert (stored, transfer.digest(io.BytesIO(data).read)) == (Stored(content, True), content)
    properties = blob.get_blob_properties()
    assert blob.download_blob().readall() == data
    assert properties.metadata == {"job": "j", "sha256": content.sha256}


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


@pytest.mark.parametrize("size", [10, BLOCK + 10])
def test_content_is_known_by_its_bytes_where_the_metadata_is_gone(
    blob: BlobClient, size: int
) -> None:
    """Who takes a blob may have put other metadata in the place of ours."""
    first = put(blob, some(size))
    blob.set_blob_metadata({"taken": "yes"})
    again = put(blob, some(size))
    assert (again.created, again.digest) == (False, first.digest)
    with pytest.raises(OtherContent):
        put(blob, some(size, seed=2))
    with pytest.raises(OtherContent):
        put(blob, some(size + 1))


def test_short_reads_make_whole_blocks(blob: BlobClient) -> None:
    """A network gives what it has; a block is filled all the same."""
    data = some(2 * BLOCK + 5)
    source = io.BytesIO(data)
    stored = store(blob, lambda size: source.read(min(size, 1_000_003)))
    assert stored.digest.length == len(data)
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
    store(blob, read)
    assert len(staged) == 40
    assert max(held) <= transfer.PARALLEL + 2


def test_every_byte_is_watched_once_and_in_order(blob: BlobClient) -> None:
    """So that the zip can be checked on the way."""
    data, seen = some(3 * BLOCK + 1), bytearray()
    source = io.BytesIO(data)
    store(blob, source.read, watch=seen.extend)
    assert bytes(seen) == data


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
def test_nothing_is_visible_when_the_check_fails(blob: BlobClient, size: int) -> None:
    """E4: and the same name is free for the next try."""

    def verify(content: Digest) -> dict[str, str]:
        raise ValueError(f"{content.length} bytes will not do")

    with pytest.raises(ValueError, match="will not do"):
        store(blob, io.BytesIO(some(size)).read, verify=verify)
    assert not blob.exists()
    assert put(blob, some(size)).created


def test_nothing_is_visible_when_the_source_breaks_off(blob: BlobClient) -> None:
    """E4: staged blocks are nobody's."""
    source = io.BytesIO(some(2 * BLOCK))

    def read(size: int) -> bytes:
        return source.read(size) or (_ for _ in ()).throw(ConnectionResetError())

    with pytest.raises(ConnectionResetError):
        store(blob, read)
    assert not blob.exists()


def test_a_small_upload_after_one_that_broke_off(blob: BlobClient) -> None:
    """Blocks that were left uncommitted are in nobody's way."""
    blob.stage_block(transfer._block_id("0" * 64, 0, transfer._ID_LENGTH), b"left")
    assert put(blob, b"small").created
    assert blob.download_blob().readall() == b"small"


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
def test_the_same_bytes_again_are_stored_already(blob: BlobClient, size: int) -> None:
    """E2: nothing is written, and nobody is told otherwise."""
    first, etag = put(blob, some(size)), None
    etag = blob.get_blob_properties().etag
    again = put(blob, some(size))
    assert (first.created, again.created, again.digest) == (True, False, first.digest)
    assert blob.get_blob_properties().etag == etag


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
def test_other_bytes_never_overwrite(blob: BlobClient, size: int) -> None:
    """E2: the caller learns the hash of what it has, to name a second blob by."""
    put(blob, some(size))
    with pytest.raises(OtherContent) as caught:
        put(blob, some(size, seed=2))
    assert caught.value.digest.sha256 == hashlib.sha256(some(size, seed=2)).hexdigest()
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


def test_few_large_transfers_at_once(account: DataAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    """E6: each holds several blocks, so those for which there is no memory wait."""
    monkeypatch.setattr(transfer, "_LARGE", BoundedSemaphore(2))
    monkeypatch.setattr(transfer, "BLOCK", 1000)
    lock, most, now = Lock(), 0, Counter[str]()
    stage = BlobClient.stage_block

    def counting(blob: BlobClient, *args: Any, **options: Any) -> Any:
        nonlocal most
        name = str(blob.blob_name)
        with lock:
            now[name] += 1
            most = max(most, len(+now))
        time.sleep(0.02)
        try:
            return stage(blob, *args, **options)
        finally:
            with lock:
                now[name] -= 1

    monkeypatch.setattr(BlobClient, "stage_block", counting)
    several = [account.blobs.get_blob_client(EXPORTS, f"j/{n}.zip") for n in range(5)]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda blob: put(blob, some(4000)), several))
    assert most == 2


def test_a_transfer_for_which_there_is_no_place_waits_no_longer_than_it_may(
    blob: BlobClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A6: the place may be free after the invocation's end only."""
    monkeypatch.setattr(transfer, "_LARGE", BoundedSemaphore(1))
    monkeypatch.setattr(transfer, "BLOCK", 1000)
    with transfer._a_slot(), deadline.within(0.1), pytest.raises(deadline.Expired):
        put(blob, some(4000))


@pytest.mark.parametrize(("text", "limit"), [("1000000", 1_000_000), ("max", None)])
def test_the_memory_is_the_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, limit: int | None
) -> None:
    """A container may have less than the machine."""
    file = tmp_path / "memory.max"
    file.write_text(text, encoding="ascii")
    monkeypatch.setattr(transfer, "_CGROUPS", ())
    machine = transfer._memory()
    monkeypatch.setattr(transfer, "_CGROUPS", (str(tmp_path / "missing"), str(file)))
    assert transfer._memory() == (limit or machine)
