"""Copies bytes into and out of our storage: in bounded memory, in parallel, counted and hashed on the way.

Blocks of `BLOCK` bytes go to storage, `PARALLEL` of them at once, and parts of `PART` bytes come from it, so a
transfer holds a few of them whatever its size (E6). A block blob is invisible until its
block list is committed, so a reader never sees a part of a package (E4); Microsoft Learn, "Put Block List".
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, BytesIO, RawIOBase
from itertools import islice
from pathlib import Path
from threading import TIMEOUT_MAX, BoundedSemaphore
from typing import IO, Any, Final, override

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceNotFoundError,
    ServiceResponseError,
)
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, ContentSettings

from shared import deadline
from shared.threads import Pool

BLOCK: Final = 8 * 1024 * 1024
"""Bytes. 50,000 blocks, the most that a blob may have, are then 195 GiB."""

PARALLEL: Final = 4

PART: Final = 16 * 1024 * 1024
"""Bytes of one read. Each costs the SDK a millisecond whatever its size: fewer and larger ones are faster."""

PARTS_AHEAD: Final = 2

PIECE: Final = 1024 * 1024
"""Bytes that are looked at and hashed in turn."""

_HELD: Final = (PARALLEL + 3) * BLOCK
"""Bytes that one transfer of several blocks holds."""

_CGROUPS: Final = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
"""What a container may use, in version 2 and version 1 of Linux' control groups."""


def _memory() -> int:
    """Bytes of memory that this instance may use: the container's limit, or what the machine has."""
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # Windows, where only development happens
        return 2 << 30
    for path in _CGROUPS:
        with suppress(OSError, ValueError), Path(path).open(encoding="ascii") as file:
            limits.append(int(file.read()))  # "max" is no number: there is no limit
    return min(limits)


_LARGE: Final = BoundedSemaphore(max(1, _memory() // 4 // _HELD))
"""So many transfers of several blocks at once take a quarter of the memory; the others wait their turn."""

_ID_LENGTH: Final = 38
"""Characters of a block's id: the same for all blocks of a blob (Microsoft Learn, "Put Block")."""


class OtherContent(Exception):
    """A blob of that name is there already, with other bytes. `digest` is that of the bytes just moved."""

    def __init__(self, name: str, digest: "Digest") -> None:
        self.name, self.digest = name, digest
        super().__init__(f"{name} is there already, with other content")


@dataclass(frozen=True)
class Digest:
    """What bytes are known by: their number and SHA-256 (hexadecimal)."""

    length: int
    sha256: str


@dataclass(frozen=True)
class Stored:
    """A blob that was written, or was there already with the same content."""

    digest: Digest
    created: bool
    etag: str = field(default="", compare=False)
    """Of the commit that created it: what came after it has another."""
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)


def digest(read: Callable[[int], bytes]) -> Digest:
    """What all that `read` gives is known by; nothing is kept or written."""
    sha256, total = hashlib.sha256(), 0
    while part := read(BLOCK):
        sha256.update(part)
        total += len(part)
    return Digest(total, sha256.hexdigest())


def has_content(blob: BlobClient, properties: BlobProperties, content: Digest) -> bool:
    """Whether a blob has this content. It is read where somebody has put other metadata in place of ours."""
    if sha256 := properties.metadata.get("sha256"):
        return bool(sha256 == content.sha256)
    if properties.size != content.length:
        return False
    with reader(blob, properties.size) as file:
        return digest(file.read) == content


def store(
    read: Callable[[int], bytes],
    blob: BlobClient,
    *,
    verify: Callable[[Digest], Mapping[str, str]],
    watch: Callable[[bytes | memoryview], None] = lambda _: None,
    metadata: Mapping[str, str],
    content_settings: ContentSettings,
) -> Stored:
    """Write all that `read` gives into a new blob, visible at once and whole, or not at all.

    `watch` sees every byte in order; `verify` is called before anything becomes visible, raises to prevent it,
    and gives metadata to add. The SHA-256 joins the metadata. A blob of that
    name is never overwritten: with the same content it counts as stored, otherwise `OtherContent` is raised.
    """
    head = fill(read)
    ids: list[str] = []
    if len(head) < BLOCK:  # all of it in one block: one request writes it
        watch(head)
        content = Digest(len(head), hashlib.sha256(head).hexdigest())
    else:
        content, ids = _stage(head, read, blob, watch)
    everything = {**metadata, **verify(content), "sha256": content.sha256}
    write = partial(
        _commit,
        blob,
        metadata=everything,
        content_settings=content_settings,
    )
    try:
        etag = write(ids or head)
    except HttpResponseError as error:
        # 409 or 412: it is there. 400 InvalidBlockList: another writer's commit dropped our blocks.
        if error.status_code not in (400, 409, 412):
            raise
        if properties := _properties(blob):
            if not has_content(blob, properties, content):
                raise OtherContent(blob.blob_name, content) from error
            return Stored(content, created=False, metadata=properties.metadata)
        if ids:
            raise
        # Azurite takes blocks that an earlier upload left uncommitted for a blob, and so refuses a whole one.
        ids = [_block_id(content.sha256, 0, _id_length(blob))]
        blob.stage_block(ids[0], head, length=len(head))
        etag = write(ids)
    return Stored(content, created=True, etag=etag, metadata=everything)


def _commit(blob: BlobClient, content: bytes | list[str], **options: Any) -> str:
    """Make a blob visible, unless there is one: its bytes, or its blocks by their ids. Gives its ETag."""
    if isinstance(content, bytes):
        return str(blob.upload_blob(content, overwrite=False, **options)["etag"])
    blocks = [BlobBlock(id_) for id_ in content]
    missing = MatchConditions.IfMissing
    return str(blob.commit_block_list(blocks, match_condition=missing, **options)["etag"])


def _properties(blob: BlobClient) -> BlobProperties | None:
    try:
        return blob.get_blob_properties()
    except ResourceNotFoundError:
        return None


def _stage(
    block: bytes,
    read: Callable[[int], bytes],
    blob: BlobClient,
    watch: Callable[[bytes | memoryview], None],
) -> tuple[Digest, list[str]]:
    """Stage what comes, from `block` on: what it is known by, and the ids of its blocks.

    `watch` and the hash see the blocks in order, on a thread beside reading and staging: hashing and inflating
    let other threads run. They take small pieces in turn: each is in the processor's cache for the second.

    A block's id has the hash of the content up to its end. So two uploads of one blob at once share the blocks
    in which they agree, and mix no others; and an upload that is made again after one that broke off puts the
    same blocks in the place of those that it left, so that nothing grows.
    """
    sha256, total = hashlib.sha256(), 0
    ids: list[str] = []

    def name(block: bytes, number: int) -> str:
        for start in range(0, len(block), PIECE):
            piece = memoryview(block)[start : start + PIECE]
            watch(piece)
            sha256.update(piece)
        return _block_id(sha256.hexdigest(), number, length)

    def stage(id_: Future[str], block: bytes) -> str:
        blob.stage_block(id_.result(), block, length=len(block))
        return id_.result()

    with _a_slot(), ExitStack() as stack:
        length = _id_length(blob)
        staging = stack.enter_context(Pool(PARALLEL, thread_name_prefix="stage"))
        naming = stack.enter_context(Pool(1, thread_name_prefix="hash"))
        pending: deque[Future[str]] = deque()
        try:
            while block:
                id_ = naming.submit(name, block, len(ids) + len(pending))
                pending.append(staging.submit(stage, id_, block))
                total += len(block)
                del block  # the queue alone holds it, and lets it go when it is done
                if len(pending) > PARALLEL:
                    ids.append(pending.popleft().result())
                block = fill(read)
            ids.extend(staged.result() for staged in pending)
        except BaseException:
            for pool in (naming, staging):
                pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Digest(total, sha256.hexdigest()), ids


@contextmanager
def _a_slot() -> Iterator[None]:
    """Wait for a slot among the large transfers. Raises `deadline.Expired`."""
    if not _LARGE.acquire(timeout=deadline.bounded(TIMEOUT_MAX)):
        raise deadline.Expired
    try:
        yield
    finally:
        _LARGE.release()


def _id_length(blob: BlobClient) -> int:
    """How long a block's id must be: as long as those that an earlier upload left uncommitted, which storage
    keeps for a week (Microsoft Learn, "Put Block")."""
    try:
        _, uncommitted = blob.get_block_list("uncommitted")
    except ResourceNotFoundError:
        return _ID_LENGTH
    return len(uncommitted[0].id) if uncommitted else _ID_LENGTH


def _block_id(hash_: str, number: int, length: int) -> str:
    """An id of `length` characters: the block's number, then as much of the hash as there is room for."""
    return f"{number:06}{hash_}".ljust(length, "0")[:length]


def fill(read: Callable[[int], bytes]) -> bytes:
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
        download = blob.download_blob(
            offset,
            length,
            etag=etag,
            match_condition=MatchConditions.IfNotModified,
            decompress=False,  # I4: the bytes as they lie there, whatever Content-Encoding says of them
        )
        # Its one chunk as it is: `readall` would copy it twice.
        part = b"".join(download.chunks())
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


def reader(blob: BlobClient, size: int, piece: int = BLOCK) -> IO[bytes]:
    """A blob of that size as a file to read and seek in: of a large one each piece is a request."""
    if size <= BLOCK:
        return BytesIO(blob.download_blob(decompress=False).readall())
    return BufferedReader(_Blob(blob), piece)


class _Blob(RawIOBase):
    def __init__(self, blob: BlobClient) -> None:
        properties = blob.get_blob_properties()
        self._blob, self._etag, self._size, self._at = blob, properties.etag, properties.size, 0

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
            self._at,
            length,
            etag=self._etag,
            match_condition=MatchConditions.IfNotModified,
            decompress=False,
        )
        buffer[:length] = part.readall()
        self._at += length
        return length
