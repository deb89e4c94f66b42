"""What the records of a zip say, and which of them can't be."""

import io
import zipfile

import pytest

from shared.packages import InvalidPackage
from shared.packages.records import find_end, shown
from tests.shared.packages.zips import (
    FILES,
    every_writer,
    judge,
    replaced,
    zip_by_hand,
    zip_by_python,
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zip_by_hand((b"\xff", b""), flags=1 << 11), "is not UTF-8"),
        (replaced(zip_by_hand(*FILES, zip64=True), b"\1\0\30\0", b"\1\0\31\0"), "longer than all"),
        (replaced(zip_by_hand(*FILES, zip64=True), b"\1\0\30\0", b"\2\0\30\0"), "lacks its zip64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_record_that_can_not_be_is_refused(data: bytes, message: str) -> None:
    """It names the entry."""
    for block in (3, 0):
        with pytest.raises(InvalidPackage, match=message):
            judge(data, block)


@every_writer
def test_the_directory_is_where_zipfile_finds_it(data: bytes) -> None:
    """Of so many entries; also where only the zip64 records say it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start, count = archive.start_dir, len(archive.infolist())
    end = find_end(data, len(data))
    assert (end.offset, end.entries) == (start, count)
    assert data[start : start + end.size].count(b"PK\1\2") == count


def test_what_has_no_end_of_its_own_is_no_zip() -> None:
    """Nor what has bytes behind it that are not its comment."""
    data = zip_by_python(comment=b"of D365")
    for broken, message in (
        (data[: data.rindex(b"PK\5\6")], "no end record in the last"),
        (data[:-1], "not its comment"),
        (data + b"x", "not its comment"),
    ):
        with pytest.raises(InvalidPackage, match=message):
            find_end(broken, len(broken))


def test_a_name_in_a_message_is_one_short_line() -> None:
    """Whoever made the package chose it; old writers use the code page of DOS."""
    assert shown("Überweisung\r\n.csv".encode()) == r"'Überweisung\r\n.csv'"
    assert shown(b"M\x84rz.csv", flags=0) == "'März.csv'"
    assert len(shown(b"x" * 65_535)) == 200
