"""What can be told of a file before it is sent is told, and D365 is not asked."""

import io
import zipfile
from pathlib import Path

import pytest

from local import samples
from local.simulator import Simulator
from shared.bridge import Bridge
from shared.imports import intake
from shared.storage.account import FAILED, TEMPLATES, DataAccount
from tests.helpers import Later, contents, drop, make_bridge, report

PACKAGE = samples.package("Vendors", [samples.Part(samples.VENDORS, 5)])


def zipped(**files: bytes) -> bytes:
    """A zip with these files; __ in a name stands for a slash, _ for a dot."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"1;2;3", "is called .zip and is none"),
        (PACKAGE[:-10], "cut short or damaged"),
        (PACKAGE[: len(PACKAGE) // 2], "cut short or damaged"),
        (zipped(export__Manifest_xml=b"<a/>", export__Vendors_csv=b"1"), "lies in a folder"),
        (zipped(Vendors_csv=b"1"), "no Manifest.xml"),
    ],
    ids=["no zip", "end missing", "half", "in a folder", "no manifest"],
)
def test_what_is_no_data_package_is_told_at_once(
    bridge: Bridge, d365: Simulator, account: DataAccount, data: bytes, says: str
) -> None:
    """D365 takes such a file, and says hours later, in other words, that it can't use it."""
    intake.import_file(bridge, drop(account, "packages/vendors.zip", data))
    error_report = report(account)
    assert (error_report["reason"], says in error_report["error"]) == ("bad-package", True), (
        error_report["error"]
    )
    assert d365.count("enqueue") == 0
    assert data in contents(account, FAILED).values()


@pytest.mark.parametrize(
    "data",
    [PACKAGE, b"PK" + bytes(3) + PACKAGE, PACKAGE + bytes(7), zipped(MANIFEST_XML=b"<a/>")],
    ids=["sound", "bytes before it", "bytes behind it", "other capitals"],
)
def test_what_is_only_odd_is_for_d365_to_judge(
    bridge: Bridge, d365: Simulator, account: DataAccount, data: bytes
) -> None:
    """Nothing is turned down that D365 may take."""
    intake.import_file(bridge, drop(account, "packages/vendors.zip", data))
    assert [received.length for received in d365.received] == [len(data)]


def test_a_large_package_is_read_at_its_end_alone(
    bridge: Bridge, d365: Simulator, account: DataAccount, tmp_path: Path
) -> None:
    """By ranges: it is never in memory whole."""
    samples.write_large_package(tmp_path / "large.zip", 20 << 20)
    data = (tmp_path / "large.zip").read_bytes()
    intake.import_file(bridge, drop(account, "packages/large.zip", data))
    assert [received.length for received in d365.received] == [len(data)]


def template_of(form: str) -> bytes:
    """A template whose entity has that source format."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(PACKAGE)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, data.replace(b">CSV-Unicode<", f">{form}<".encode()))
    return buffer.getvalue()


XLSX = zipped(**{"[Content_Types]_xml": b"<Types/>"})


@pytest.mark.parametrize(
    ("form", "data", "says"),
    [
        ("EXCEL", b"1;2;3", "no workbook"),
        ("Excel 2016", "ä;2".encode(), "no workbook"),
        ("CSV-Delimited", "1;2".encode("utf-16"), "text in UTF-16"),
        ("CSV", XLSX, "a workbook"),
        ("CSV-Unicode", b"\xd0\xcf\x11\xe0" + bytes(9), "an old workbook"),
        ("XML-Element", b"1;2;3", "no XML"),
        ("EXCEL", XLSX, ""),
        ("CSV-Unicode", "1;2".encode("utf-16"), ""),
        ("CSV-Unicode", b"1;2", ""),
        ("CSV-Delimited", b"\xef\xbb\xbf1;2", ""),
        ("XML-Attribute", b"\xef\xbb\xbf \n<a/>", ""),
        ("XML-Element", "<a/>".encode("utf-16"), ""),
        ("Our own", b"PK", ""),
    ],
)
def test_a_file_of_another_format_than_its_template_is_told_at_once(
    bridge: Bridge, d365: Simulator, account: DataAccount, form: str, data: bytes, says: str
) -> None:
    """D365 would take it, and fail at each of its lines."""
    bridge = make_bridge(d365, account, template="t.zip", entity=None)
    account.blobs.get_blob_client(TEMPLATES, "t.zip").upload_blob(template_of(form))
    intake.import_file(bridge, drop(account, "journals/may.csv", data))
    assert len(d365.received) == (not says)
    if says:
        error_report = report(account)
        assert (error_report["reason"], says in error_report["error"]) == ("wrong-format", True)
        assert form in error_report["error"]


def test_a_template_whose_format_is_put_right_takes_the_file(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """The next one that is dropped; nothing is remembered of the template."""
    bridge = make_bridge(d365, account, template="t.zip", entity=None)
    place = account.blobs.get_blob_client(TEMPLATES, "t.zip")
    for form in ("EXCEL", "CSV-Unicode"):
        place.upload_blob(template_of(form), overwrite=True)
        intake.import_file(bridge, drop(account, "journals/may.csv", b"1;2"))
    assert len(d365.received) == 1
