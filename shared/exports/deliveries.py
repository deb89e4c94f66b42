"""Notes on the packages that were delivered in the last weeks, so that none is delivered a second time (E7).

D365 offers a package again when its acknowledgement was lost, and a reader may have taken the blob by then. The
container `exports-delivered` has two notes on each package, empty blobs whose metadata is a `Delivery`:

- `{job}/content/{SHA-256}`, written when the package is committed: what has these bytes was stored, whatever id
  D365 offers it under the next time;
- `{job}/messages/{name}`, where the blob is `{job}/{name}.zip` or the like, written when only the
  acknowledgement is left to do. The name follows from the message's id: what has this id was served.

`infra/` deletes them after some weeks; D365 offers nothing for longer than seven days after the export.
"""

from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobClient

from shared.d365 import DequeuedMessage
from shared.storage.account import DELIVERED, DataAccount


@dataclass(frozen=True)
class Delivery:
    """A package that is, or was, in `exports`."""

    blob: str
    sha256: str
    correlationid: str = field(compare=False)
    location: str = field(compare=False)
    """`location_key` of the message that it was delivered for."""
    delivered: str = field(compare=False)
    """When, as `clock.text` says it."""


def location_key(message: DequeuedMessage) -> str:
    """What stands for a download location: the same for the same file, also under a new correlation id.

    The ids stand in the path or in the query, such as `?correlation-id=…&blob=…`.
    """
    try:
        parts = urlsplit(message.download_location)
    except ValueError:  # no URL, which the download will say
        return sha256(message.download_location.encode()).hexdigest()[:32]
    query = parse_qsl(parts.query, keep_blank_values=True)
    others = [each for each in query if each[0].lower() not in ("correlation-id", "correlationid")]
    text = f"{parts.path}?{urlencode(sorted(others or query))}"
    return sha256(text.encode()).hexdigest()[:32]


def of_message(account: DataAccount, blob: str) -> Delivery | None:
    """The delivery with this blob name. It may only lack its acknowledgement."""
    return _read(_message_note(account, blob))


def of_content(account: DataAccount, job: str, content: str) -> Delivery | None:
    """The delivery of these bytes (their SHA-256), under any id."""
    return _read(_content_note(account, job, content))


def note_content(account: DataAccount, job: str, delivery: Delivery) -> None:
    """Note that a package is committed."""
    _write(_content_note(account, job, delivery.sha256), delivery)


def note_message(account: DataAccount, delivery: Delivery) -> None:
    """Note that all is done for a package but its acknowledgement."""
    _write(_message_note(account, delivery.blob), delivery)


def _content_note(account: DataAccount, job: str, content: str) -> BlobClient:
    return account.blobs.get_blob_client(DELIVERED, f"{job}/content/{content}")


def _message_note(account: DataAccount, blob: str) -> BlobClient:
    job, _, file = blob.partition("/")
    name = f"{job}/messages/{file.rpartition('.')[0]}"
    return account.blobs.get_blob_client(DELIVERED, name)


def _read(note: BlobClient) -> Delivery | None:
    try:
        metadata = note.get_blob_properties().metadata
    except ResourceNotFoundError:
        return None
    return Delivery(
        **{each.name: unquote(metadata.get(each.name, "")) for each in fields(Delivery)}
    )


def _write(note: BlobClient, delivery: Delivery) -> None:
    metadata = {name: quote(value) for name, value in asdict(delivery).items()}
    note.upload_blob(b"", overwrite=True, metadata=metadata)
