"""Sample data looks like D365's, and is the same each time."""

import csv
import hashlib
import io
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from local import samples
from local.samples import Part

ENTITIES = [
    samples.VENDORS,
    samples.CUSTOMER_PAYMENTS,
    samples.GENERAL_JOURNAL,
    samples.RELEASED_PRODUCTS,
    samples.GENERAL_LEDGER,
]


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.name)
def test_an_entity_has_the_same_rows_as_csv_and_as_xml(entity: samples.Entity) -> None:
    """Quotes, commas and other alphabets come through both forms."""
    lines = list(csv.DictReader(io.StringIO(entity.csv(20).decode("utf-8-sig"), newline="")))
    records = ElementTree.fromstring(entity.xml(20)).iter(entity.target.upper())

    assert len(lines) == 20
    assert [{e.tag: e.text for e in record} for record in records] == lines


def test_a_package_lists_its_files_in_its_manifest() -> None:
    """Manifest, header and a file for each entity."""
    parts = [Part(samples.VENDORS, 3), Part(samples.GENERAL_JOURNAL, 2, "xml")]
    with zipfile.ZipFile(io.BytesIO(samples.package("Fish & chips", parts))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "Manifest.xml",
            "PackageHeader.xml",
            "Vendors V2.csv",
            "General journal.xml",
        ]
        manifest = ElementTree.fromstring(archive.read("Manifest.xml"))
        header = ElementTree.fromstring(archive.read("PackageHeader.xml"))

    files = [e.text for e in manifest.iter() if e.tag.endswith("}InputFilePath")]
    assert files == ["Vendors V2.csv", "General journal.xml"]
    assert [e.text for e in header if e.tag.endswith("}Description")] == ["Fish & chips"]


def test_the_same_package_is_the_same_bytes() -> None:
    """Nothing of the moment is in it."""
    parts = [Part(samples.VENDORS, 3)]
    assert samples.package("Vendors", parts) == samples.package("Vendors", parts)


def test_a_large_package_has_the_size_asked_for_and_no_two_equal_blocks(tmp_path: Path) -> None:
    """Blocks that were exchanged or repeated would show in its hash."""
    path = tmp_path / "large.zip"
    samples.write_large_package(path, 12 * 1024 * 1024)

    assert 12 * 1024 * 1024 < path.stat().st_size < 12.1 * 1024 * 1024
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    blocks = set()
    with path.open("rb") as file:
        count = 0
        while block := file.read(64 * 1024):
            blocks.add(hashlib.sha256(block).digest())
            count += 1
    assert len(blocks) == count
