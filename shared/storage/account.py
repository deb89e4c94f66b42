"""The data account: the names of its containers and queues, and its clients."""

from dataclasses import dataclass
from typing import Any, Final, override

from azure.storage.blob import (
    BlobServiceClient,
    ExponentialRetry,
)
from azure.storage.queue import (
    QueueClient,
    QueueServiceClient,
    TextBase64DecodePolicy,
    TextBase64EncodePolicy,
)

from shared.config.settings import Storage
from shared.connections import SdkTransport, pause
from shared.identity import credential
from shared.storage import transfer

EXPORTS: Final = "exports"
IMPORTS: Final = "imports"
PROCESSING: Final = "imports-processing"
SUCCEEDED: Final = "imports-succeeded"
FAILED: Final = "imports-failed"
TEMPLATES: Final = "templates"
DELIVERED: Final = "exports-delivered"
STATE: Final = "state"
"""What the app keeps for itself: no file of anybody's."""
CONTAINERS: Final = (
    EXPORTS,
    DELIVERED,
    STATE,
    IMPORTS,
    PROCESSING,
    SUCCEEDED,
    FAILED,
    TEMPLATES,
)
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
