"""Bytes from one side to the other: in bounded memory, in parallel, counted and hashed on the way.

Blocks of `BLOCK` bytes go to storage, `PARALLEL` of them at once, and parts of `PART` bytes come from it, so a
transfer holds a few of them whatever its size (E6). A block blob is invisible until its
block list is committed, so a reader never sees a part of a package (E4); Microsoft Learn, "Put Block List".
"""

import hashlib
import os
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, BytesIO, RawIOBase
from itertools import islice
from threading import BoundedSemaphore
from typing import IO, Any, Final, override
from uuid import uuid4

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ServiceResponseError
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, ContentSettings

from shared.threads import Pool

BLOCK: Final = 8 * 1024 * 1024
"""Bytes. 50,000 blocks, the most that a blob may have, are then 195 GiB."""

PARALLEL: Final = 4

PART: Final = 16 * 1024 * 1024
"""Bytes of one read. Each costs the SDK a millisecond whatever its size: fewer and larger ones are faster."""

PARTS_AHEAD: Final = 2

_HELD: Final = (PARALLEL + 3) * BLOCK
"""Bytes that one transfer of several blocks holds."""


def _memory() -> int:
    """Bytes of memory that this instance has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, where only development happens
        return 2 << 30


_LARGE: Final = BoundedSemaphore(max(1, _memory() // 4 // _HELD))
"""So many transfers of several blocks at once take a quarter of the memory; the others wait their turn."""


class OtherContent(Exception):
    """A blob of that name is there already, with other bytes. `sha256` is that of the bytes just moved."""

    def __init__(self, name: str, sha256: str) -> None:
        self.sha256 = sha256
        super().__init__(f"{name} is there already, with other content")


@dataclass(frozen=True)
class Stored:
    """What a blob holds: its length in bytes and its SHA-256 (hexadecimal)."""

    bytes: int
    sha256: str
    created: bool
    """False where the same blob was there already."""
    etag: str = field(default="", compare=False)
    """Of the commit that created it: what came after it has another."""


def store(
    read: Callable[[int], bytes],
    blob: BlobClient,
    *,
    verify: Callable[[int], None],
    watch: Callable[[bytes], None] = lambda _: None,
    metadata: Mapping[str, str],
    content_type: str,
) -> Stored:
    """Write all that `read` gives into a new blob, visible at once and whole, or not at all.

    `watch` sees every byte in order; `verify` is called with the length before anything becomes visible, and
    raises to prevent it. The SHA-256 joins the metadata, the MD5 the blob's properties. A blob of that name is
    never overwritten: with the same content it counts as stored, otherwise `OtherContent` is raised.
    """
    digest, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    watchers = (digest.update, md5.update, watch)
    # Two uploads of one blob at once must not mix their blocks, and all ids on a blob have one length.
    upload = uuid4().hex
    blocks: list[BlobBlock] = []
    block = _fill(read)
    if len(block) < BLOCK:  # all of it in one block: one request writes it
        total = len(block)
        for see in watchers:
            see(block)
    else:
        block, total = b"", _stage(block, read, blob, watchers, upload, blocks)
    verify(total)
    sha256 = digest.hexdigest()
    settings = ContentSettings(content_type=content_type, content_md5=bytearray(md5.digest()))
    everything = {**metadata, "sha256": sha256}

    def commit() -> str:
        done = blob.commit_block_list(
            blocks,
            content_settings=settings,
            metadata=everything,
            match_condition=MatchConditions.IfMissing,
        )
        return str(done["etag"])

    try:
        if blocks:
            etag = commit()
        else:
            done = blob.upload_blob(
                block, content_settings=settings, metadata=everything, overwrite=False
            )
            etag = str(done["etag"])
    except HttpResponseError as error:
        # 409 or 412: it is there. 400 InvalidBlockList: another writer's commit dropped our blocks.
        if error.status_code not in (400, 409, 412):
            raise
        if blob.exists():
            if not _is(blob.get_blob_properties(), total, sha256, md5.digest()):
                raise OtherContent(blob.blob_name, sha256) from error
            return Stored(total, sha256, created=False)
        if blocks:
            raise
        # Azurite takes blocks that an earlier upload left uncommitted for a blob, and so refuses a whole one.
        blocks.append(BlobBlock(_block_id(upload, 0)))
        blob.stage_block(blocks[0].id, block, length=len(block))
        etag = commit()
    return Stored(total, sha256, created=True, etag=etag)


def _is(found: BlobProperties, size: int, sha256: str, md5: bytes) -> bool:
    """Whether a blob has this content. Who takes it may have put metadata of their own in the place of ours."""
    if known := found.metadata.get("sha256"):
        return known == sha256
    return found.size == size and bytes(found.content_settings.content_md5 or b"") == md5


def _stage(
    block: bytes,
    read: Callable[[int], bytes],
    blob: BlobClient,
    watchers: Sequence[Callable[[bytes], object]],
    upload: str,
    blocks: list[BlobBlock],
) -> int:
    """Stage what comes, from `block` on, adding to `blocks`; the number of bytes.

    Each watcher sees the blocks in order on a thread of its own, beside reading and staging: hashing and
    inflating let other threads run, and any of them would otherwise set the pace.
    """
    total = 0
    with _LARGE, ExitStack() as stack:
        staging = stack.enter_context(Pool(PARALLEL, thread_name_prefix="stage"))
        lanes = [(see, stack.enter_context(Pool(1))) for see in watchers]
        pending: deque[list[Future[Any]]] = deque()
        try:
            while block:
                blocks.append(BlobBlock(_block_id(upload, len(blocks))))
                pending.append(
                    [
                        staging.submit(blob.stage_block, blocks[-1].id, block, length=len(block)),
                        *(lane.submit(see, block) for see, lane in lanes),
                    ]
                )
                total += len(block)
                del block  # the queue alone holds it, and lets it go when it is done
                if len(pending) > PARALLEL:
                    _finish(pending.popleft())
                block = _fill(read)
            while pending:
                _finish(pending.popleft())
        except BaseException:
            for _, pool in [("", staging), *lanes]:
                pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


def _finish(futures: list[Future[Any]]) -> None:
    for future in futures:
        future.result()


def _block_id(upload: str, number: int) -> str:
    return b64encode(f"{upload}{number:06}".encode()).decode()


def _fill(read: Callable[[int], bytes]) -> bytes:
    """The next whole block, shorter only at the end."""
    block = read(BLOCK)
    if len(block) in (0, BLOCK):
        return block
    parts = [block]
    missing = BLOCK - len(block)
    while missing and (more := read(missing)):
        parts.append(more)
        missing -= len(more)
    return b"".join(parts)


def load(
    blob: BlobClient,
    etag: str,
    size: int,
    watch: Callable[[bytes], object] = lambda _: None,
) -> Generator[bytes]:
    """The bytes of one version of a blob, part by part, read ahead in parallel.

    `watch` sees every byte in order, on another thread; when the last part was taken it has seen all.
    Raises `azure.core.exceptions.ResourceModifiedError` when the blob is no longer that version, and
    `ServiceResponseError` when storage gives more or fewer bytes than were asked for.
    """

    def fetch(offset: int) -> bytes:
        length = min(PART, size - offset)
        found = blob.download_blob(
            offset,
            length,
            etag=etag,
            match_condition=MatchConditions.IfNotModified,
            decompress=False,  # I4: the bytes as they lie there, whatever Content-Encoding says of them
        )
        # Its one chunk as it is: `readall` would copy it twice.
        part = b"".join(found.chunks())
        if len(part) != length:
            raise ServiceResponseError(f"{blob.blob_name}: {len(part)} bytes came of {length}")
        return part

    if size <= PART:
        if size:
            part = fetch(0)
            watch(part)
            yield part
        return
    offsets = iter(range(0, size, PART))
    with (
        Pool(PARTS_AHEAD, thread_name_prefix="fetch") as pool,
        Pool(1, thread_name_prefix="watch") as lane,
    ):
        pending = deque(pool.submit(fetch, offset) for offset in islice(offsets, PARTS_AHEAD + 1))
        try:
            while pending:
                part = pending.popleft().result()
                seen = lane.submit(watch, part)
                yield part
                del part
                seen.result()
                if (offset := next(offsets, None)) is not None:
                    pending.append(pool.submit(fetch, offset))
        finally:
            pool.shutdown(cancel_futures=True)


def reader(blob: BlobClient, size: int) -> IO[bytes]:
    """A blob of that size as a file to read and seek in: each block that is read is one request."""
    if size <= BLOCK:
        return BytesIO(blob.download_blob().readall())
    return BufferedReader(_Blob(blob), BLOCK)


class _Blob(RawIOBase):
    def __init__(self, blob: BlobClient) -> None:
        found = blob.get_blob_properties()
        self._blob, self._etag, self._size, self._at = blob, found.etag, found.size, 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        self._at = offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._size}[whence]
        return self._at

    @override
    def tell(self) -> int:
        return self._at

    @override
    def readinto(self, buffer: Any, /) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        part = self._blob.download_blob(
            self._at, length, etag=self._etag, match_condition=MatchConditions.IfNotModified
        )
        buffer[:length] = part.readall()
        self._at += length
        return length
