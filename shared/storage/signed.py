"""Blobs at signed URLs: D365's own storage, at which we are nobody and our token does not go (A1).

A URL's query is sent as it came, since a part of it that we do not know may be signed too.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobBlock, BlobClient

from shared.connections import SdkTransport
from shared.threads import Pool

PARALLEL: Final = 2
"""Blocks that are staged at once."""


def client(url: str) -> BlobClient:
    """The blob at a signed URL."""
    parts = urlsplit(url)
    return BlobClient.from_blob_url(
        parts._replace(query="").geturl(),
        credential=AzureSasCredential(parts.query),
        transport=SdkTransport(connection_timeout=20, read_timeout=60),
        retry_total=4,
    )


def upload(blob: BlobClient, parts: Iterator[bytes]) -> None:
    """Write all parts, each of which becomes a block. Raises `AzureError`, and what `parts` raises."""
    ids: list[str] = []
    names = (f"{number:06}" for number in count())
    with Pool(PARALLEL, thread_name_prefix="upload") as pool:
        pending: deque[Future[Any]] = deque()
        for part in parts:
            ids.append(next(names))
            pending.append(pool.submit(blob.stage_block, ids[-1], part, length=len(part)))
            if len(pending) > PARALLEL:
                pending.popleft().result()
        for future in pending:
            future.result()
    blob.commit_block_list([BlobBlock(id_) for id_ in ids])


def is_readable(blob: BlobClient) -> bool:
    """Whether a signed URL is still good; False only where the storage says that it is not."""
    try:
        blob.get_blob_properties()
    except AzureError as error:
        return getattr(error, "status_code", 0) not in (401, 403, 404)
    return True
