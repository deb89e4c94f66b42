"""The data account: its containers and queue, the names of blobs, claims and moves.

A file's container is its state; its metadata says the rest (`Record`). A move is a server-side copy that must
succeed before the source is deleted (I4). The claim of a dropped file is such a copy too, into a name that
follows from the file's path and ETag: of all who try, one creates it (I1).
"""

import logging
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any, Final, Literal, override
from urllib.parse import quote, unquote
from uuid import uuid4

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import (
    BlobClient,
    BlobProperties,
    BlobServiceClient,
    BlobType,
    ExponentialRetry,
)
from azure.storage.queue import (
    QueueClient,
    QueueServiceClient,
    TextBase64DecodePolicy,
    TextBase64EncodePolicy,
)

from shared import clock
from shared.config.settings import Storage
from shared.connections import SdkTransport, pause
from shared.identity import credential
from shared.observability import telemetry
from shared.storage import transfer

EXPORTS: Final = "exports"
IMPORTS: Final = "imports"
PROCESSING: Final = "imports-processing"
SUCCEEDED: Final = "imports-succeeded"
FAILED: Final = "imports-failed"
TEMPLATES: Final = "templates"
DELIVERED: Final = "exports-delivered"
CONTAINERS: Final = (EXPORTS, DELIVERED, IMPORTS, PROCESSING, SUCCEEDED, FAILED, TEMPLATES)

STATUS_QUEUE: Final = "import-status"
NOTIFICATIONS_QUEUE: Final = "notifications"
EXPORT_JOBS_QUEUE: Final = "export-jobs"
QUEUES: Final = (STATUS_QUEUE, NOTIFICATIONS_QUEUE, EXPORT_JOBS_QUEUE)
POISON_QUEUES: Final = (
    f"{STATUS_QUEUE}-poison",
    f"{EXPORT_JOBS_QUEUE}-poison",
    "webjobs-blobtrigger-poison",
)
"""Where the host puts what it gave up: our queues' messages, and the blob trigger's events."""

_NAME_LIMIT: Final = 1024 - len(".error.json")
_PART_LIMIT: Final = 255 - len(".error.json")
"""Characters of the last part of a name: a hierarchical namespace takes 255 in each part of a path (Microsoft
Learn, "Known issues with Azure Data Lake Storage Gen2", file and directory names)."""
_COPY_URL_LIMIT: Final = 2048
"""Characters of a copy's source URL (Microsoft Learn, "Copy Blob", request header x-ms-copy-source)."""
_METADATA_LIMIT: Final = 7 * 1024
_VALUE_LIMIT: Final = 1024

_SAFE_ID: Final = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z._-]{0,126}[0-9A-Za-z])?")

State = Literal["claimed", "sending", "sent"]
Outcome = Literal["succeeded", "failed", "held"]


@dataclass(frozen=True)
class DataAccount:
    """The clients of the data account, shared by all invocations of a process."""

    blobs: BlobServiceClient
    queues: QueueServiceClient

    def queue(self, name: str) -> QueueClient:
        """A queue, whose messages are encoded as the queue trigger decodes them by default."""
        encode, decode = TextBase64EncodePolicy(), TextBase64DecodePolicy()
        return self.queues.get_queue_client(
            name, message_encode_policy=encode, message_decode_policy=decode
        )


@dataclass(frozen=True)
class Record:
    """What a file's metadata says of its import. Times are ISO 8601 in UTC, "" where there is none."""

    job: str = ""
    company: str = ""
    state: str = ""
    """A `State` in processing, an `Outcome` at the end, which is first written down in processing."""
    source: str = ""
    """Where the file was dropped: its name in `imports`."""
    sourceetag: str = ""
    """Which version of it this is: until that one is deleted, nothing is sent."""
    externalid: str = ""
    """What we called it in D365's `x-ms-dyn-externalidentifier`."""
    messageid: str = ""
    claimed: str = ""
    traceparent: str = ""
    """The W3C context of its trace, from the claim to the end."""
    stopsjob: str = ""
    """Not empty: once failed, it holds up its job for as long as it lies in `imports-failed`."""
    sender: str = ""
    """Who intends to send it: a random id, so that a worker knows its own intent again."""
    sent: str = ""
    attempts: int = 0
    checks: int = 0
    checked: str = ""
    due: str = ""
    """When the next look at it is due; long past means that its queue message was lost."""
    status: str = ""
    records: str = ""
    """How many of its records D365 has imported, "" where it does not say."""
    entities: str = ""
    """The same of each entity, in words."""
    d365company: str = ""
    """The company, or companies, into which D365 imported it."""
    ended: str = ""
    reason: str = ""
    error: str = ""
    """Of a file that failed or is held: what happened, in a sentence; its report has all of it."""
    tried: str = ""
    """When it was last tried to send it, in vain."""
    spent: int = 0
    """Seconds for which it was tried in vain to send it or, once it is sent, D365 was asked after it."""
    sha256: str = ""
    resolution: str = ""
    """What a person did about it (`replaying.Resolution`), with who, when and why."""
    resolvedby: str = ""
    resolved: str = ""
    resolvedwhy: str = ""


@dataclass(frozen=True)
class File:
    """One version of a blob in an imports container."""

    container: str
    name: str
    etag: str
    size: int
    modified: datetime
    record: Record = Record()
    copy_status: str = "success"
    """Of the copy that made this blob; until it is a success, its bytes are not whole."""
    theirs: dict[str, str] = field(default_factory=dict)
    """The metadata that came with the dropped file; it stays with it."""
    grows: bool = False
    """An append or a page blob: it is there before its content is, and nobody can see when that is whole."""
    archived: bool = False
    """It lies in the archive tier, where nothing can be read or copied until it is rehydrated."""
    tags: int = 0
    """How many blob index tags it has, as far as the app may know."""


def connect(storage: Storage) -> DataAccount:
    """The clients for the storage that the settings name."""
    both: dict[str, Any] = {
        "retry_policy": _Retry(initial_backoff=1, increment_base=2, retry_total=4),
        "transport": SdkTransport(
            connection_timeout=20, read_timeout=60, connection_data_block_size=transfer.PART
        ),
    }
    reads: dict[str, Any] = {
        "max_single_get_size": transfer.PART,
        "max_chunk_get_size": transfer.PART,
    }
    if text := storage.connection_string:
        return DataAccount(
            BlobServiceClient.from_connection_string(text, **both, **reads),
            QueueServiceClient.from_connection_string(text, **both),
        )
    token = credential(storage.client_id)
    return DataAccount(
        BlobServiceClient(str(storage.blob_service_uri), credential=token, **both, **reads),
        QueueServiceClient(str(storage.queue_service_uri), credential=token, **both),
    )


class _Retry(ExponentialRetry):
    """Tries again while there is time (A6)."""

    @override
    def sleep(self, settings: dict[str, Any], transport: object) -> None:
        pause(self.get_backoff_time(settings))


# -- names ----------------------------------------------------------------------------------------


def package_name(job: str, correlation_id: str, sha256_: str = "", extension: str = ".zip") -> str:
    """A package's blob: it follows from the message alone, so that one offered again finds it (E2).

    `sha256_` makes the name of a second package under one correlation id.
    """
    return f"{job}/{safe_id(correlation_id)}{'.' * bool(sha256_)}{sha256_[:12]}{extension}"


def safe_id(correlation_id: str) -> str:
    """A correlation id as it stands in names: one with anything in it that is not at home in a file's name is
    hashed (A4)."""
    if _SAFE_ID.fullmatch(correlation_id):
        return correlation_id
    return sha256(correlation_id.encode()).hexdigest()


def stamped(path: str, modified: datetime, etag: str) -> str:
    """The name that a dropped version keeps from its claim on: its path with a stamp of time and ETag.

    `journals/USMF/may.csv` becomes `journals/USMF/may.20261123T204138Z-1a2b3c4d.csv`: the same for the same
    version whoever asks, another for every other version. What is too long loses the end of its stem.
    """
    mark = sha256(f"{path}\n{etag}".encode()).hexdigest()[:8]
    stamp = f".{modified.astimezone(UTC):%Y%m%dT%H%M%SZ}-{mark}"
    pure = PurePosixPath(path)
    suffix = pure.suffix if len(pure.suffix) <= 16 else ""
    stem = path.removesuffix(suffix)
    tail = len(stamp) + _units(suffix)
    folder, slash, file = stem.rpartition("/")
    whole = folder + slash + _cut(file, _PART_LIMIT - tail)
    return _cut(whole, _NAME_LIMIT - tail) + stamp + suffix


def _units(text: str) -> int:
    """Storage is a .NET service, where a character beyond the basic plane counts as two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _cut(text: str, units: int) -> str:
    return text.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "ignore")


_STAMP: Final = re.compile(r"\.(\d{8}T\d{6}Z)-[0-9a-f]{8}(?:\.[^./]*)?$")


def dropped_at(name: str) -> datetime | None:
    """When the file of a stamped name was dropped; None where the name has no stamp."""
    found = _STAMP.search(name)
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%S%z") if found else None
    except ValueError:
        return None


def unstamped(name: str) -> str:
    """A stamped name as the file was dropped, as far as it was not cut; other names as they are."""
    found = _STAMP.search(name)
    return (
        name[: found.start()] + name[found.start() + len(".20261123T204138Z-1a2b3c4d") :]
        if found
        else name
    )


def external_id(name: str) -> str:
    """What D365 shows for a file: its stamped file name in ASCII, at most 128 characters."""
    file = name.rsplit("/", 1)[-1]
    found = _STAMP.search(file)
    stem, stamped_ = (file[: found.start()], found[0][1:]) if found else (file, "")
    stamp, _, suffix = stamped_.partition(".")
    suffix = quote(suffix, safe=" ")
    tail = f".{stamp}" + f".{suffix}" * (0 < len(suffix) <= 32)
    # A header loses the spaces that it begins with; requests sends none that does.
    begins = len(stem) - len(stem.lstrip(" "))
    return ("%20" * begins + quote(stem[begins:], safe=" ()+,=@~"))[: 128 - len(tail)] + tail


ERROR_KEYS: Final = ".error.keys/"
"""Between a failed file's name and an entity's: D365's file of the keys of its failed records."""

PROBE: Final = ".check-"
"""What `checking` writes into the containers begins so; no flow takes it for a file."""


def new_probe() -> str:
    """A name for a probe."""
    return f"{PROBE}{uuid4()}"


def is_probe(name: str) -> bool:
    """Whether a blob is a probe, and no file that a person gave such a name."""
    return bool(_PROBE.fullmatch(name))


_PROBE: Final = re.compile(re.escape(PROBE) + r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_file(container: str, name: str, metadata: dict[str, str] | None) -> bool:
    """Whether a blob is a file: no probe, no report or error keys beside a failed one, and no folder of a
    hierarchical namespace, which is listed as an empty blob with a mark."""
    other = is_probe(name) or (container == FAILED and _is_beside(name))
    return not other and "hdi_isfolder" not in (metadata or {})


def _is_beside(name: str) -> bool:
    """Whether it is a name that we give to what lies beside a failed file."""
    file, keys, entity = name.rpartition(ERROR_KEYS)
    return name.endswith(".error.json") or bool(keys and "/" not in entity and _STAMP.search(file))


# -- metadata -------------------------------------------------------------------------------------


def to_metadata(record: Record, theirs: dict[str, str]) -> dict[str, str]:
    """Metadata for a blob: values in ASCII (the rest percent-encoded), empty ones left out.

    Storage takes 8 KiB of it: of `theirs`, what has room beside ours is kept, the smallest first.
    """
    ours = {
        item.name: _encode(item.name, value)
        for item in fields(Record)
        if (value := getattr(record, item.name)) not in ("", 0)
    }
    room = _METADATA_LIMIT - sum(len(key) + len(value) for key, value in ours.items())
    kept = {}
    for key, value in sorted(theirs.items(), key=lambda item: len(item[0]) + len(item[1])):
        room -= len(key) + len(value)
        if room >= 0 and key.lower() not in _OURS:
            kept[key] = value
    return {**kept, **ours}


def _metadata(file: File, record: Record) -> dict[str, str]:
    """What to write beside a file, and a word of what has no room there."""
    metadata = to_metadata(record, file.theirs)
    lost = sorted(key for key in file.theirs if key not in metadata and key.lower() not in _OURS)
    if lost:
        telemetry.report(
            "metadata.dropped", logging.WARNING, job=record.job, file=file.name, keys=lost
        )
    return metadata


_OURS: Final = frozenset(item.name for item in fields(Record))


_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def _encode(name: str, value: object) -> str:
    """Text that a header can carry: percent-encoded, and a long path in base64 so that 8 KiB suffice."""
    # A path keeps its outer spaces, which a header would lose.
    path = name == "source"
    text = quote(
        str(value) if path else str(value).strip(),
        safe=_PRINTABLE.replace(" " * path, ""),
        errors="replace",
    )
    if len(text) <= _VALUE_LIMIT:
        return text
    if path:
        return _BASE64 + b64encode(str(value).encode()).decode()
    return re.sub(r"%.?$", "", text[: _VALUE_LIMIT - 3]) + "..."


def _decode(value: str) -> str:
    if value.startswith(_BASE64):
        try:
            return b64decode(value.removeprefix(_BASE64), validate=True).decode()
        except ValueError:  # not of our writing
            return value
    return unquote(value)


_BASE64: Final = "base64:"


def from_metadata(metadata: dict[str, str] | None) -> tuple[Record, dict[str, str]]:
    """Our record, and the metadata that is not ours."""
    found = {key.lower(): value for key, value in (metadata or {}).items()}
    ours: dict[str, str | int] = {key: _decode(found[key]) for key in _OURS & found.keys()}
    for name in ("attempts", "checks", "spent"):
        text = str(ours.get(name, "0"))
        ours[name] = int(text) if text.isdecimal() else 0
    theirs = {k: v for k, v in (metadata or {}).items() if k.lower() not in _OURS}
    return Record(**ours), theirs  # type: ignore[arg-type]  # the two ints are ints now


# -- reading --------------------------------------------------------------------------------------


_NO_NAME: Final = re.compile(r"(^|[/\\])\.\.?([/\\]|$)|\0")
"""Names that lead to another blob, even of another container: the SDK's HTTP library folds the dots of a URL,
and storage may take a backslash for a slash. No blob has such a name (A4), nor one with a NUL."""


def is_addressable(name: str) -> bool:
    """Whether a request for a blob of that name reaches it."""
    return not _NO_NAME.search(name)


def find(account: DataAccount, container: str, name: str) -> File | None:
    """The blob's present version, or None. A container that is missing raises `ResourceNotFoundError`."""
    if not is_addressable(name):
        return None
    try:
        found = account.blobs.get_blob_client(container, name).get_blob_properties()
    except HttpResponseError as error:
        if not _is_gone(error):
            raise
        return None
    return _file(container, name, found)


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
        if not _is_gone(error):
            raise
        return False
    return types == ["file"]


def listed(account: DataAccount, container: str, prefix: str = "") -> Iterator[File]:
    """The blobs of a container in name order, with their records; reports of errors left out."""
    blobs = account.blobs.get_container_client(container).list_blobs(
        name_starts_with=prefix or None, include=["metadata"]
    )
    for found in blobs:
        if is_file(container, found.name, found.metadata):
            yield _file(container, found.name, found)


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
    found = [
        _file(container, each.name, each)
        for each in next(pages, ())
        if is_file(container, each.name, each.metadata)
    ]
    return found, str(getattr(pages, "continuation_token", None) or "")


def _file(container: str, name: str, found: BlobProperties) -> File:
    record, theirs = from_metadata(found.metadata)
    if container == IMPORTS:  # what people say there is theirs alone
        record, theirs = Record(), dict(found.metadata or {})
    etag = found.etag if found.etag.startswith('"') else f'"{found.etag}"'
    return File(
        container,
        name,
        etag,
        found.size,
        found.last_modified,
        record,
        copy_status=str(found.copy.status or "success"),
        theirs=theirs,
        grows=found.blob_type in (BlobType.APPENDBLOB, BlobType.PAGEBLOB),
        archived=found.blob_tier == "Archive",
        tags=int(found.tag_count or 0),
    )


# -- claims, records, moves -----------------------------------------------------------------------


class Leased(RuntimeError):
    """Somebody holds a lease on a blob that must go: nothing is done with it until the lease ends."""


class Lost(Exception):
    """Another worker has changed or moved the file since it was read; it goes on with it, not we."""


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
    name = stamped(dropped.name, dropped.modified, dropped.etag)
    record = replace(
        record, externalid=external_id(name), source=dropped.name, sourceetag=dropped.etag
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
            theirs=from_metadata(to_metadata(record, dropped.theirs))[1],
        )
    # By somebody else, or by us before a crash: whoever goes on agrees on its ETag.
    return find(account, PROCESSING, name)


def release_source(account: DataAccount, claimed: File) -> bool:
    """Delete the dropped version that a claim was made of, and no newer one: whether the claim stands.

    It does not where only the metadata of the dropped file were written meanwhile, which makes another version
    of the same bytes: then the claim goes, and the newer version stays to be claimed, or D365 would get the
    bytes twice. Raises `Lost` where the claim's copy is not whole: it is made anew when the dropped file is
    looked at again.
    """
    record = claimed.record
    _require_whole(account, claimed)
    if not record.source:
        return True
    source = replace(claimed, container=IMPORTS, name=record.source, etag=record.sourceetag)
    if _delete(account, source) or record.state != "claimed":
        return True
    newer = find(account, IMPORTS, record.source)
    if newer is None or not _has_same_bytes(account, newer, claimed):
        return True
    return not _delete(account, claimed)


def _has_same_bytes(account: DataAccount, one: File, other: File) -> bool:
    """Whether two files have the same content, byte by byte: storage has no MD5 of what came in blocks, and
    what an uploader says of it is not checked. Raises `Lost` when one is changed or can't be read meanwhile."""
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
        raise Lost(one.name) from error
    finally:
        for content in contents:
            content.close()


def _require_whole(account: DataAccount, copy: File) -> None:
    """Raises `Lost` unless a copy is whole; one that never will be is deleted, so that its name is free."""
    if copy.copy_status != "success":
        if copy.copy_status != "pending":
            _delete(account, copy)
        raise Lost(f"{copy.name}: its copy is {copy.copy_status}")


def update(account: DataAccount, file: File, record: Record) -> File:
    """Write a file's record, if the file is still as read. Raises `Lost` when it is not."""
    blob = account.blobs.get_blob_client(file.container, file.name)
    try:
        done = blob.set_blob_metadata(
            _metadata(file, record),
            etag=file.etag,
            match_condition=MatchConditions.IfNotModified,
        )
    except HttpResponseError as error:
        if not _is_gone_or_changed(error):
            raise
        # A write whose answer was lost is tried again by the SDK, and then meets its own first try.
        found = find(account, file.container, file.name)
        if found is None or found.record != from_metadata(to_metadata(record, {}))[0]:
            raise Lost(file.name) from error
        return found
    theirs = from_metadata(to_metadata(record, file.theirs))[1]
    return replace(file, etag=str(done["etag"]), modified=clock.now(), record=record, theirs=theirs)


def move(account: DataAccount, file: File, container: str, record: Record) -> None:
    """File it in another container: copy, see that the copy is whole, delete. Raises `Lost`."""
    copy_to(account, file, container, record)
    delete(account, file)


def copy_to(account: DataAccount, file: File, container: str, record: Record) -> None:
    """The first half of a move: its copy, whole, whoever made it. `delete` is the other. Raises `Lost`."""
    if _copy(account, file, container, file.name, record):
        return
    found = find(account, container, file.name)
    if found is None:
        raise Lost(file.name)
    _require_whole(account, found)
    if found.size != file.size:
        # The name carries the version, so this can't be; if it is, both are kept for a person.
        raise RuntimeError(f"{container}/{file.name} is there already, with other content")


def _copy(
    account: DataAccount, file: File, container: str, name: str, record: Record
) -> str | None:
    """Copy one version to a free name: the copy's ETag, or None when the name is taken or the version gone."""
    source = account.blobs.get_blob_client(file.container, file.name)
    target = account.blobs.get_blob_client(container, name)
    metadata = _metadata(file, record)
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
        if _may_not(error) and file.tags:
            # It may read tags, but not write them: better a file without its tags than none.
            return _copy(account, _without_tags(file), container, name, record)
        if _is_gone_or_changed(error) or error_code(error) == "BlobAlreadyExists":
            return None
        raise
    status, etag = str(answer["copy_status"]), str(answer["etag"])
    while status == "pending":  # within one account it is done at once, as a rule
        clock.sleep(0.5)
        found = target.get_blob_properties()
        if found.metadata != metadata:  # done, and another worker went on with it
            return None
        status, etag = str(found.copy.status), str(found.etag)
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
        if not _may_not(error):
            raise
        _without_tags(file)
        return None


def _without_tags(file: File) -> File:
    telemetry.report(
        "tags.dropped", logging.WARNING, job=file.record.job, file=file.name, tags=file.tags
    )
    return replace(file, tags=0)


def _may_not(error: HttpResponseError) -> bool:
    """Whether an identity lacks a role."""
    return error.status_code == 403


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
        content_type=str(source.get_blob_properties().content_settings.content_type),
    )
    if stored.created and (tags := _tags(source, file)):
        try:
            account.blobs.get_blob_client(container, name).set_blob_tags(tags)
        except HttpResponseError as error:
            if not _may_not(error):
                raise
            _without_tags(file)
    return stored.etag if stored.created else None


def delete(account: DataAccount, file: File) -> bool:
    """The second half of a move: delete that version and no other. Whether it was there. Raises `Leased`."""
    return _delete(account, file)


def _delete(account: DataAccount, file: File) -> bool:
    """Delete that version and no other: whether it was there. Raises `Leased`."""
    blob = account.blobs.get_blob_client(file.container, file.name)
    try:
        blob.delete_blob(
            delete_snapshots="include",
            etag=file.etag,
            match_condition=MatchConditions.IfNotModified,
        )
    except HttpResponseError as error:
        if _leased(error):
            raise Leased(
                f"{file.container}/{file.name} has a lease, so it can't be taken away: whoever writes it must "
                "end the lease, or break it (az storage blob lease break)"
            ) from error
        if not _is_gone_or_changed(error):
            raise
        return False
    return True


def _is_gone_or_changed(error: HttpResponseError) -> bool:
    """Whether a conditional request found that the blob is gone, or another version."""
    return _is_gone(error) or (error.status_code == 412 and not _leased(error))


def _is_gone(error: HttpResponseError) -> bool:
    """Whether there is no such blob. Another 404 is none of that: a container or an account is missing, which
    a person must see to (Microsoft Learn, "Blob Storage error codes"). A copy has a code of its own for it."""
    return error.status_code == 404 and error_code(error) in _GONE


_GONE: Final = ("BlobNotFound", "CannotVerifyCopySource")


def _leased(error: HttpResponseError) -> bool:
    return error_code(error).startswith("Lease")


def error_code(error: HttpResponseError) -> str:
    """Storage's own code for an error, such as `ContainerNotFound`; else what the status line says."""
    code = getattr(error, "error_code", None) or error.reason
    return str(getattr(code, "value", code))  # the SDK's enum would show its own name of it


def delete_probe(account: DataAccount, name: str) -> None:
    """Delete a probe from `imports`: the sign that its event has come."""
    with suppress(ResourceNotFoundError):  # the check has given up waiting
        account.blobs.get_blob_client(IMPORTS, name).delete_blob()


def put_back(account: DataAccount, file: File, theirs: dict[str, str]) -> bool:
    """Move a file back to where it was dropped, as a new version; False, and nothing done, where another file
    lies there. What it carries from now on is `theirs` alone. Raises `Lost` where it can't be told what became
    of the copy."""
    dropped = replace(file, theirs=theirs)
    if not _copy(account, dropped, IMPORTS, file.record.source, Record()):
        # A copy whose answer was lost is made again by the SDK, and then meets its own first try.
        found = find(account, IMPORTS, file.record.source)
        if found is None:
            raise Lost(file.name)
        if found.theirs != {key: value.strip() for key, value in theirs.items()}:
            return False
    _delete(account, file)
    return True


def end_receipt(account: DataAccount, file: File) -> None:
    """Delete a file under failed that a person has had tracked on as `file`, where a crash has left it: what
    lies in processing counts."""
    failed = find(account, FAILED, file.name)
    if failed and failed.record.resolution == file.record.resolution:
        _delete(account, failed)


def end_put_back(account: DataAccount, dropped: File) -> bool:
    """Whether a dropped file was put back from under failed, and a crash has left it there too: then it is
    deleted there."""
    origin = unquote(dropped.theirs.get("replayof", ""))
    failed = find(account, FAILED, origin) if origin else None
    was = failed and (failed.record.resolution, failed.record.source)
    if not failed or was != ("resending", dropped.name):
        return False
    return _delete(account, failed)


def copy_fresh(account: DataAccount, file: File, name: str, theirs: dict[str, str]) -> bool:
    """Copy a version to a free name in its container; False where the name is taken or the version gone."""
    record = Record(job=file.record.job)
    return bool(_copy(account, replace(file, theirs=theirs), file.container, name, record))


def write_report(account: DataAccount, name: str, text: str) -> None:
    """Write `{name}.error.json` beside a failed file; the newest one stands."""
    blob = account.blobs.get_blob_client(FAILED, f"{name}.error.json")
    blob.upload_blob(text.encode(errors="replace"), overwrite=True)
