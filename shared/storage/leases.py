"""Leases: one worker at a time, over all instances.

A lease is of a blob and lasts `SECONDS`. A thread renews it while its holder works, so it outlives a work of
many minutes, and ends soon after a holder that crashed (Microsoft Learn, "Lease Blob").
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import Final

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobClient, BlobLeaseClient

from shared.observability.events import emit
from shared.storage.errors import error_code
from shared.threads import Pool

SECONDS: Final = 30
RENEW_SECONDS: Final = 10.0


class Taken(Exception):
    """Another worker holds the lease."""


@contextmanager
def held(blob: BlobClient) -> Iterator[str]:
    """Hold a blob's lease; its id, for writes to the blob. A blob that is not there is made, empty.

    Raises `Taken`.
    """
    lease = _acquire(blob)
    done = Event()
    with Pool(1, thread_name_prefix="lease") as pool:
        pool.submit(_renew, lease, blob.blob_name, done)
        try:
            yield lease.id
        finally:
            done.set()
            with suppress(AzureError):  # then it ends by itself
                lease.release()


def _acquire(blob: BlobClient) -> BlobLeaseClient:
    try:
        return blob.acquire_lease(SECONDS)
    except HttpResponseError as error:
        if error_code(error) == "LeaseAlreadyPresent":
            raise Taken(blob.blob_name) from error
        if error_code(error) != "BlobNotFound":
            raise
    with suppress(ResourceExistsError):
        blob.upload_blob(b"", overwrite=False)
    return _acquire(blob)


def _renew(lease: BlobLeaseClient, name: str, done: Event) -> None:
    while not done.wait(RENEW_SECONDS):
        try:
            lease.renew()
        except AzureError as error:
            # Another worker has it now, or storage is away. What must not happen twice does not depend on it.
            emit("lease.lost", logging.WARNING, blob=name, error=str(error).splitlines()[0])
