"""Packages of the package API, moved by storage itself and through the app: what of them passes the app.

`python3 dev.py bench package_api [--mib N] [--way storage|app]`, by default 1 GiB each way, between the
simulator and Azurite, which knows Put Block From URL. The app is a process of its own, all of whose sockets are
counted. Speeds say nothing here: Azurite sets the pace.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from local.azurite import running_azurite
from local.containers import provision
from local.samples import write_large_package
from local.simulator import Simulator, identity_settings, running_simulator
from shared import clock
from shared.config.settings import Storage
from shared.exports import execution
from shared.storage.account import EXPORTS, IMPORTS, DataAccount, connect
from tests.bench.memory import LIMIT_MIB
from tests.bench.pages import Table
from tests.bench.runs import PACKAGE_JOB, PACKAGE_PROJECT

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
D365_STORAGE = "d365storage"
WAYS = {"storage": "by storage", "app": "through the app"}


@dataclass(frozen=True)
class Run:
    """What one transfer took."""

    what: str
    way: str
    seconds: float
    peak_mib: float
    mib: float
    """Through the app, sent and received."""
    requests: int
    """To D365, but for tokens and questions for the status."""
    questions: int
    storage_requests: int


def measured(package: Path, what: str, way: str) -> Run:
    """One transfer, `export` or `import`, on a storage emulator of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="bridge-bench-", dir=package.parent) as folder,
        running_azurite(directory=Path(folder), more_accounts=[D365_STORAGE]) as azurite,
        running_simulator() as d365,
    ):
        provision(azurite.connection_string)
        account = connect(Storage(azurite.connection_string, None, None, None))
        d365.use_storage(azurite.connection_string_of(D365_STORAGE))
        d365.projects[PACKAGE_PROJECT] = "plain"
        d365.package_api.statuses = ("Executing", "Succeeded")
        if what == "export":
            d365.store("made.zip", package)
            d365.package_api.export_blobs[PACKAGE_PROJECT] = "made.zip"
            execution.begin_to_count(account, PACKAGE_JOB, clock.now() - timedelta(days=370))
        else:
            blob = account.blobs.get_blob_client(IMPORTS, f"{PACKAGE_JOB}/large.zip")
            with package.open("rb") as content:
                blob.upload_blob(content, max_concurrency=2)
        figures = _app(f"package_{what}", d365, way, azurite.connection_string)
        operations = Counter(request.operation for request in d365.requests)
        expected = _sha256(package)
        if what == "export":
            sha256 = _sha256_of_blob(account, figures["result"])
        else:
            (sha256,) = (received.sha256 for received in d365.received)
        assert sha256 == expected, f"{what} by {way}: the bytes are not those of the package"
    questions = operations["execution_status"]
    requests = operations.total() - operations["token"] - questions
    peak, mib = figures["peak"], figures["bytes"] / MIB
    return Run(what, way, figures["seconds"], peak, mib, requests, questions, figures["storage"])


def _app(name: str, d365: Simulator, way: str, connection_string: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.runs", name, d365.base_url, way],
        cwd=ROOT,
        env={**os.environ, **identity_settings(d365), "BENCH_AZURITE": connection_string},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_blob(account: DataAccount, name: str) -> str:
    digest = hashlib.sha256()
    for chunk in account.blobs.get_blob_client(EXPORTS, name).download_blob().chunks():
        digest.update(chunk)
    return digest.hexdigest()


def all_runs(package: Path, ways: Sequence[str] = tuple(WAYS)) -> list[Run]:
    """Each way, out and in."""
    return [measured(package, what, way) for what in ("export", "import") for way in ways]


def table(runs: Sequence[Run], mib: int) -> Table:
    """What they took."""
    rows = [
        (
            f"{run.what} {WAYS[run.way]}",
            f"{run.peak_mib:.0f}",
            f"{run.mib:,.1f}",
            f"{run.requests}",
            f"{run.questions}",
            f"{run.storage_requests}",
        )
        for run in runs
    ]
    head = (
        "",
        "peak RSS, MiB",
        "MiB through the app",
        "requests to D365",
        "status questions",
        "requests to storage",
    )
    return Table(f"By the package API, {mib:,} MiB on Azurite", head, rows)


def main() -> int:
    summary = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser("dev.py bench package_api", description=summary)
    parser.add_argument("--mib", type=int, default=1024, help="size of the package (default 1024)")
    parser.add_argument("--way", choices=[*WAYS], help="one way alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as folder:
        package = Path(folder) / "large.zip"
        print(f"writing a package of {options.mib} MiB", flush=True)
        write_large_package(package, options.mib * MIB)
        runs = all_runs(package, [options.way] if options.way else list(WAYS))
    print(table(runs, options.mib).text())
    for run in runs:
        print(f"{run.what} {WAYS[run.way]}: {run.seconds:.0f} s")
    is_flat = all(run.peak_mib < LIMIT_MIB[1] for run in runs)
    print(f"each below {LIMIT_MIB[1]} MiB: {'yes' if is_flat else 'NO'}")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
