"""Blobs at signed URLs in D365's own storage: requests to them carry no token of ours (A1).

A URL's query is sent as it came, since a part of it that we do not know may be signed too.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobBlock, BlobClient, BlobSasPermissions, generate_blob_sas

from shared import clock
from shared.connections import SdkTransport
from shared.storage.account import DataAccount
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
            if len(pending) == PARALLEL:  # `parts` reads ahead: here none has to wait
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


def read_url(account: DataAccount, blob: BlobClient) -> str:
    """A URL by which another storage account can read one of our blobs, for an hour. Raises `AzureError`.

    It is signed with a key that the app's identity gets for it (a user delegation SAS; the role Storage Blob
    Data Contributor suffices), or on one machine with the account's key.
    """
    start = clock.now() - timedelta(minutes=5)
    expiry = clock.now() + timedelta(hours=1)
    key = getattr(account.blobs.credential, "account_key", None)
    query = generate_blob_sas(
        str(account.blobs.account_name),
        blob.container_name,
        blob.blob_name,
        account_key=key,
        user_delegation_key=None if key else account.blobs.get_user_delegation_key(start, expiry),
        permission=BlobSasPermissions(read=True),
        start=start,
        expiry=expiry,
    )
    return f"{blob.url}?{query}"
