"""One message of an export queue: download its package, check it, store it, unzip it, acknowledge it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from typing import Any, Final, Literal
from urllib.parse import unquote

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobProperties, ContentSettings

from shared import clock, deadline, packages
from shared.bridge import Bridge
from shared.config.jobs import ExportJob
from shared.d365 import LONGEST_WAIT, DequeuedMessage, Download
from shared.d365.errors import D365Error, Rejected, Unavailable, Uncertain
from shared.exports import deliveries, formats
from shared.exports.deliveries import Delivery
from shared.exports.formats import Format
from shared.exports.unzip import unzip
from shared.observability.events import emit
from shared.observability.tracing import new_parent, span
from shared.packages import InvalidPackage, PackageCheck
from shared.storage import names, transfer
from shared.storage.account import EXPORTS
from shared.storage.errors import explained
from shared.storage.records import header_text
from shared.storage.transfer import Digest, OtherContent, Stored

DOWNLOADS: Final = 3
"""Tries for one package: D365 has been seen to answer 500 to the first and then to give it."""

UNREADABLE: Final = "unreadable"
"""Metadata of a package that D365 delivered whole and nobody can read: why."""

NOT_KNOWN: Final = (
    "D365 does not know the message any more. Either it was acknowledged before, or its pop receipt has "
    "expired: then D365 offers it again, and it is acknowledged then"
)

Outcome = Literal["delivered", "empty", "failed"]


@dataclass(frozen=True)
class Offer:
    """A package that D365 has made: for a message of a queue, or for an execution."""

    id: str
    """The message's correlation id, or the execution's own: the blob's name follows from it."""
    location: str
    """What stands for its place in D365 (`deliveries.location_key`): the same for the same package."""
    download: Callable[[int], AbstractContextManager[Download]]
    """Opens its download from a byte on, as `D365.download`."""


@dataclass(frozen=True)
class Serving:
    """An offer being served."""

    bridge: Bridge
    job: ExportJob
    offer: Offer
    refused: set[str] = field(default_factory=set)
    """SHA-256 of its downloads so far that could not be proven whole."""

    def blob(self, name: str) -> BlobClient:
        return self.bridge.account.blobs.get_blob_client(EXPORTS, name)


@dataclass(frozen=True)
class Package:
    """An offer's package, in `exports` now or before."""

    delivery: Delivery
    length: int
    again: bool
    """Whether it was there, or delivered, before."""
    content: bytes = field(default=b"", repr=False)
    """All of it, where it is small and came just now."""
    unreadable: str = ""


class Unproven(Exception):
    """A download whose content our check refuses, or can't look into. The text says why."""


class _Changing(Exception):
    """A package has other bytes at each download."""


FAILURES: Final = (
    D365Error,
    AzureError,
    deadline.Expired,
    Unproven,
    _Changing,
    formats.NotAFile,
)
"""What keeps a package from being delivered this time."""


class _DeliveredBefore(Exception):
    """These bytes were delivered before."""

    def __init__(self, delivery: Delivery, content: Digest) -> None:
        self.delivery, self.content = delivery, content
        super().__init__(delivery.blob)


def serve(
    bridge: Bridge,
    job: ExportJob,
    message: DequeuedMessage,
    acknowledge: Callable[[], bool],
    seconds: float,
) -> Outcome:
    """Store a message's package, then acknowledge it. A failure leaves the message to be offered again (E3).

    `acknowledge` gives False where D365 does not know the message any more. `seconds` are left to store it;
    acknowledging it has what the invocation leaves besides.
    """
    ids: dict[str, Any] = {"job": job.name, "correlationId": message.correlation_id}
    environment = bridge.settings.environment_of(job).name
    with span("export package", new_parent(), **ids, environment=environment):
        try:
            if not message.has_file:
                return _without_file(job, message, acknowledge)
            with deadline.within(seconds):
                offer = Offer(
                    message.correlation_id,
                    deliveries.location_key(message),
                    partial(bridge.d365_for(job).download, message),
                )
                blob = deliver(Serving(bridge, job, offer), carry).delivery.blob
            was_known = acknowledge()  # E1: only now, when all of it is committed
        except FAILURES as error:
            text = (
                f"{explained(error)}. The message was not acknowledged: D365 offers it again in about 30 "
                "minutes, and deletes the package seven days after the export"
            )
            emit("package.failed", logging.ERROR, **ids, error=text)
            return "failed"
        remark = "" if was_known else NOT_KNOWN
        emit("package.acknowledged", **ids, blob=blob, remark=remark)
        return "delivered"


def _without_file(
    job: ExportJob, message: DequeuedMessage, acknowledge: Callable[[], bool]
) -> Outcome:
    """A message that has no file. Raises `Rejected` where D365 says that it failed to make one.

    An export without records makes such messages (Microsoft Learn, "Recurring integrations", section on
    preventing uploads when there are no records): there is nothing to lose.
    """
    if message.problem:
        raise Rejected("download", f"D365 could not make the package: {message.problem}")
    acknowledge()
    emit("package.empty", job=job.name, correlationId=message.correlation_id)
    return "empty"


def deliver(serving: Serving, store: Callable[[Serving, Delivery | None], Package]) -> Package:
    """Store an offer's package and, where the job says so, its files. What was delivered before is not
    delivered again (E7). `store` moves the bytes: `carry`, or another function with the same result.

    Raises `FAILURES`.
    """
    account, job, offer = serving.bridge.account, serving.job, serving.offer
    ids: dict[str, Any] = {"job": job.name, "correlationId": offer.id}
    started = clock.monotonic()
    served = deliveries.of_message(account, names.package_name(job.name, offer.id))
    package = store(serving, served)
    delivery = package.delivery
    emit(
        "package.stored",
        **ids,
        blob=delivery.blob,
        bytes=package.length,
        sha256=delivery.sha256,
        seconds=round(clock.monotonic() - started, 2),
        again=package.again,
    )
    if package.again and served != delivery:
        served = deliveries.of_message(account, delivery.blob)
    if served == delivery:
        return package  # only the acknowledgement was left (E7)
    if package.unreadable:
        why = package.unreadable
        emit("package.unreadable", logging.ERROR, **ids, blob=delivery.blob, error=why)
    if job.unzip and delivery.blob.endswith(formats.ZIP.extension):
        try:
            unzip(account, serving.blob(delivery.blob), package.content)
        except (InvalidPackage, OtherContent, ResourceNotFoundError) as error:
            # It would fail the same way each time, and the package itself is safe.
            why = explained(error)
            emit("unzip.failed", logging.ERROR, **ids, blob=delivery.blob, error=why)
    deliveries.note_message(account, delivery)
    return package


# -- download and store ---------------------------------------------------------------------------


def carry(serving: Serving, served: Delivery | None) -> Package:
    """The package as a blob, its bytes carried by the app: the blob that it is already, or a new one.

    Raises as `_download` does.
    """
    try:
        try:
            return _fetch(serving, served)
        except OtherContent as error:
            # E2: the same id with other bytes is a second blob, whose name follows from these.
            first = served or _delivery_of(serving.blob(error.name).get_blob_properties())
            try:
                return _fetch(serving, None, error.digest.sha256)
            except _Changing:
                # Two downloads of one offer differ: that another one differs from them proves nothing.
                if first.location != serving.offer.location:
                    raise
                return Package(first, error.digest.length, again=True)
    except _DeliveredBefore as error:
        return Package(error.delivery, error.content.length, again=True)


def _fetch(serving: Serving, served: Delivery | None, second: str = "") -> Package:
    """`_download`, made again where it breaks off, comes broken, or can't be proven whole."""
    attempt = 1
    while True:
        try:
            return _download(serving, served, second)
        except (Unavailable, Uncertain, Unproven, formats.NotAFile) as error:
            wait = max(attempt, getattr(error, "retry_after", None) or 0)
            too_long = wait > LONGEST_WAIT or wait > deadline.left()
            if attempt == DOWNLOADS or too_long:
                raise
            _tell_retry(str(error), attempt, wait)
            clock.sleep(wait)
            attempt += 1


def _download(serving: Serving, served: Delivery | None, second: str) -> Package:
    """Download a package into a blob; one that is there already is only compared.

    `second` is the SHA-256 that the content must have, and names the blob. Raises `D365Error`, `AzureError`,
    `formats.NotAFile`, `OtherContent`, `Unproven`, `_Changing` and `_DeliveredBefore`.
    """
    job, offer = serving.job, serving.offer
    with _going_on(serving) as (download, parts):
        read = _in_time(download.read)
        head = transfer.fill(read)
        if not head:
            _check_length(download, 0)
        format_ = formats.detect(head)
        name = names.package_name(job.name, offer.id, second, format_.extension)
        blob, check = serving.blob(name), PackageCheck()

        def verify(content: Digest) -> Mapping[str, str]:
            _check_length(download, content.length)
            if second and content.sha256 != second:
                raise _Changing("the package has other bytes at each download")
            _raise_if_delivered(serving, content, format_)
            whole = head if content.length == len(head) else b""
            why = _doubt(format_, download, check, whole, parts)
            if not why:
                return {}
            # Two downloads with the announced length and the same bytes are what D365 has.
            twice = content.sha256 in serving.refused
            serving.refused.add(content.sha256)
            if not twice or (format_.zipped and download.length is None):
                raise Unproven(why)
            return {UNREADABLE: header_text(why)} if format_.zipped else {}

        # Of a large blob that is there and has a lease, or may not be changed, no block can be staged.
        if served or (len(head) == transfer.BLOCK and blob.exists()):
            content = transfer.digest(_after(head, read))
            _check_length(download, content.length)
            if second and content.sha256 != second:
                raise _Changing("the package has other bytes at each download")
            return _compared(serving, blob, served, content, format_)
        stored = transfer.store(
            _after(head, read),
            blob,
            watch=partial(_feed, check) if format_.zipped else lambda _: None,
            verify=verify,
            metadata={
                "job": job.name,
                "correlationid": header_text(offer.id),
                "location": offer.location,
                "stored": clock.text(clock.now()),
            },
            content_settings=ContentSettings(content_type=format_.media_type),
        )
    return _noted(serving, blob, stored, head if stored.digest.length == len(head) else b"")


@contextmanager
def _going_on(serving: Serving) -> Iterator[tuple[Download, list[int]]]:
    """A download that goes on where it breaks off, if D365 gives parts of a package and each brings some; and
    where its later parts began."""
    download = serving.offer.download
    with ExitStack() as stack:
        whole = part = stack.enter_context(download(0))
        came, parts = 0, list[int]()

        def read(size: int) -> bytes:
            nonlocal part, came
            while True:
                try:
                    data = part.read(size)
                except Unavailable as error:
                    if whole.length is None or came == (parts or [0])[-1] or not deadline.left():
                        raise
                    stack.close()
                    part = stack.enter_context(download(came))
                    if (part.start, part.length) != (came, whole.length):
                        raise  # all of it again, or of another package
                    parts.append(came)
                    _tell_retry(str(error), len(parts), 0)
                else:
                    came += len(data)
                    return data

        yield replace(whole, read=read), parts


def _tell_retry(error: str, attempt: int, seconds: float) -> None:
    emit(
        "d365.retry",
        logging.WARNING,
        operation="download",
        error=error,
        attempt=attempt,
        waitSeconds=seconds,
    )


def _compared(
    serving: Serving, blob: BlobClient, served: Delivery | None, content: Digest, format_: Format
) -> Package:
    """The package that was delivered or stored before, if these are its bytes. Raises `OtherContent`."""
    if served and served.sha256 == content.sha256:
        return Package(served, content.length, again=True)
    _raise_if_delivered(serving, content, format_)
    if not served and transfer.has_content(blob, properties := blob.get_blob_properties(), content):
        return _noted(serving, blob, Stored(content, False, metadata=properties.metadata), b"")
    raise OtherContent(blob.blob_name, content)


def _raise_if_delivered(serving: Serving, content: Digest, format_: Format) -> None:
    """Raise `_DeliveredBefore` if these bytes were delivered before, under any id.

    A zip says when it was made, so another export gives other bytes. A bare file does not: the same bytes from
    another place may be a later export of data that has not changed.
    """
    before = deliveries.of_content(serving.bridge.account, serving.job.name, content.sha256)
    if before and (format_.zipped or before.location == serving.offer.location):
        raise _DeliveredBefore(before, content)


def _doubt(
    format_: Format,
    download: Download,
    check: PackageCheck,
    whole: bytes,
    parts: list[int],
) -> str:
    """Why it is not certain that a file is whole; "" where it is. `whole`: its bytes, if they are at hand."""
    if not format_.zipped:
        if download.length is None:
            return "D365 announced no length, and the file does not say where it ends"
        return "it came in several parts, and does not say whether they fit" if parts else ""
    why = ""
    try:
        if unchecked := check.finish().unchecked:
            why = f"{unchecked} of its entries can't be looked into while they come"
    except InvalidPackage as error:
        why = str(error)
    if why and whole:
        try:
            packages.read_to_the_end(BytesIO(whole), _go_on)
        except InvalidPackage as error:
            return f"{why}; {error}"
        return ""
    return why


def _noted(serving: Serving, blob: BlobClient, stored: Stored, content: bytes) -> Package:
    """The package that is stored now. It is noted and, where that could not be done before, looked into."""
    account, job, offer = serving.bridge.account, serving.job, serving.offer
    unreadable = unquote(stored.metadata.get(UNREADABLE, ""))
    if unreadable and not content:
        unreadable = _read_back(serving, blob, stored, unreadable)
    delivery = Delivery(
        blob.blob_name,
        stored.digest.sha256,
        offer.id,
        offer.location,
        clock.text(clock.now()),
    )
    deliveries.note_content(account, job.name, delivery)
    return Package(delivery, stored.digest.length, not stored.created, content, unreadable)


def _read_back(serving: Serving, blob: BlobClient, stored: Stored, why: str) -> str:
    """Read a package to its end from its blob: why that fails. Where it does not, the blob's mark goes."""
    try:
        with transfer.reader(blob, stored.digest.length) as file:
            packages.read_to_the_end(file, _go_on)
    except InvalidPackage as error:
        return f"{why}; {error}"
    except ResourceNotFoundError:  # a reader has taken it
        return why
    unmarked = {name: value for name, value in stored.metadata.items() if name != UNREADABLE}
    with suppress(HttpResponseError):  # taken just now, or held by somebody's lease
        blob.set_blob_metadata(unmarked)
    return ""


def _delivery_of(properties: BlobProperties) -> Delivery:
    """What a blob's metadata says of its delivery."""
    metadata = properties.metadata
    names = ("sha256", "correlationid", "location", "stored")
    return Delivery(str(properties.name), *(unquote(metadata.get(name, "")) for name in names))


def _check_length(download: Download, length: int) -> None:
    if download.length not in (None, length):
        text = f"{length} bytes came of {download.length} that D365 announced"
        raise Unavailable("download", text)


def _feed(check: PackageCheck, data: bytes | memoryview) -> None:
    """Let the check see what comes. It says what it found at the end, when all bytes are counted."""
    with suppress(InvalidPackage):
        check.feed(data)


def _after(head: bytes, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """What gives `head` first, and then what `read` gives."""
    heads = [head]
    return lambda size: heads.pop() if heads else read(size)


def _in_time(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The same, until the run's time is up. Each read has at most what is left of it."""

    def read_on(size: int) -> bytes:
        _go_on()
        return read(size)

    return read_on


def _go_on() -> None:
    """Raises `Unavailable` when the run's time is up."""
    if not deadline.left():
        raise Unavailable("download", "the run's time was up before the package's end")
