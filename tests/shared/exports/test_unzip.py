"""The files of a package, beside it: the last one says that all are there, and a fault holds up nothing."""

import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pytest
from azure.core.exceptions import ServiceRequestError
from azure.storage.blob import BlobClient

from local import samples
from local.simulator import Package, Simulator
from shared import clock
from shared.bridge import Bridge
from shared.exports.run import Totals, export_packages
from shared.packages import Entry, entries
from shared.storage import transfer
from shared.storage.account import DELIVERED, EXPORTS
from shared.storage.transfer import BLOCK
from tests.helpers import EXPORT_ID, PATIENCE, Events, contents

SMALL = samples.package("small", [samples.Part(samples.VENDORS, 5)])
OTHER = samples.package("other", [samples.Part(samples.VENDORS, 6)])


def exported(bridge: Bridge) -> dict[str, bytes]:
    return contents(bridge.account, EXPORTS)


def folder_of(package: Package) -> str:
    return f"vendors/{package.correlation_id}"


def a_file_of(bridge: Bridge, package: Package, name: str = "PackageHeader.xml") -> BlobClient:
    return bridge.account.blobs.get_blob_client(EXPORTS, f"{folder_of(package)}/{name}")


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def not_acknowledged(d365: Simulator, bridge: Bridge, content: bytes) -> Package:
    """A package that was stored, and whose acknowledgement was lost before it was noted."""
    package = d365.add_package(EXPORT_ID, content)
    export_packages(bridge)
    container = bridge.account.blobs.get_container_client(DELIVERED)
    for name in list(container.list_blob_names()):
        container.delete_blob(name)
    package.acknowledged = package.offered = 0
    return package


def test_unzip_writes_the_files_beside_the_package(d365: Simulator, unzipping: Bridge) -> None:
    """And only then is the package acknowledged; again gives the same."""
    package = d365.add_package(EXPORT_ID, SMALL)
    assert export_packages(unzipping) == Totals(1, 0)
    folder = folder_of(package)
    first = exported(unzipping)
    with zipfile.ZipFile(io.BytesIO(SMALL)) as archive:
        files = {f"{folder}/{name}": archive.read(name) for name in archive.namelist()}
    assert first == {f"{folder}.zip": SMALL, **files}
    package.acknowledged = package.offered = 0
    assert export_packages(unzipping) == Totals(1, 0)
    assert exported(unzipping) == first


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the blobs that were written, in the order in which that ended."""
    names: list[str] = []
    store = transfer.store

    def noting(read: Any, blob: BlobClient, **options: Any) -> Any:
        stored = store(read, blob, **options)
        names.append(str(blob.blob_name).rpartition("/")[2])
        return stored

    monkeypatch.setattr(transfer, "store", noting)
    return names


def test_the_manifest_is_the_last_file(
    d365: Simulator, unzipping: Bridge, written: list[str]
) -> None:
    """Who sees it, sees a whole folder, wherever it stands in the package."""
    files = {"Manifest.xml": b"<x/>", **{f"{n}.csv": b"%d" % n for n in range(30)}}
    files["Large.csv"] = b"1;2\r\n" * (BLOCK // 4)
    d365.add_package(EXPORT_ID, zipped(files))
    assert export_packages(unzipping) == Totals(1, 0)
    assert set(written[1:]) == files.keys()
    assert written[-1] == "Manifest.xml"


def test_what_is_there_is_not_written_again(
    d365: Simulator, unzipping: Bridge, written: list[str]
) -> None:
    """A crash in the middle costs what was left, not all of it."""
    package = not_acknowledged(d365, unzipping, SMALL)
    a_file_of(unzipping, package).delete_blob()
    written.clear()
    assert export_packages(unzipping) == Totals(1, 0)
    assert written[1:] == ["PackageHeader.xml"]


def test_files_are_written_side_by_side(
    d365: Simulator, unzipping: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write waits for another one to be under way."""
    upload, together = BlobClient.upload_blob, threading.Barrier(4, timeout=PATIENCE)

    def waiting(blob: BlobClient, *args: Any, **options: Any) -> Any:
        if str(blob.blob_name).endswith(".csv"):
            together.wait()
        return upload(blob, *args, **options)

    monkeypatch.setattr(BlobClient, "upload_blob", waiting)
    files = {"Manifest.xml": b"<x/>", **{f"{n}.csv": b"%d" % n for n in range(8)}}
    d365.add_package(EXPORT_ID, zipped(files))
    assert export_packages(unzipping) == Totals(1, 0)
    assert len(exported(unzipping)) == 10


def test_who_takes_a_file_may_mark_it(unzipping: Bridge, d365: Simulator) -> None:
    """With metadata in the place of ours; it is the same file when the package comes again."""
    package = not_acknowledged(d365, unzipping, SMALL)
    stored = unzipping.account.blobs.get_blob_client(EXPORTS, f"{folder_of(package)}.zip")
    for blob in (a_file_of(unzipping, package), stored):
        blob.set_blob_metadata({"taken": "yes"})
    before = set(exported(unzipping))
    assert export_packages(unzipping) == Totals(1, 0)
    assert set(exported(unzipping)) == before


def test_a_changed_file_is_kept_and_told_and_the_package_is_acknowledged(
    unzipping: Bridge, d365: Simulator, events: Events
) -> None:
    """It is somebody else's now, and will not change back."""
    package = not_acknowledged(d365, unzipping, SMALL)
    a_file_of(unzipping, package).upload_blob(b"changed", overwrite=True)
    assert export_packages(unzipping) == Totals(1, 0)
    assert "with other content" in events("unzip.failed")[0]["error"]
    assert a_file_of(unzipping, package).download_blob().readall() == b"changed"
    assert package.acknowledged == 1


UNSAFE = {
    "a folder that ends in a dot": zipped({"Manifest.xml": b"<x/>", "a./b.csv": b"1"}),
    "bzip2": zipped({"Manifest.xml": b"<x/>", "b.csv": b"1"}, zipfile.ZIP_BZIP2),
    "too many files": zipped({"Manifest.xml": b"<x/>", **{f"{n}": b"" for n in range(10_001)}}),
}


@pytest.mark.parametrize("content", UNSAFE.values(), ids=UNSAFE)
def test_a_fault_that_never_passes_holds_up_nothing(
    unzipping: Bridge, d365: Simulator, events: Events, content: bytes
) -> None:
    """The package is safe: it is acknowledged, and a person can unzip it."""
    package = d365.add_package(EXPORT_ID, content)
    assert export_packages(unzipping) == Totals(1, 0)
    assert exported(unzipping) == {f"{folder_of(package)}.zip": content}
    assert package.acknowledged == 1
    (event,) = events("unzip.failed")
    assert event["blob"] == f"{folder_of(package)}.zip"
    assert events("package.failed") == []


def test_a_fault_that_passes_leaves_the_package_to_be_offered_again(
    unzipping: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next time goes on where this one ended."""
    package = d365.add_package(EXPORT_ID, SMALL)
    with monkeypatch.context() as away:
        store = transfer.store

        def failing(read: Any, blob: BlobClient, **options: Any) -> Any:
            if str(blob.blob_name).endswith("PackageHeader.xml"):
                raise ServiceRequestError("storage is away")
            return store(read, blob, **options)

        away.setattr(transfer, "store", failing)
        assert export_packages(unzipping) == Totals(0, 1)
    assert package.acknowledged == 0
    package.offered = 0
    assert export_packages(unzipping) == Totals(1, 0)
    assert len(exported(unzipping)) == 4


def test_unzipping_that_outlasts_the_run_is_given_up(
    unzipping: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is stored, and comes again."""
    package = d365.add_package(EXPORT_ID, SMALL)
    monotonic = clock.monotonic

    def slow(file: IO[bytes]) -> Iterator[Entry]:
        monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + 27 * 60 + 20)
        return entries(file)

    monkeypatch.setattr("shared.exports.unzip.entries", slow)
    assert export_packages(unzipping) == Totals(0, 1)
    assert package.acknowledged == 0
    assert set(exported(unzipping)) == {f"{folder_of(package)}.zip"}


def test_a_package_that_a_reader_takes_before_it_is_unzipped(
    unzipping: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """A large one can't be unzipped any more: that is told, and nothing is delivered twice."""
    files = {"Manifest.xml": b"<x/>", "Large.bin": bytes(range(256)) * (BLOCK // 200)}
    package = d365.add_package(EXPORT_ID, zipped(files, zipfile.ZIP_STORED))
    commit = BlobClient.commit_block_list

    def taken(blob: BlobClient, *args: Any, **options: Any) -> Any:
        result = commit(blob, *args, **options)
        blob.delete_blob()
        return result

    monkeypatch.setattr(BlobClient, "commit_block_list", taken)
    assert export_packages(unzipping) == Totals(1, 0)
    assert (exported(unzipping), package.acknowledged) == ({}, 1)
    assert len(events("unzip.failed")) == 1
