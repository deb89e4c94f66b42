"""Which files a package gives out, and when it gives out none."""

import io
import stat
import struct
import zipfile
import zlib
from typing import override

import pytest

from shared.packages import InvalidPackage, entries, unpack
from tests.shared.packages.zips import (
    FILES,
    ROWS,
    WRITERS,
    every_writer,
    read,
    replaced,
    with_skipped,
    zip_by_hand,
)


@every_writer
def test_the_files_of_a_package_are_given_in_order(data: bytes) -> None:
    """Name, size and content; folders are left out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        expected = [(i.filename, archive.read(i)) for i in archive.infolist() if not i.is_dir()]

    actual = [(entry.name, read(entry), entry.size) for entry in entries(io.BytesIO(data))]

    assert actual == [(name, content, len(content)) for name, content in expected]


def test_a_backslash_is_a_slash() -> None:
    """Old .NET writers separate folders so."""
    data = zip_by_hand((b"Customers\\rows.csv", ROWS), (b"Customers\\", b""))
    assert [entry.name for entry in entries(io.BytesIO(data))] == ["Customers/rows.csv"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x", "ends with a dot"),
        ("a/../../x", "ends with a dot"),
        ("..\\x", "ends with a dot"),
        ("a\\..\\..\\x", "ends with a dot"),
        ("a/..", "ends with a dot"),
        ("a/.. /x", "ends with a dot"),
        ("./x", "ends with a dot"),
        ("a./x", "ends with a dot"),
        ("a/ /x", "blank"),
        ("/etc/passwd", "absolute"),
        ("\\\\server\\share\\x", "absolute"),
        ("C:\\x", "drive letter"),
        ("c:x", "drive letter"),
        ("a//x", "empty part"),
        ("", "empty"),
        ("a\0.exe", "control character"),
        ("a\n.csv", "control character"),
        ("a\x85.csv", "control character"),
        ("a\u2028.csv", "control character"),
        ("x" * 701, "more than 700 characters"),
        ("😀" * 351, "more than 700 characters"),
        ("a/" * 250 + "x", "more than 200 parts"),
    ],
)
def test_a_hostile_name_refuses_the_whole_package(name: str, why: str) -> None:
    """Before anything is given out, and the message names the entry."""
    data = zip_by_hand((b"good.txt", b"good"), (name.encode(), b"bad"), flags=1 << 11)
    with pytest.raises(InvalidPackage, match=why) as caught:
        entries(io.BytesIO(data))

    assert repr(name)[1:90] in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.txt", "a.txt"),
        ("a.txt", "A.TXT"),
        ("a/b.txt", "a\\b.txt"),
        ("Müller.csv", "Mu\u0308ller.csv"),
        ("straße", "STRASSE"),
    ],
)
def test_two_names_that_some_system_takes_for_one_are_refused(one: str, other: str) -> None:
    """One file would overwrite the other where they are put."""
    data = zip_by_hand((one.encode(), b"1"), (other.encode(), b"2"), flags=1 << 11)
    with pytest.raises(InvalidPackage, match="two entries with one name"):
        entries(io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zip_by_hand((b"s", b"t"), attributes=(stat.S_IFLNK | 0o777) << 16), "'s' is a link"),
        (zip_by_hand((b"s", b"t"), attributes=(stat.S_IFIFO | 0o600) << 16), "'s' is a link"),
        (zip_by_hand((b"s", b"t"), attributes=(stat.S_IFDIR | 0o755) << 16), "'s' is a link"),
        (zip_by_hand((b"s", b"t"), attributes=0x400), "'s' is a link"),
        (zip_by_hand((b"s/", b"t")), "'s/' is a folder with content"),
        (zip_by_hand((b"s", b"t"), flags=1), "'s' is encrypted"),
        (with_skipped("ZIP_BZIP2"), "'a.bin' is compressed with bzip2"),
        (zip_by_hand((b"s", b"t"), method=9), "'s' is compressed with Deflate64"),
        (zip_by_hand((b"s", b"t"), method=77), "'s' is compressed with method 77"),
        (
            zip_by_hand((b"s", b""), size=60 * 1024**2 * 2),
            "'s' would grow from 2 to 125829120 bytes",
        ),
        (b"", "not a zip"),
        (b"x" * 100, "not a zip"),
        (WRITERS["deflated"][:-1], "not a zip"),
        (WRITERS["comment"][:-1], "what follows the end record is not its comment"),
        (replaced(zip_by_hand(*FILES), b"PK\1\2", b"PK\1\1"), "can't be read as a zip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_plain_file_refuses_the_whole_package(data: bytes, message: str) -> None:
    """Links, devices, encrypted and unreadable content, bombs."""
    with pytest.raises(InvalidPackage, match=message):
        entries(io.BytesIO(data))


def test_a_package_past_its_limits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number, in one file, in all together, and in the size of its directory."""
    data = io.BytesIO(zip_by_hand((b"a", b"12345"), (b"b", b"12345")))
    for limit, value, message in (
        ("MAX_SIZE", 9, "10 bytes in all"),
        ("MAX_SIZE", 4, "entry 'a' has 5 bytes"),
        ("MAX_FILES", 1, "2 entries"),
        ("MAX_DIRECTORY", 50, "directory of 94 bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(unpack, limit, value)
            with pytest.raises(InvalidPackage, match=message):
                entries(data)
    assert len(list(entries(data))) == 2


def test_entries_that_share_bytes_are_refused() -> None:
    """A small file could unpack to a huge one."""

    def both_first(records: list[bytes]) -> list[bytes]:
        return [records[0], records[0].replace(b"a.txt", b"b.txt")]

    data = zip_by_hand((b"a.txt", ROWS), (b"b.txt", ROWS), order=both_first)
    with pytest.raises(InvalidPackage, match=r"'b.txt' shares its bytes"):
        entries(io.BytesIO(data))


def test_an_entry_that_reaches_into_the_directory_is_refused() -> None:
    """Its length is a lie."""
    data = zip_by_hand((b"a.txt", ROWS), method=0)
    at = data.index(b"PK\1\2") + 20
    lying = data[:at] + struct.pack("<L", len(ROWS) + 1) + data[at + 4 :]
    with pytest.raises(InvalidPackage, match=r"'a.txt' shares its bytes"):
        entries(io.BytesIO(lying))


def test_the_count_of_files_is_not_taken_on_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end record may say less than the directory has."""
    data = zip_by_hand((b"a", b"1"), (b"b", b"2"))
    monkeypatch.setattr(unpack, "MAX_FILES", 1)
    with pytest.raises(InvalidPackage, match="2 entries, more than 1"):
        entries(io.BytesIO(replaced(data, b"\0\0\0\0\2\0\2\0", b"\0\0\0\0\1\0\1\0")))


@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("size", [len(ROWS) - 1, len(ROWS) + 1, 0])
@pytest.mark.parametrize("chunk", [1, 1000, 1 << 20, -1])
def test_content_of_another_size_than_announced_is_refused(
    method: int, size: int, chunk: int
) -> None:
    """Even where the CRC is that of what zipfile would give out."""
    data = zip_by_hand((b"rows.csv", ROWS), method=method, size=size, crc=zlib.crc32(ROWS[:size]))
    (entry,) = entries(io.BytesIO(data))
    with pytest.raises(InvalidPackage, match=r"entry 'rows\.csv' can't be read"):
        read(entry, chunk)


def test_changed_content_is_refused_when_it_is_read() -> None:
    """By its CRC."""
    (entry,) = entries(io.BytesIO(zip_by_hand((b"rows.csv", ROWS), crc=1)))
    with pytest.raises(InvalidPackage, match=r"entry 'rows\.csv' can't be read: Bad CRC-32"):
        read(entry)


def test_an_error_of_the_storage_is_not_the_packages_fault() -> None:
    """It comes through as it is, so that the caller tries again."""

    class Failing(io.BytesIO):
        broken = False

        @override
        def read(self, size: int | None = -1, /) -> bytes:
            if self.broken:
                raise ConnectionError("storage")
            return super().read(size)

    file = Failing(WRITERS["deflated"])
    first = next(entries(file))
    file.broken = True
    with pytest.raises(ConnectionError):
        read(first)
    with pytest.raises(ConnectionError):
        entries(file)
