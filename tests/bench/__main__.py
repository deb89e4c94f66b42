"""`dev.py bench [--quick] [--large] [--json FILE] [--write]`: how fast, how small, at what cost.

Every figure is a ratio within one run on one machine, or a count at the wire; medians over rounds. `--write`
puts the tables and plots into docs/performance.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from statistics import median
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED

import requests
from azure.storage.blob import BlobServiceClient

from local.azurite import Azurite, running_azurite
from local.containers import provision
from local.samples import write_large_package
from tests.bench import package_api, pages, tally
from tests.bench.runs import BLOCK

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
LATENCY = 0.1
"""Seconds added to each request to D365, where many small ones are measured."""


@contextmanager
def servers(package: Path, packages: int = 1, latency: float = 0.0) -> Iterator[str]:
    """D365 and storage on plain sockets, in a process of their own."""
    command = ["--package", str(package), "--packages", str(packages), "--latency", str(latency)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.servers", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


# pip leaves the bytecode of packages, so ours is there too, whatever this machine is set to.
_WITH_BYTECODE = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def run(name: str, url: str, *arguments: object, azurite: Azurite | None = None) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.runs", name, url, *map(str, arguments)],
        cwd=ROOT,
        env={
            **_WITH_BYTECODE,
            **({"BENCH_AZURITE": azurite.connection_string} if azurite else {}),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Bench:
    """Collects tables and figures."""

    def __init__(self, folder: Path, *, quick: bool, large: bool) -> None:
        self._folder, self._quick, self._large = folder, quick, large
        self._rounds = 1 if quick else 5
        self.figures: dict[str, float] = {}
        self.tables: list[pages.Table] = []

    def _package(self, mib: int, compression: int = ZIP_STORED) -> Path:
        path = self._folder / f"{mib}-{compression}.zip"
        if not path.exists():
            write_large_package(path, mib * MIB, compression)
        return path

    def _show(self, table: pages.Table) -> None:
        self.tables.append(table)
        print(table.text(), flush=True)

    # -- large packages -----------------------------------------------------------------------------

    def large(self) -> None:
        """One large package each way: ours, the limit, the naive script, the SDK alone."""
        mib = 128 if self._quick else 1024
        for way in ("export", "import"):
            names = ["limit", "ours", "sdk", "naive"]
            if way == "export" and which("rclone"):
                names.append("rclone")
            runs_by_name: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for _ in range(self._rounds):
                for name in names:  # in turn, so that a busy minute of the machine hits all alike
                    with servers(self._package(mib)) as url:
                        runs_by_name[name].append(run(f"{way}_{name}", url))
            ratios = {
                name: [
                    a["seconds"] / b["seconds"]
                    for a, b in zip(runs_by_name[name], runs_by_name["ours"], strict=True)
                ]
                for name in names
            }
            self.figures[f"large_{way}_of_limit"] = median(ratios["limit"])
            self.figures[f"large_{way}_of_naive"] = median(ratios["naive"])
            rows = [
                (
                    name,
                    f"{median(mib / r['seconds'] for r in runs_by_name[name]):,.0f}",
                    f"{1 / median(ratios[name]):.2f}",
                    f"{median(r['peak'] for r in runs_by_name[name]):,.0f}",
                    f"{median(r['cpu'] for r in runs_by_name[name]) * 1024 / mib:.1f}",
                )
                for name in names
            ]
            head = ("", "MiB/s", "times ours", "peak RSS, MiB", "CPU s per GiB")
            self._show(pages.Table(f"Large {way}, {mib:,} MiB", head, rows, plot=1))
            self.figures[f"{way}_peak_rss_mib_1gib"] = max(r["peak"] for r in runs_by_name["ours"])
            if self._large:
                with servers(self._package(4096)) as url:
                    peak = run(f"{way}_ours", url)["peak"]
                self.figures[f"{way}_peak_rss_mib_4gib"] = peak
                print(f"{way} of 4 GiB: peak RSS {peak:.0f} MiB\n", flush=True)

    def deflated(self) -> None:
        """A large package as D365 makes them, deflated: ours and the limit."""
        mib = 128 if self._quick else 1024
        path = self._package(mib, ZIP_DEFLATED)
        runs_by_name: dict[str, list[dict[str, Any]]] = {"limit": [], "ours": []}
        for _ in range(self._rounds):
            for name, runs in runs_by_name.items():
                with servers(path) as url:
                    runs.append(run(f"export_{name}", url))
        self.figures["deflated_export_of_limit"] = median(
            limit["seconds"] / ours["seconds"]
            for limit, ours in zip(runs_by_name["limit"], runs_by_name["ours"], strict=True)
        )
        rows = [
            (
                name,
                f"{median(mib / each['seconds'] for each in runs):,.0f}",
                f"{median(each['cpu'] for each in runs) * 1024 / mib:.1f}",
            )
            for name, runs in runs_by_name.items()
        ]
        head = ("", "MiB/s of content", "CPU s per GiB of content")
        share = mib * MIB / path.stat().st_size
        self._show(pages.Table(f"Export of {mib:,} MiB deflated {share:.0f}:1", head, rows))

    def azurite(self) -> None:
        """Ours on Azurite, beside the most that Azurite itself does."""
        mib = 64 if self._quick else 512
        path = self._package(mib)
        names = ("azurite_writes", "export_ours", "azurite_reads", "import_ours")
        speeds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(self._rounds):
            with running_azurite() as storage, servers(path) as url:
                provision(storage.connection_string)
                with BlobServiceClient.from_connection_string(storage.connection_string) as account:
                    blob = account.get_blob_client("imports", "journals/large.csv")
                    with path.open("rb") as data:
                        blob.upload_blob(data)
                for name in names:
                    blocks = [mib * MIB // BLOCK] if name.startswith("azurite") else []
                    seconds = run(name, url, *blocks, azurite=storage)["seconds"]
                    speeds[name].append(mib / seconds)
        rows = [
            (what, f"{median(speeds[ours]):.0f}", f"{median(speeds[azurite]):.0f}")
            for what, ours, azurite in (
                ("export", "export_ours", "azurite_writes"),
                ("import", "import_ours", "azurite_reads"),
            )
        ]
        head = ("", "ours, MiB/s", "Azurite's ceiling, MiB/s")
        self._show(pages.Table(f"On Azurite, {mib} MiB", head, rows))

    def package_api(self) -> None:
        """A package by the package API, moved by storage itself and through the app."""
        mib = 100 if self._quick else 1024
        runs = package_api.all_runs(self._package(mib))
        self._show(package_api.table(runs, mib))
        by_storage = [run for run in runs if run.way == "storage"]
        imports = [run for run in runs if run.what == "import"]
        self.figures |= {
            "package_by_storage_peak_rss_mib": max(run.peak_mib for run in by_storage),
            "package_by_storage_mib_through_the_app": max(run.mib for run in by_storage),
            "package_import_d365_requests": max(run.requests for run in imports),
        }

    # -- many small ones ----------------------------------------------------------------------------

    def small(self) -> None:
        """Packages of 20 KiB, D365 answering after 100 ms."""
        path = self._folder / "small.zip"
        write_large_package(path, 20 << 10)
        rows: list[tuple[str, ...]] = []
        rates: dict[int, list[float]] = {1: [], 8: [], 16: []}
        for _ in range(1 if self._quick else 3):
            for at_once, each in rates.items():
                count = (6 if self._quick else 15) if at_once == 1 else (80 if self._quick else 500)
                with servers(path, count, LATENCY) as url:
                    each.append(count / run("export_ours", url, at_once)["seconds"])
        for at_once, each in rates.items():
            ideal = at_once / (3 * LATENCY)
            name = "one after the other" if at_once == 1 else f"{at_once} side by side"
            rate = median(each)
            rows.append(
                (name, f"{rate:.1f}", f"{rate / ideal:.2f}", f"{rate / median(rates[1]):.1f}")
            )
        self.figures["small_of_ideal"] = median(rates[8]) / (8 / (3 * LATENCY))
        self.figures["small_of_sequential"] = median(
            a / b for a, b in zip(rates[16], rates[1], strict=True)
        )
        head = ("", "packages/s", "of the ideal", "times sequential")
        self._show(pages.Table("Packages of 20 KiB at 100 ms a request", head, rows, plot=1))

    def jobs(self) -> None:
        """Many export jobs, one of them with a package."""
        path = self._folder / "small.zip"
        rows = []
        for count in (1, 10, 100) if self._quick else (1, 10, 100, 500):
            with servers(path, 1, LATENCY) as url:
                seconds = run("jobs_ours", url, count)["seconds"]
                dequeues = requests.get(f"{url}/counts", timeout=10).json()["d365 dequeue"]
            rows.append((f"{count}", f"{seconds:.1f}", f"{dequeues}"))
        head = ("jobs", "seconds a run", "dequeues")
        self._show(pages.Table("Many jobs, nearly all empty, 8 side by side", head, rows))

    # -- counts and cold start ----------------------------------------------------------------------

    def counts(self) -> None:
        """Requests for each package and each file, counted at the wire."""
        files = 20 if self._quick else 1000
        result = tally.count(files=files, packages=20 if self._quick else 100)
        self.figures.update(result.figures)
        for table in result.tables:
            self._show(table)

    def cold(self) -> None:
        """The app indexed in the worker, against importing the bare SDKs."""
        with servers(self._folder / "small.zip") as url:
            times: Mapping[str, list[float]] = {"cold_bare": [], "cold_ours": []}
            for name in times:  # leaves bytecode behind
                run(name, url)
            for _ in range(3 if self._quick else 9):
                for name, each in times.items():
                    each.append(run(name, url)["seconds"])
        ratio = median(o / b for o, b in zip(times["cold_ours"], times["cold_bare"], strict=True))
        self.figures["cold_import_of_bare"] = ratio
        rows = [
            ("bare SDKs", f"{median(times['cold_bare']):.2f}", "1.00"),
            ("the app, indexed", f"{median(times['cold_ours']):.2f}", f"{ratio:.2f}"),
        ]
        self._show(pages.Table("Cold start", ("", "seconds", "of the bare SDKs"), rows))


def main() -> int:
    parser = argparse.ArgumentParser("dev.py bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a look, in under a minute")
    parser.add_argument("--large", action="store_true", help="with packages of 4 GiB too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    parser.add_argument(
        "--only",
        metavar="NAME",
        help="large, deflated, azurite, package_api, small, jobs, counts or cold",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as folder:
        bench = Bench(Path(folder), quick=options.quick, large=options.large)
        steps: dict[str, Callable[[], None]] = {
            "large": bench.large,
            "deflated": bench.deflated,
            "azurite": bench.azurite,
            "package_api": bench.package_api,
            "small": bench.small,
            "jobs": bench.jobs,
            "counts": bench.counts,
            "cold": bench.cold,
        }
        write_large_package(Path(folder) / "small.zip", 20 << 10)
        for name, step in steps.items():
            if options.only in (None, name):
                step()
    for name, value in bench.figures.items():
        print(f"{name:<42}{value:>10.2f}")
    if options.json:
        options.json.write_text(json.dumps(bench.figures, indent=2) + "\n", encoding="utf-8")
    if options.write:
        pages.write(bench.tables, bench.figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
