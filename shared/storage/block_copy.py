"""Lets one storage account fetch a blob's blocks from another: no byte of them comes through the app.

Put Block From URL (Microsoft Learn, "Put Block From URL") takes a source that the target's service can reach,
and is allowed to read by the URL alone. Whether it can depends on networks that the app does not see, so it is
tried. If storage refuses, the app carries the bytes, and does not ask again between these two for an hour.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, BlobClient

from shared import clock, deadline
from shared.storage.errors import error_code
from shared.threads import Pool

BLOCK: Final = 64 * 1024 * 1024
"""Bytes. Put Block From URL took 100 MiB in its oldest versions; 50,000 blocks of this size are 3 TiB."""

PARALLEL: Final = 4

REMEMBERED: Final = 3600.0
"""Seconds in which what was refused between two accounts is not tried again by this process."""

_REFUSALS: Final = (400, 403, 404, 409)
"""Of the source: not reached, not allowed, not there for the target's service, or not taken by it."""


class NotCopied(Exception):
    """Storage does not fetch from there: the bytes must be carried. The text says why."""


_refused: Final[dict[tuple[str, str], tuple[float, str]]] = {}


def copy(
    new_url: Callable[[], str], etag: str, size: int, target: BlobClient, **options: Any
) -> None:
    """Write a blob whose bytes storage fetches from a signed URL; it is visible at once and whole.

    `new_url` gives a fresh URL, since one that was good may expire meanwhile; `etag` is the source's, and no
    other version is fetched. `options` are those of `commit_block_list`.

    Raises `NotCopied`, `AzureError` and what `new_url` raises.
    """
    url = new_url()
    way = (urlsplit(url).netloc, urlsplit(target.url).netloc)
    until, why = _refused.get(way, (0.0, ""))
    if clock.monotonic() < until:
        raise NotCopied(why)
    missing = list(range(0, size, BLOCK))
    while missing:
        before = len(missing)
        missing, refusal = _stage(url, etag, size, target, missing)
        if len(missing) == before and refusal:
            why = (
                f"storage does not fetch from {way[0]}: {refusal.status_code} {error_code(refusal)}"
            )
            _refused[way] = (clock.monotonic() + REMEMBERED, why)
            raise NotCopied(why) from refusal
        if missing:
            url = new_url()
    blocks = [BlobBlock(_block_id(start)) for start in range(0, size, BLOCK)]
    target.commit_block_list(blocks, **options)


def _stage(
    url: str, etag: str, size: int, target: BlobClient, starts: list[int]
) -> tuple[list[int], HttpResponseError | None]:
    """Stage the blocks that begin at these bytes: those that were refused, and the first refusal."""
    refused, refusal = list[int](), None

    def stage(start: int) -> HttpResponseError | None:
        deadline.bounded(1)
        try:
            target.stage_block_from_url(
                _block_id(start),
                url,
                source_offset=start,
                source_length=min(BLOCK, size - start),
                headers={"x-ms-source-if-match": etag},
            )
        except HttpResponseError as error:
            if error.status_code not in _REFUSALS:
                raise
            return error
        return None

    # The first one alone: where it is refused, all would be.
    if refusal := stage(starts[0]):
        return starts, refusal
    with Pool(PARALLEL, thread_name_prefix="copy") as pool:
        pending: deque[tuple[int, Future[HttpResponseError | None]]] = deque(
            (start, pool.submit(stage, start)) for start in starts[1:]
        )
        try:
            for start, future in pending:
                if error := future.result():
                    refusal = refusal or error
                    refused.append(start)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return refused, refusal


def _block_id(start: int) -> str:
    """Of a fixed length: storage wants one for all blocks of a blob."""
    return f"{start:038}"
