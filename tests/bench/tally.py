"""Requests counted at the wire: of a package's export and a file's import, on Azurite and the simulator."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from unittest import mock

from urllib3.connectionpool import HTTPConnectionPool

from local.azurite import running_azurite
from local.containers import provision
from local.samples import VENDORS, Part, package
from local.simulator import identity_settings, running_simulator
from shared.bridge import Bridge, new_clients
from shared.config import jobs, settings
from shared.config.environments import ONLY, Environment
from shared.exports.run import export_packages
from shared.imports import advance, intake, schedule
from shared.observability.events import emit
from shared.operations import journal
from shared.storage import files
from shared.storage.account import DELIVERED, IMPORTS, PROCESSING, SUCCEEDED, connect
from tests.bench.pages import Table

EXPORT_ID = "11111111-1111-4111-8111-111111111111"
IMPORT_ID = "22222222-2222-4222-8222-222222222222"
JOBS = {
    "exports": [{"name": "vendors", "activityId": EXPORT_ID}],
    "imports": [{"name": "journals", "activityId": IMPORT_ID, "entity": "General journal"}],
}


@dataclass(frozen=True)
class Found:
    """What was counted."""

    figures: dict[str, float]
    tables: list[Table]


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Every request of this process, by kind."""
    counts: Counter[str] = Counter()
    urlopen = HTTPConnectionPool.urlopen

    def count(pool: Any, method: str, url: str, *args: Any, **kw: Any) -> Any:
        counts[_kind(method, url)] += 1
        return urlopen(pool, method, url, *args, **kw)

    with mock.patch.object(HTTPConnectionPool, "urlopen", count):
        yield counts


def _kind(method: str, url: str) -> str:
    if "/msi/" in url:
        return "token"
    if "/api/connector/" in url:
        return "D365 " + url.split("/api/connector/")[1].split("/", maxsplit=1)[0]
    if "/data/" in url:
        return "D365 GetMessageStatus"
    comp = re.search(r"comp=(\w+)", url)
    place = "queue" if "/messages" in url and f"/{DELIVERED}/" not in url else "blob"
    return f"storage {place} {method}" + (f" {comp[1]}" if comp else "")


def count(files: int, packages: int) -> Found:
    """Export so many packages; import so many files, checked twice while D365 is at it, once at the end."""
    with running_azurite() as azurite, running_simulator() as d365:
        provision(azurite.connection_string)
        d365.add_import_job(IMPORT_ID)
        account = connect(settings.Storage(azurite.connection_string, None, None, None))
        app_settings = settings.Settings(
            (Environment(ONLY, d365.base_url),),
            settings.Storage("", None, None, None),
            jobs.parse(json.dumps(JOBS).encode()),
            settings.EXPORT_PARALLELISM,
            timedelta(minutes=30),
        )
        with mock.patch.dict("os.environ", identity_settings(d365)):
            bridge = Bridge(app_settings, new_clients(app_settings), account)
            write = journal.keep(account, app_settings.jobs)  # as the app does at its start
            # The hour's journal is there from here on: making it is no part of what a package costs.
            emit("export.finished", job="none", packages=1, failed=0, seconds=0)
            for number in range(packages):
                d365.add_package(EXPORT_ID, package(f"Vendors {number}", [Part(VENDORS, 30)]))
            with counted() as exports:
                export_packages(bridge)
            empty = sum(r.operation == "dequeue" and r.status == 204 for r in d365.requests)
            exports["D365 dequeue"] -= empty
            imports = _import(bridge, files)
            write()  # while there is a storage to write to
    return _found(exports, empty, packages, imports, files)


def _import(bridge: Bridge, number_of_files: int) -> dict[str, Counter[str]]:
    for number in range(number_of_files):
        blob = bridge.account.blobs.get_blob_client(IMPORTS, f"journals/{number:05}.csv")
        blob.upload_blob(f"1;{number}".encode())
    with counted() as sending:
        for number in range(number_of_files):
            intake.import_file(bridge, f"journals/{number:05}.csv")
    counters = {"send": sending}
    for column in ("first check", "second check", "last check"):
        waiting = list(files.listed(bridge.account, PROCESSING))
        assert len(waiting) == number_of_files
        with counted() as counters[column]:
            for file in waiting:
                advance.check_status(bridge, {"file": file.name, "etag": file.etag})
    assert sum(1 for _ in files.listed(bridge.account, SUCCEEDED)) == number_of_files
    return counters


def _found(
    exports: Counter[str],
    empty: int,
    packages: int,
    imports: dict[str, Counter[str]],
    files: int,
) -> Found:
    each = {kind: n / packages for kind, n in exports.items() if kind != "token"}
    writes, reads = (
        sum(n for kind, n in each.items() if re.match(rf"storage \w+ ({methods})\b", kind))
        for methods in ("PUT|POST|DELETE", "GET|HEAD")
    )
    d365_requests = sum(n for kind, n in each.items() if kind.startswith("D365"))
    export = Table(
        "Requests for each exported package",
        ("request", "each"),
        [
            *((kind, f"{n:.2f}") for kind, n in sorted(each.items())),
            ("each run: D365 dequeue that finds the queue empty", f"{empty}"),
        ],
    )
    kinds = sorted({kind for column in imports.values() for kind in column} - {"token"})
    table = Table(
        f"Requests for each of {files:,} imported files",
        ("request", *imports),
        [(kind, *(f"{column[kind] / files:.2f}" for column in imports.values())) for kind in kinds],
    )
    per = {
        name: sum(n for kind, n in column.items() if kind.startswith("storage")) / files
        for name, column in imports.items()
    }
    figures = {
        "d365_requests_per_package": d365_requests,
        "storage_writes_per_package": writes,
        "storage_reads_per_package": reads,
        "d365_requests_per_file_without_checks": imports["send"]["D365 enqueue"] / files,
        "storage_transactions_per_file": per["send"] + per["last check"],
    }
    return Found(figures, [export, table, _status(files, per["first check"], per["last check"])])


def _status(files: int, running: float, last: float) -> Table:
    """What it takes to follow the files until D365 has ended them, by how long D365 needs for them.

    The fewest possible is one check of each file, at the very moment of its end. The host's own two
    transactions for each queue message (get, delete) are in it; its polling of an empty queue is not.
    """
    rows = []
    for name, seconds in (("5 s", 5), ("1 min", 60), ("5 min", 300), ("1 h", 3600), ("8 h", 28800)):
        times = [schedule.check_delay(0).total_seconds()]
        while times[-1] < seconds:
            times.append(times[-1] + schedule.check_delay(len(times)).total_seconds())
        checks = len(times)
        storage = files * ((checks - 1) * (running + 2) + last + 2)
        late = times[-1] - (times[-2] if checks > 1 else 0)
        rows.append(
            (name, f"{checks * files:,}", f"{checks}.0", f"{storage:,.0f}", f"{late:.0f} s")
        )
    head = (
        "D365 needs",
        "executions, each one D365 request",
        "of the fewest",
        "storage transactions",
        "end seen within",
    )
    return Table(f"Status of {files:,} files", head, rows)
