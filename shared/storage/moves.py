"""Moves of files between containers.

A move is a server-side copy that must succeed before the source is deleted (I4). The claim of a dropped file is
such a copy too, into a name that follows from the file's path and ETag: of all who try, one creates it (I1).
"""

import logging
from dataclasses import replace
from typing import Final
from urllib.parse import unquote

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import (
    BlobClient,
)

from shared import clock
from shared.observability.events import emit
from shared.storage import files, names, records, transfer
from shared.storage.account import (
    FAILED,
    IMPORTS,
    PROCESSING,
    DataAccount,
)
from shared.storage.errors import (
    Conflict,
    error_code,
    is_denied,
    is_gone_or_changed,
)
from shared.storage.records import File, Record, State

_COPY_URL_LIMIT: Final = 2048
"""Characters of a copy's source URL (Microsoft Learn, "Copy Blob", request header x-ms-copy-source)."""


def claim(account: DataAccount, dropped: File, record: Record) -> File | None:
    """Take one version of a dropped file: copy it under its stamped name, delete it from `imports`.

    The copy is conditional on the version's ETag and on the name being free, so however many try, one file
    comes of it. Then the dropped version goes (and no newer one), before anything is sent: a file that is in
    `imports` has never been sent. None when that version is no longer there, or only its metadata was written
    meanwhile: it is taken when it is looked at again.
    """
    claimed = copy_claim(account, dropped, record)
    return claimed if claimed and release_source(account, claimed) else None


def copy_claim(account: DataAccount, dropped: File, record: Record) -> File | None:
    """The first half of a claim: the copy. `release_source` is the other."""
    name = names.stamped(dropped.name, dropped.modified, dropped.etag)
    record = replace(
        record, externalid=names.external_id(name), source=dropped.name, sourceetag=dropped.etag
    )
    if etag := _copy(account, dropped, PROCESSING, name, record):
        return replace(
            dropped,
            container=PROCESSING,
            name=name,
            etag=etag,
            modified=clock.now(),
            record=record,
            copy_status="success",
            user_metadata=records.from_metadata(records.to_metadata(record, dropped.user_metadata))[
                1
            ],
        )
    # By somebody else, or by us before a crash: whoever goes on agrees on its ETag.
    return files.find(account, PROCESSING, name)


def release_source(account: DataAccount, claimed: File) -> bool:
    """Delete the dropped version that a claim was made of, and no newer one: whether the claim stands.

    It does not where only the metadata of the dropped file were written meanwhile, which makes another version
    of the same bytes: then the claim goes, and the newer version stays to be claimed, or D365 would get the
    bytes twice. Raises `Conflict` where the claim's copy is not whole: it is made anew when the dropped file is
    looked at again.
    """
    record = claimed.record
    _require_whole(account, claimed)
    if not record.source:
        return True
    source = replace(claimed, container=IMPORTS, name=record.source, etag=record.sourceetag)
    if files.delete(account, source) or record.state != State.CLAIMED:
        return True
    newer = files.find(account, IMPORTS, record.source)
    if newer is None or not _has_same_bytes(account, newer, claimed):
        return True
    return not files.delete(account, claimed)


def _has_same_bytes(account: DataAccount, one: File, other: File) -> bool:
    """Whether two files have the same content, byte by byte: storage has no MD5 of what came in blocks, and
    what an uploader says of it is not checked.

    Raises `Conflict` when one is changed or can't be read meanwhile.
    """
    if one.size != other.size:
        return False
    contents = [
        transfer.load(
            account.blobs.get_blob_client(file.container, file.name), file.etag, file.size
        )
        for file in (one, other)
    ]
    try:
        return all(part == same for part, same in zip(*contents, strict=True))
    except (ResourceModifiedError, ResourceNotFoundError) as error:
        raise Conflict(one.name) from error
    finally:
        for content in contents:
            content.close()


def _require_whole(account: DataAccount, copy: File) -> None:
    """Raises `Conflict` unless a copy is whole; one that never will be is deleted, so that its name is free."""
    if copy.copy_status != "success":
        if copy.copy_status != "pending":
            files.delete(account, copy)
        raise Conflict(f"{copy.name}: its copy is {copy.copy_status}")


def move(account: DataAccount, file: File, container: str, record: Record) -> None:
    """File it in another container: copy, see that the copy is whole, delete. Raises `Conflict`."""
    copy_to(account, file, container, record)
    files.delete(account, file)


def copy_to(account: DataAccount, file: File, container: str, record: Record) -> None:
    """The first half of a move: its copy, whole, whoever made it. `delete` is the other. Raises `Conflict`."""
    if _copy(account, file, container, file.name, record):
        return
    present = files.find(account, container, file.name)
    if present is None:
        raise Conflict(file.name)
    _require_whole(account, present)
    if present.size != file.size:
        # The name carries the version, so this can't be; if it is, both are kept for a person.
        raise RuntimeError(f"{container}/{file.name} is there already, with other content")


def _copy(
    account: DataAccount, file: File, container: str, name: str, record: Record
) -> str | None:
    """Copy one version to a free name: the copy's ETag, or None when the name is taken or the version gone."""
    source = account.blobs.get_blob_client(file.container, file.name)
    target = account.blobs.get_blob_client(container, name)
    metadata = records.metadata_of(file, record)
    try:
        if len(source.url) > _COPY_URL_LIMIT:
            return _copy_through(account, file, container, name, metadata)
        answer = target.start_copy_from_url(
            source.url,
            metadata=metadata,
            source_etag=file.etag,
            source_match_condition=MatchConditions.IfNotModified,
            match_condition=MatchConditions.IfMissing,
            tags=_tags(source, file),
        )
    except transfer.OtherContent:
        return None
    except HttpResponseError as error:
        if is_denied(error) and file.tags:
            # It may read tags, but not write them: better a file without its tags than none.
            return _copy(account, _without_tags(file), container, name, record)
        if is_gone_or_changed(error) or error_code(error) == "BlobAlreadyExists":
            return None
        raise
    status, etag = str(answer["copy_status"]), str(answer["etag"])
    while status == "pending":  # within one account it is done at once, as a rule
        clock.sleep(0.5)
        properties = target.get_blob_properties()
        if properties.metadata != metadata:  # done, and another worker went on with it
            return None
        status, etag = str(properties.copy.status), str(properties.etag)
    if status != "success":
        # I4: a copy that is not whole is no copy. Its name must be free for the next try.
        target.delete_blob()
        raise RuntimeError(f"copying {file.container}/{file.name} to {container} ended as {status}")
    return etag


def _tags(source: BlobClient, file: File) -> dict[str, str] | None:
    """A file's blob index tags, which no copy takes along by itself. Reading and writing them needs the role
    Storage Blob Data Owner (Microsoft Learn, "Manage and find Azure Blob data with blob index tags",
    permissions); without it a file goes on without them."""
    if not file.tags:
        return None
    try:
        return source.get_blob_tags() or None
    except HttpResponseError as error:
        if not is_denied(error):
            raise
        _without_tags(file)
        return None


def _without_tags(file: File) -> File:
    emit("tags.dropped", logging.WARNING, job=file.record.job, file=file.name, tags=file.tags)
    return replace(file, tags=0)


def _copy_through(
    account: DataAccount, file: File, container: str, name: str, metadata: dict[str, str]
) -> str | None:
    """Copy by way of this process, where the source's URL is longer than a server-side copy takes.

    None where the copy was there already: another worker's, who may have gone on with it.
    """
    source = account.blobs.get_blob_client(file.container, file.name)
    parts = transfer.load(source, file.etag, file.size)
    blocks = (
        part[start : start + transfer.BLOCK]
        for part in parts
        for start in range(0, len(part), transfer.BLOCK)
    )

    def verify(content: transfer.Digest) -> dict[str, str]:
        if content.length != file.size:
            raise RuntimeError(f"{file.name}: {content.length} bytes read of {file.size}")
        return {}

    stored = transfer.store(
        lambda _: next(blocks, b""),
        account.blobs.get_blob_client(container, name),
        verify=verify,
        metadata=metadata,
        content_settings=source.get_blob_properties().content_settings,
    )
    if stored.created and (tags := _tags(source, file)):
        try:
            account.blobs.get_blob_client(container, name).set_blob_tags(tags)
        except HttpResponseError as error:
            if not is_denied(error):
                raise
            _without_tags(file)
    return stored.etag if stored.created else None


def put_back(account: DataAccount, file: File, user_metadata: dict[str, str]) -> bool:
    """Move a file back to where it was dropped, as a new version with this metadata alone.

    False, and nothing is done, where another file lies there. Raises `Conflict` where nobody knows what became
    of the copy.
    """
    dropped = replace(file, user_metadata=user_metadata)
    if not _copy(account, dropped, IMPORTS, file.record.source, Record()):
        # A copy whose answer was lost is made again by the SDK, and then meets its own first try.
        present = files.find(account, IMPORTS, file.record.source)
        if present is None:
            raise Conflict(file.name)
        if present.user_metadata != {key: value.strip() for key, value in user_metadata.items()}:
            return False
    files.delete(account, file)
    return True


def end_receipt(account: DataAccount, file: File) -> None:
    """Delete a file under failed that a person has had tracked on as `file`, where a crash has left it: what
    lies in processing counts."""
    failed = files.find(account, FAILED, file.name)
    if failed and failed.record.resolution == file.record.resolution:
        files.delete(account, failed)


def end_put_back(account: DataAccount, dropped: File) -> bool:
    """Whether a dropped file was put back from under failed, and a crash has left it there too: then it is
    deleted there."""
    origin = unquote(dropped.user_metadata.get("resendof", ""))
    failed = files.find(account, FAILED, origin) if origin else None
    was = failed and (failed.record.resolution, failed.record.source)
    if not failed or was != ("resending", dropped.name):
        return False
    return files.delete(account, failed)


def copy_fresh(account: DataAccount, file: File, name: str, user_metadata: dict[str, str]) -> bool:
    """Copy a version to a free name in its container; False where the name is taken or the version gone."""
    record = Record(job=file.record.job)
    return bool(
        _copy(account, replace(file, user_metadata=user_metadata), file.container, name, record)
    )
