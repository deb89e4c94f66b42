"""What tests share, apart from fixtures: jobs, what people do, and waiting."""

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest
from azure.core.exceptions import ResourceNotFoundError

from local import samples
from local.simulator import Simulator
from shared.bridge import Bridge, new_clients
from shared.config import jobs, settings
from shared.config.environments import ONLY, Environment
from shared.config.settings import Settings, Storage
from shared.d365 import D365, DequeuedMessage, MessageId
from shared.imports import advance, intake
from shared.imports.notification import Notification
from shared.observability.events import emit
from shared.storage import files, signed
from shared.storage.account import (
    CONTAINERS,
    FAILED,
    IMPORTS,
    NOTIFICATIONS_QUEUE,
    POISON_QUEUES,
    PROCESSING,
    QUEUES,
    STATUS_QUEUE,
    DataAccount,
)
from shared.storage.records import File

type Events = Callable[[str], list[dict[str, Any]]]
"""The fixture `events`: the events of a name so far."""

type Later = Callable[[timedelta], None]
"""The fixture `later`: lets time pass."""

PATIENCE: Final = float(os.environ.get("TEST_PATIENCE", "120"))
"""Seconds that a test waits for what must come: a slow machine may take long, and only failures take all."""

D365_STORAGE = "d365storage"
"""The account in which D365 keeps the packages of the package API."""

EXPORT_ID = "11111111-1111-4111-8111-111111111111"
IMPORT_ID = "22222222-2222-4222-8222-222222222222"
ORDERED_ID = "33333333-3333-4333-8333-333333333333"
PACKAGE_ID = "44444444-4444-4444-8444-444444444444"

PACKAGE: Final = samples.package("small", [samples.Part(samples.VENDORS, 5)])
"""A data package, as D365 exports it."""

BUSY: Final = '{"Message": "An error has occurred."}'
"""What D365 itself says of an error that it does not explain."""

JOBS = {
    "exports": [{"name": "vendors", "activityId": EXPORT_ID}],
    "imports": [
        {"name": "journals", "activityId": IMPORT_ID, "entity": "General journal"},
        {"name": "steps", "activityId": ORDERED_ID, "entity": "Steps", "ordered": True},
        {"name": "packages", "activityId": PACKAGE_ID},
        {"name": "projects", "api": "package", "dataProject": "Vendors in", "company": "USMF"},
    ],
}

APP_SETTINGS: Final = {
    "D365_URL": "https://contoso.operations.dynamics.com/",
    "DataStorage": "UseDevelopmentStorage=true",
}
"""The app settings without which it does not start."""


def wait_for[T](what: Callable[[], T], log: Callable[[], str] = str) -> T:
    """What `what` gives as soon as that is true; past all patience the test fails with this log."""
    give_up = time.monotonic() + PATIENCE
    while not (value := what()):
        if time.monotonic() > give_up:
            pytest.fail(f"it did not come to pass within {PATIENCE:.0f} s. {log()}")
        time.sleep(0.05)
    return value


def empty(account: DataAccount) -> None:
    """Delete every blob and message."""
    for name in CONTAINERS:
        container = account.blobs.get_container_client(name)
        for blob in container.list_blobs():
            container.delete_blob(blob.name, delete_snapshots="include")
    for queue in (*QUEUES, *POISON_QUEUES):
        try:
            account.queue(queue).clear_messages()
        except ResourceNotFoundError:
            continue


def make_bridge(d365: Simulator, account: DataAccount, **changes: object) -> Bridge:
    """A bridge with `JOBS`, in which `changes` replace fields of the import job `journals`."""
    return make_bridge_of("journals", d365, account, **changes)


def make_bridge_of(job: str, d365: Simulator, account: DataAccount, **changes: object) -> Bridge:
    """The same with fields of another import job."""
    raw = json.loads(json.dumps(JOBS))
    next(each for each in raw["imports"] if each["name"] == job).update(changes)
    app_settings = Settings(
        (Environment(ONLY, d365.base_url),),
        Storage("", None, None, None),
        jobs.parse(json.dumps(raw).encode()),
        settings.EXPORT_PARALLELISM,
        timedelta(minutes=30),
    )
    return Bridge(app_settings, new_clients(app_settings), account)


def client_of(bridge: Bridge) -> D365:
    """The client of the only environment."""
    (client,) = bridge.clients.values()
    return client


def uploaded(bridge: Bridge, data: bytes = PACKAGE) -> str:
    """The URL of a package that was written to D365's storage."""
    url = client_of(bridge).packages.write_url("a package.zip")
    signed.upload(signed.client(url), iter([data[:100], data[100:]]))
    return url


def import_package(
    bridge: Bridge,
    url: str,
    execution_id: str = "one",
    company: str = "USMF",
    project: str = "Vendors in",
) -> str:
    """Import it as the flow does; the execution's id."""
    return client_of(bridge).packages.import_package(
        url, project, execution_id, execute=True, overwrite=True, company=company
    )


def send(bridge: Bridge, data: bytes = b"1;2;3", **names: str) -> MessageId:
    """Send a file as the import does."""
    options = {"entity": "General journal", "company": "USMF", "external_id": "may.csv", **names}
    return client_of(bridge).enqueue(IMPORT_ID, lambda: iter([data]), len(data), **options)


def dequeued(bridge: Bridge) -> DequeuedMessage:
    """The message that D365 offers."""
    message = client_of(bridge).dequeue(EXPORT_ID)
    assert message
    return message


def drop(account: DataAccount, name: str, data: bytes = b"1;2;3") -> str:
    """Drop a file into `imports`."""
    account.blobs.get_blob_client(IMPORTS, name).upload_blob(data, overwrite=True)
    return name


def drop_file(account: DataAccount, name: str, data: bytes = b"1;2", **metadata: str) -> File:
    """Drop a file with metadata of its own into `imports`."""
    blob = account.blobs.get_blob_client(IMPORTS, name)
    blob.upload_blob(data, overwrite=True, metadata=metadata)
    file = files.find(account, IMPORTS, name)
    assert file is not None
    return file


def succeed(file: str, job: str = "j") -> None:
    """Report that a file succeeded."""
    ids = {"job": job, "file": file, "messageId": ""}
    emit("file.succeeded", 20, **ids, records=None, remark="", seconds=1)


def listed_names(account: DataAccount, container: str) -> list[str]:
    """The names of the files in a container."""
    return [file.name for file in files.listed(account, container)]


def contents(account: DataAccount, container: str) -> dict[str, bytes]:
    """Every blob of a container with its bytes; not what goes away meanwhile."""
    client = account.blobs.get_container_client(container)
    blobs_by_name = {}
    for name in client.list_blob_names():
        with contextlib.suppress(ResourceNotFoundError):
            blobs_by_name[name] = client.download_blob(name).readall()
    return blobs_by_name


def work_queue(bridge: Bridge, rounds: int = 20) -> None:
    """Play the queue trigger until the status queue is empty, waiting for no visibility timeout."""
    for _ in range(rounds):
        queue = bridge.account.queue(STATUS_QUEUE)
        messages = list(queue.receive_messages(visibility_timeout=30))
        for message in messages:
            advance.check_status(bridge, json.loads(message.content))
            queue.delete_message(message)
        if not messages and not queue.get_queue_properties().approximate_message_count:
            return


def try_on(
    bridge: Bridge, later: Callable[[timedelta], None], time: timedelta, step: timedelta
) -> None:
    """Let so much time pass, in steps, and have each file in processing looked at after each of them."""
    for _ in range(int(time / step)):
        later(step)
        for file in list(files.listed(bridge.account, PROCESSING)):
            advance.check_status(bridge, {"file": file.name, "etag": file.etag})


def only(account: DataAccount, container: str) -> File:
    """The one file of a container."""
    (file,) = files.listed(account, container)
    return file


def report(account: DataAccount) -> dict[str, Any]:
    """The one report of an error."""
    blobs = contents(account, FAILED)
    (text,) = (data for name, data in blobs.items() if name.endswith(".error.json"))
    return dict(json.loads(text))


class Elsewhere:
    """Another server, which notes what it is sent."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.ports: list[int] = []
        self.status = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append({k.decode().lower(): v.decode() for k, v in scope["headers"]})
        self.ports.append(scope["client"][1])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": PACKAGE})


def sent(bridge: Bridge, d365: Simulator, *statuses: str) -> dict[str, str]:
    """A file that D365 has, with the statuses that it will give; the message that asks for it."""
    intake.import_file(bridge, drop(bridge.account, "journals/may.csv"))
    d365.received[0].statuses = deque(statuses)
    file = only(bridge.account, PROCESSING)
    return {"file": file.name, "etag": file.etag}


def notifications(account: DataAccount) -> list[Notification]:
    """All that lie on the queue, each in the form of the schema."""
    messages = account.queue(NOTIFICATIONS_QUEUE).receive_messages(messages_per_page=32)
    return [msgspec.json.decode(message.content, type=Notification) for message in messages]
