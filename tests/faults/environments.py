"""What an environment in trouble is to another that the same app serves: nothing.

Each kind of trouble is tried beside an environment that is well. What that one is asked for, and what comes of
its packages and files, by either API, must be what it is without the other.
"""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Any, Final
from unittest import mock

from azure.storage.queue import QueueMessage

from local import samples
from local.azurite import running_azurite
from local.containers import provision
from local.simulator import Simulator, identity_settings, running_simulator
from shared import clock
from shared.bridge import MOST_HANGING, Bridge, new_clients
from shared.config import jobs, settings
from shared.config.environments import Environment
from shared.exports import execution, handover, run
from shared.imports import advance, intake, schedule
from shared.storage import files
from shared.storage.account import (
    EXPORT_JOBS_QUEUE,
    EXPORTS,
    FAILED,
    IMPORTS,
    PROCESSING,
    STATUS_QUEUE,
    SUCCEEDED,
    DataAccount,
    connect,
)
from shared.storage.errors import Conflict
from shared.storage.names import job_folder
from tests.faults.scenario import NEVER, NOWHERE
from tests.helpers import D365_STORAGE, EXPORT_ID, IMPORT_ID, PATIENCE, drop, empty

WELL, OTHER = "well", "other"
INVOCATIONS: Final = 2 * MOST_HANGING + 1
"""Of a function at once, as an instance has them."""
PACKAGE: Final = samples.package("Vendors", [samples.Part(samples.VENDORS, 7)])
PACKAGES, FILES = 2, 3
"""So many of each are there for each job; of the other's files as many as there are invocations."""


@dataclass(frozen=True)
class Trouble:
    """A kind of trouble."""

    what: str
    fault: dict[str, Any] = field(default_factory=dict)
    """Of the simulator, at each request."""
    silent: bool = False
    """Nobody answers at its address."""


TROUBLES: Final = (
    Trouble("down: the connection is refused"),
    Trouble("slow: no answer comes before the deadline", silent=True),
    Trouble("refusing: 401", {"do": "answer", "status": 401}),
    Trouble("refusing: 403", {"do": "answer", "status": 403}),
    Trouble(
        "refusing: 429 with a long Retry-After",
        {"do": "answer", "status": 429, "headers": {"Retry-After": "3600"}},
    ),
    Trouble("broken: 500", {"do": "answer", "status": 500}),
    Trouble("broken: connections are reset", {"do": "reset"}),
)


@dataclass(frozen=True)
class Figures:
    """What an environment was asked for, and what came of it."""

    requests: Mapping[str, int]
    """Of each operation; but not how often its queues were asked, which is found empty more or less often."""
    packages: Mapping[str, int]
    """How many each export job has stored."""
    files: Mapping[tuple[str, str], int]
    """How many each import job has in each container."""


@dataclass(frozen=True)
class Tried:
    """What came of a trouble."""

    trouble: Trouble
    violation: str


def tried() -> Iterator[Tried]:
    """Each trouble, tried."""
    with (
        running_azurite(more_accounts=[D365_STORAGE]) as azurite,
        running_simulator() as well,
        running_simulator() as other,
    ):
        provision(azurite.connection_string)
        for simulator in (well, other):
            simulator.use_storage(azurite.connection_string_of(D365_STORAGE))
        storage = settings.Storage(azurite.connection_string, None, None, None)
        account = connect(storage)
        yield from compared(account, well, other)


def compared(account: DataAccount, well: Simulator, other: Simulator) -> Iterator[Tried]:
    """The same between servers that are there."""
    alone = figures(account, well)
    for trouble in TROUBLES:
        beside = figures(account, well, other, trouble)
        yield Tried(trouble, "; ".join(_differences(alone, beside)))


def _differences(alone: Figures, beside: Figures) -> Iterator[str]:
    for what in ("requests", "packages", "files"):
        one, other = getattr(alone, what), getattr(beside, what)
        for key in sorted({*one, *other}, key=str):
            if one.get(key) != other.get(key):
                yield f"{what} of {key}: {one.get(key, 0)} alone, {other.get(key, 0)} beside it"


def figures(
    account: DataAccount,
    well: Simulator,
    other: Simulator | None = None,
    trouble: Trouble | None = None,
) -> Figures:
    """The figures of the environment that is well, alone or beside another one in trouble."""
    empty(account)
    with ExitStack() as stack, ExitStack() as silence:
        urls = {WELL: well.base_url}
        _prepare(well)
        if other and trouble:
            _prepare(other)
            other.issuer = well
            urls[OTHER] = other.base_url
            if trouble.silent:
                listener = silence.enter_context(socket.create_server(("127.0.0.1", 0)))
                urls[OTHER] = f"http://127.0.0.1:{listener.getsockname()[1]}"
            elif trouble.fault:
                other.add_fault("*", times=-1, **trouble.fault)
            else:
                urls[OTHER] = NOWHERE
        stack.enter_context(mock.patch.dict(os.environ, identity_settings(well)))
        stack.enter_context(mock.patch.object(clock, "sleep"))
        stack.enter_context(_soon())
        bridge = _bridge(urls, account)
        _serve(bridge, silence.close, lambda: _settled(account, well))
        stored = account.blobs.get_container_client(EXPORTS).list_blob_names()
    requests = Counter(request.operation for request in well.requests)
    return Figures(
        {name: count for name, count in requests.items() if name not in ("token", "dequeue")},
        Counter(job_folder(name) for name in stored if _is_well(name)),
        _locations(account),
    )


def _prepare(simulator: Simulator) -> None:
    simulator.reset()
    simulator.issuer = simulator
    simulator.statuses = simulator.package_api.statuses = ("Processed",)
    simulator.package_api.statuses = ("Succeeded",)
    simulator.projects["Suppliers"] = "plain"
    simulator.add_import_job(IMPORT_ID)
    for number in range(PACKAGES):  # of the same bytes the second would count as the first again
        part = samples.Part(samples.VENDORS, number + 1)
        simulator.add_package(EXPORT_ID, samples.package(f"Vendors {number}", [part]))


def _bridge(urls: Mapping[str, str], account: DataAccount) -> Bridge:
    """Between the environments at these addresses and storage: each has the same jobs under the same ids."""
    raw = {
        "environments": [{"name": name, "url": url} for name, url in urls.items()],
        "exports": [
            job
            for name in urls
            for job in (
                {"name": f"vendors-{name}", "activityId": EXPORT_ID, "environment": name},
                {
                    "name": f"suppliers-{name}",
                    "api": "package",
                    "dataProject": "Suppliers",
                    "schedule": NEVER,
                    "environment": name,
                },
            )
        ],
        "imports": [
            job
            for name in urls
            for job in (
                {
                    "name": f"journals-{name}",
                    "activityId": IMPORT_ID,
                    "entity": "General journal",
                    "environment": name,
                },
                {
                    "name": f"prices-{name}",
                    "api": "package",
                    "dataProject": "Prices in",
                    "company": "USMF",
                    "environment": name,
                },
            )
        ],
    }
    app_settings = settings.Settings(
        tuple(Environment(name, url) for name, url in urls.items()),
        settings.Storage("", None, None, None),
        jobs.parse(json.dumps(raw).encode()),
        settings.EXPORT_PARALLELISM,
        timedelta(minutes=30),
    )
    return Bridge(app_settings, new_clients(app_settings), account)


@contextmanager
def _soon() -> Iterator[None]:
    """Let nothing wait for longer than a second for its next look."""
    check_file, enqueue = schedule.check_file, handover.enqueue
    second = timedelta(seconds=1)
    with (
        mock.patch.object(
            schedule,
            "check_file",
            lambda bridge, file, delay: check_file(bridge, file, min(delay, second)),
        ),
        mock.patch.object(
            handover,
            "enqueue",
            lambda bridge, job, seconds: enqueue(bridge, job, min(seconds, 1)),
        ),
    ):
        yield


def _serve(bridge: Bridge, end: Callable[[], None], settled: Callable[[], bool]) -> None:
    """Play one instance: the timer, and each function with as many invocations as it may have. The other's
    files come first. When all of the one that is well is done, `end` lets go who still waits for an answer."""
    account = bridge.account
    dropped: list[str] = []
    for name in sorted(bridge.clients):  # the other is the first
        execution.begin_to_count(account, f"suppliers-{name}", clock.now() - timedelta(days=366))
        numbers = range(FILES if name == WELL else INVOCATIONS)
        dropped += [
            drop(account, f"journals-{name}/{n}.csv", f"{n};{name}".encode()) for n in numbers
        ]
        dropped.append(drop(account, f"prices-{name}/prices.zip", PACKAGE))
    done = Event()
    with ThreadPoolExecutor(3 * INVOCATIONS + 1) as pool:
        work: list[Future[Any]] = [pool.submit(run.export_packages, bridge)]
        with ThreadPoolExecutor(INVOCATIONS) as invocations:
            for queue, flow in (
                (STATUS_QUEUE, advance.check_status),
                (EXPORT_JOBS_QUEUE, run.export_job),
            ):
                work += [
                    pool.submit(_trigger, account, queue, partial(flow, bridge), done)
                    for _ in range(INVOCATIONS)
                ]
            work += [invocations.submit(intake.import_file, bridge, name) for name in dropped]
            give_up = time.monotonic() + PATIENCE
            while not settled() and time.monotonic() < give_up:
                time.sleep(0.1)
            done.set()
            end()
    for each in work:
        each.result()


def _trigger(
    account: DataAccount, queue: str, flow: Callable[[dict[str, str]], object], done: Event
) -> None:
    """One invocation after the other."""
    client = account.queue(queue)
    while not done.wait(0.1):
        message: QueueMessage | None = client.receive_message(visibility_timeout=600)
        if message:
            with suppress(Conflict):  # another worker has it
                flow(json.loads(message.content))
            client.delete_message(message)


def _settled(account: DataAccount, well: Simulator) -> bool:
    ended = sum(
        count for (_, container), count in _locations(account).items() if container == SUCCEEDED
    )
    exported = execution.read(account, f"suppliers-{WELL}")
    return (
        ended == FILES + 1
        and all(package.acknowledged for package in well.packages)
        and bool(exported and exported[0].executionid and not exported[0].under_way)
    )


def _locations(account: DataAccount) -> Mapping[tuple[str, str], int]:
    return Counter(
        (job_folder(file.name), container)
        for container in (IMPORTS, PROCESSING, SUCCEEDED, FAILED)
        for file in files.listed(account, container)
        if _is_well(file.name)
    )


def _is_well(name: str) -> bool:
    return job_folder(name).endswith(f"-{WELL}")
