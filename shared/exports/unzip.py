"""The files of a data package, written beside it under its name."""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from io import BufferedIOBase, BytesIO
from mimetypes import guess_file_type
from typing import Final
from urllib.parse import quote

from azure.storage.blob import BlobClient, BlobProperties, ContentSettings

from shared import deadline
from shared.exports.formats import MANIFEST
from shared.packages import Entry, entries
from shared.storage import transfer
from shared.storage.account import EXPORTS, DataAccount
from shared.threads import Pool

WRITERS: Final = 8
HELD: Final = 2 * transfer.BLOCK
"""Bytes of small files that wait to be written. Those of a block and more are written one by one, in parts."""


def unzip(
    account: DataAccount,
    package: BlobClient,
    content: bytes = b"",
) -> None:
    """Write the files of a package into a folder that has its name without `.zip`. A zip that is no data
    package stays as it is.

    `Manifest.xml` is the last one: who sees it, sees a whole folder. What is there with the same length and
    CRC is not written again. `content` is the package, where it is at hand. Raises `InvalidPackage`,
    `transfer.OtherContent`, `deadline.Expired` and the storage's errors.
    """
    file = BytesIO(content) if content else None
    with file or transfer.reader(package, package.get_blob_properties().size) as zipped:
        files = {entry.name: entry for entry in entries(zipped)}
        if MANIFEST not in files:
            return
        manifest = files.pop(MANIFEST)
        folder = str(package.blob_name).rpartition(".")[0] + "/"
        container = account.blobs.get_container_client(EXPORTS)
        there = {
            str(each.name).removeprefix(folder): each
            for each in container.list_blobs(name_starts_with=folder, include=["metadata"])
        }
        missing = [entry for entry in files.values() if not _is_there(entry, there)]
        _write_all(account, folder, str(package.blob_name), missing)
        if not _is_there(manifest, there):
            _write_all(account, folder, str(package.blob_name), [manifest])


def _is_there(entry: Entry, there: Mapping[str, BlobProperties]) -> bool:
    if (blob := there.get(entry.name)) is None:
        return False
    crc = (blob.metadata or {}).get("crc32")
    return (blob.size, crc) == (entry.size, f"{entry.crc:08x}")


def _write_all(
    account: DataAccount,
    folder: str,
    package: str,
    files: list[Entry],
) -> None:
    """Write files side by side. They are read one after the other, since they come out of one file."""

    def write(entry: Entry, content: BufferedIOBase) -> None:
        def read(size: int) -> bytes:
            deadline.bounded(1)
            return content.read(size)

        transfer.store(
            read,
            account.blobs.get_blob_client(EXPORTS, folder + entry.name),
            verify=lambda _: {},  # reading to the end has checked length and CRC
            metadata={"package": quote(package, safe=" /"), "crc32": f"{entry.crc:08x}"},
            content_settings=ContentSettings(
                content_type=guess_file_type(entry.name)[0] or "application/octet-stream"
            ),
        )

    pending: deque[tuple[Future[None], int]] = deque()
    with Pool(WRITERS, "unzip") as pool:
        try:
            for entry in files:
                deadline.bounded(1)
                with entry.open() as content:
                    if entry.size >= transfer.BLOCK:
                        write(entry, content)
                        continue
                    data = b"".join(iter(partial(content.read, transfer.BLOCK), b""))
                while pending and sum(size for _, size in pending) + len(data) > HELD:
                    pending.popleft()[0].result()
                pending.append((pool.submit(write, entry, BytesIO(data)), len(data)))
            for future, _ in pending:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
