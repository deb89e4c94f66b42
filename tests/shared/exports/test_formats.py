"""What an exported file is, by its first bytes: D365 sends neither its name nor its format."""

import io
import zipfile

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.exports import formats
from shared.exports.formats import NotAFile
from shared.exports.run import Totals, export_packages
from shared.storage.account import EXPORTS
from tests.helpers import EXPORT_ID, PACKAGE, contents


def workbook(*more: str) -> bytes:
    """A zip that begins as a workbook does."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("[Content_Types].xml", "_rels/.rels", "xl/workbook.xml", *more):
            archive.writestr(name, f"<{name}/>")
    return buffer.getvalue()


FILES = [
    (b"ACCOUNT;NAME\r\n1;One\r\n", ".csv", "text/csv"),
    ("\ufeffKonto,Name\r\n1,Ärger\r\n".encode(), ".csv", "text/csv"),
    ("ACCOUNT,NAME\r\n".encode("utf-16"), ".csv", "text/csv"),
    ("KONTO;MÄRZ\r\n".encode("cp1252"), ".csv", "text/csv"),
    (b"0001One   \r\n0002Two   \r\n", ".txt", "text/plain"),
    (b"ACCOUNT\tNAME\r\n1\tOne\r\n", ".txt", "text/plain"),
    (b'\xef\xbb\xbf<?xml version="1.0"?><Document/>', ".xml", "application/xml"),
    (
        workbook(),
        ".xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    (b"\x00\x01\x02\x03", ".bin", "application/octet-stream"),
]


@pytest.mark.parametrize(("content", "extension", "media_type"), FILES)
def test_a_job_of_type_file_delivers_any_file(
    unzipping: Bridge, d365: Simulator, content: bytes, extension: str, media_type: str
) -> None:
    """As it is, under an extension that follows from its content; a workbook is not taken apart."""
    package = d365.add_package(EXPORT_ID, content)
    assert export_packages(unzipping) == Totals(1, 0)
    name = f"vendors/{package.correlation_id}{extension}"
    assert contents(unzipping.account, EXPORTS) == {name: content}
    blob = unzipping.account.blobs.get_blob_client(EXPORTS, name)
    assert blob.get_blob_properties().content_settings.content_type == media_type
    assert package.acknowledged == 1


@pytest.mark.parametrize(
    "head",
    [
        PACKAGE,
        b"PK\5\6" + bytes(18),
        b"\x00made by\x00" + PACKAGE,
        workbook("Manifest.xml"),
    ],
    ids=["package", "no entries", "bytes before it", "package of workbooks"],
)
def test_a_zip_is_one_wherever_it_begins(head: bytes) -> None:
    """A data package may have a workbook in it, even as its first file."""
    assert formats.detect(head) == formats.ZIP


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "no bytes"),
        (b"<!DOCTYPE html><p>Sign in", "web page"),
        (b"\xef\xbb\xbf\r\n <HTML lang=de>", "web page"),
        ("<html>".encode("utf-16"), "web page"),
        (b'{"Message": "An error has occurred."}', "An error has occurred"),
        (b' {"odata.error": {"code": ""}}', "an error"),
    ],
)
def test_a_page_or_an_error_is_no_file(head: bytes, says: str) -> None:
    """It comes in the place of one, with a 200."""
    with pytest.raises(NotAFile, match=says):
        formats.detect(head)


@pytest.mark.parametrize(
    "head",
    [
        b'{"account": "1", "name": "One"}',
        b'{"error": "' + b"x" * (64 << 10) + b'"}',
        b'{"error"',
        b'{"a":' * 10_000,
    ],
    ids=["other members", "large", "broken off", "nested"],
)
def test_what_begins_like_an_error_may_be_text(head: bytes) -> None:
    """Nothing that D365 exports is lost because it has braces."""
    assert formats.detect(head) in (formats.CSV, formats.TXT)
