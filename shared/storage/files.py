"""Find, list, update and delete one version of a blob. Every write is conditional on the version's ETag."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.storage.blob import (
    BlobProperties,
    BlobType,
)

from shared import clock
from shared.storage import names, records
from shared.storage.account import FAILED, IMPORTS, DataAccount
from shared.storage.errors import Conflict, Leased, is_gone, is_gone_or_changed, is_leased
from shared.storage.records import File, Record


def is_file(container: str, name: str, metadata: dict[str, str] | None) -> bool:
    """Whether a blob is a file: no probe, no report or error keys beside a failed one, and no folder of a
    hierarchical namespace, which is listed as an empty blob with a mark."""
    other = names.is_probe(name) or (container == FAILED and names.is_beside_failed(name))
    return not other and "hdi_isfolder" not in (metadata or {})


def find(account: DataAccount, container: str, name: str) -> File | None:
    """The blob's current version, or None. Raises `ResourceNotFoundError` if the container is missing."""
    if not names.is_addressable(name):
        return None
    try:
        properties = account.blobs.get_blob_client(container, name).get_blob_properties()
    except HttpResponseError as error:
        if not is_gone(error):
            raise
        return None
    return _file(container, name, properties)


def is_hierarchical(account: DataAccount, file: File) -> bool:
    """Whether a file lies in a hierarchical namespace, where it is seen while it is still being written: only
    there storage says of what type it is (Get Blob Properties, `x-ms-resource-type`)."""
    types = list[str]()

    def note(response: Any) -> None:
        types.append(response.http_response.headers.get("x-ms-resource-type", ""))

    blob = account.blobs.get_blob_client(file.container, file.name)
    try:
        blob.get_blob_properties(raw_response_hook=note)
    except HttpResponseError as error:
        if not is_gone(error):
            raise
        return False
    return types == ["file"]


def listed(account: DataAccount, container: str, prefix: str = "") -> Iterator[File]:
    """The files of a container in name order, with their records; error reports are left out."""
    blobs = account.blobs.get_container_client(container).list_blobs(
        name_starts_with=prefix or None, include=["metadata"]
    )
    for properties in blobs:
        if is_file(container, properties.name, properties.metadata):
            yield _file(container, properties.name, properties)


def page(
    account: DataAccount, container: str, prefix: str, size: int, token: str = ""
) -> tuple[list[File], str]:
    """One request's worth of a container in name order: at most `size` files (5,000 is the service's limit),
    and the token to go on with, "" at the end."""
    pages = (
        account.blobs.get_container_client(container)
        .list_blobs(name_starts_with=prefix or None, include=["metadata"], results_per_page=size)
        .by_page(continuation_token=token or None)
    )
    page_files = [
        _file(container, each.name, each)
        for each in next(pages, ())
        if is_file(container, each.name, each.metadata)
    ]
    return page_files, str(getattr(pages, "continuation_token", None) or "")


def _file(container: str, name: str, properties: BlobProperties) -> File:
    record, user_metadata = records.from_metadata(properties.metadata)
    if container == IMPORTS:  # its metadata belongs to the people who drop files
        record, user_metadata = Record(), dict(properties.metadata or {})
    etag = properties.etag if properties.etag.startswith('"') else f'"{properties.etag}"'
    return File(
        container,
        name,
        etag,
        properties.size,
        properties.last_modified,
        record,
        copy_status=str(properties.copy.status or "success"),
        user_metadata=user_metadata,
        grows=properties.blob_type in (BlobType.APPENDBLOB, BlobType.PAGEBLOB),
        archived=properties.blob_tier == "Archive",
        tags=int(properties.tag_count or 0),
    )


def update(account: DataAccount, file: File, record: Record) -> File:
    """Write a file's record, if the file is still as read. Raises `Conflict` when it is not."""
    blob = account.blobs.get_blob_client(file.container, file.name)
    try:
        done = blob.set_blob_metadata(
            records.metadata_of(file, record),
            etag=file.etag,
            match_condition=MatchConditions.IfNotModified,
        )
    except HttpResponseError as error:
        if not is_gone_or_changed(error):
            raise
        # A write whose answer was lost is tried again by the SDK, and then meets its own first try.
        present = find(account, file.container, file.name)
        if (
            present is None
            or present.record != records.from_metadata(records.to_metadata(record, {}))[0]
        ):
            raise Conflict(file.name) from error
        return present
    user_metadata = records.from_metadata(records.to_metadata(record, file.user_metadata))[1]
    return replace(
        file,
        etag=str(done["etag"]),
        modified=clock.now(),
        record=record,
        user_metadata=user_metadata,
    )


def delete(account: DataAccount, file: File) -> bool:
    """Delete that version and no other: whether it was there. Raises `Leased`."""
    blob = account.blobs.get_blob_client(file.container, file.name)
    try:
        blob.delete_blob(
            delete_snapshots="include",
            etag=file.etag,
            match_condition=MatchConditions.IfNotModified,
        )
    except HttpResponseError as error:
        if is_leased(error):
            raise Leased(
                f"{file.container}/{file.name} has a lease, so it can't be taken away: whoever writes it must "
                "end the lease, or break it (az storage blob lease break)"
            ) from error
        if not is_gone_or_changed(error):
            raise
        return False
    return True


def delete_probe(account: DataAccount, name: str) -> None:
    """Delete a probe from `imports`: the sign that its event has come."""
    with suppress(ResourceNotFoundError):  # the check has given up waiting
        account.blobs.get_blob_client(IMPORTS, name).delete_blob()


def write_error_report(account: DataAccount, name: str, text: str) -> None:
    """Write the report beside a failed file; the newest one stands."""
    blob = account.blobs.get_blob_client(FAILED, names.error_report_name(name))
    blob.upload_blob(text.encode(errors="replace"), overwrite=True)
