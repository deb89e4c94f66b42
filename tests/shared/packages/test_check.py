"""What a data package must be: judged while it streams by, and safe to unpack."""

import io
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import override

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.packages import Entry, InvalidPackage, PackageCheck, Summary, check, entries, unpack

MANIFEST = b"<?xml version='1.0'?><DataManagementPackageManifest/>" * 3
ROWS = b"".join(b"%06d;USMF;Customer %d\r\n" % (n, n * 7919 % 1000) for n in range(40))


def _check(data: bytes, block: int = 0) -> Summary:
    check = PackageCheck()
    for at in range(0, len(data), block or max(1, len(data))):
        check.feed(data[at : at + (block or len(data))])
    return check.finish()


def _passes(data: bytes) -> Summary | None:
    try:
        return _check(data)
    except InvalidPackage:
        return None


def _zipfile_reads(data: bytes) -> bool:
    """The oracle: zipfile reads every entry to its end, and finds as many bytes as announced."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                with archive.open(info) as content:
                    if len(content.read()) != info.file_size:
                        return False
    except Exception:  # noqa: BLE001 - zipfile raises many kinds, and each is a no
        return False
    return True


# -- packages of several writers ------------------------------------------------------------------


class _Unseekable(io.RawIOBase):
    def __init__(self, into: io.BytesIO) -> None:
        self._into = into

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: object, /) -> int:
        assert isinstance(data, bytes | bytearray | memoryview)
        return self._into.write(data)


def _python(
    method: int = zipfile.ZIP_DEFLATED,
    *,
    streamed: bool = False,
    zip64: bool = False,
    comment: bytes = b"",
    files: Iterable[tuple[str, bytes]] = (
        ("Manifest.xml", MANIFEST),
        ("Customers V3/Überweisung ü.csv", ROWS),
        ("empty.txt", b""),
    ),
) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(_Unseekable(into) if streamed else into, "w", method) as archive:
        archive.comment = comment
        for name, content in files:
            with archive.open(name, "w", force_zip64=zip64) as file:
                file.write(content)
    return into.getvalue()


def _made(
    *files: tuple[bytes, bytes],
    descriptor: str | None = None,
    method: int = 8,
    flags: int = 0,
    size: int | None = None,
    crc: int | None = None,
    deflated: bytes | None = None,
    attributes: int = 0,
    zip64: bool = False,
    order: Callable[[list[bytes]], list[bytes]] = list,
) -> bytes:
    """A zip by hand; `descriptor` is how the data descriptor is packed, for example "<4sLQQ".

    With `zip64`, all that the directory and the end record say stands in their zip64 parts.
    """
    body, directory = bytearray(), []
    for name, content in files:
        packed = content
        if method == 8:
            deflater = zlib.compressobj(wbits=-15)
            packed = deflater.compress(content) + deflater.flush() if deflated is None else deflated
        sums = (
            zlib.crc32(content) if crc is None else crc,
            len(packed),
            len(content) if size is None else size,
        )
        bits = flags | (8 if descriptor else 0)
        offset = len(body)
        first = (0, 0, 0) if descriptor else sums
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 45, bits, method, 0, 33, *first, len(name), 0)
        body += name + packed
        if descriptor:
            signature = (b"PK\x07\x08",) if "4s" in descriptor else ()
            body += struct.pack(descriptor, *signature, *sums)
        extra = struct.pack("<2H3Q", 1, 24, sums[2], sums[1], offset) if zip64 else b""
        sums, offset = ((sums[0], ONES, ONES), ONES) if zip64 else (sums, offset)
        fixed = struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\1\2", 45, 45, bits, method, 0, 33),
            *(*sums, len(name), len(extra), 0, 0, 0, attributes, offset),
        )
        directory.append(fixed + name + extra)
    listed = b"".join(order(directory))
    return bytes(body) + listed + _end(len(directory), len(listed), len(body), zip64)


def _end(count: int, size: int, offset: int, zip64: bool) -> bytes:
    if not zip64:
        return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, offset, 0)
    counts = (0, 0, count, count, size, offset)
    return (
        struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, *counts)
        + struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, ONES, ONES, 0)
    )


ONES = 0xFFFFFFFF
FILES = ((b"Manifest.xml", MANIFEST), (b"rows.csv", ROWS), (b"empty.txt", b""))
WRITERS = {
    "stored": _python(zipfile.ZIP_STORED),
    "deflated": _python(),
    "streamed": _python(streamed=True),
    "zip64": _python(zip64=True),
    "streamed zip64": _python(streamed=True, zip64=True),
    "comment": _python(comment=b"made by D365 PK"),
    "folders": _python(files=(("a/", b""), ("a/b/", b""), ("a/b/c.txt", b"c"))),
    "no entries": _python(files=()),
    "descriptor": _made(*FILES, descriptor="<4sLLL"),
    "descriptor without signature": _made(*FILES, descriptor="<LLL"),
    "descriptor of 64 bits": _made(*FILES, descriptor="<4sLQQ"),
    "descriptor of 64 bits without signature": _made(*FILES, descriptor="<LQQ"),
    "descriptor of an empty stored file": _made(
        (b"e", b""), (b"f", b""), method=0, descriptor="<4sLLL"
    ),
    "directory in another order": _made(*FILES, order=lambda records: records[::-1]),
    "directory and end in zip64": _made(*FILES, zip64=True),
    "deflated to no bytes": _made((b"empty.txt", b""), deflated=b""),
}
every_writer = pytest.mark.parametrize("data", WRITERS.values(), ids=WRITERS)


@every_writer
@pytest.mark.parametrize("block", [1, 7, 4096, 0])
def test_a_good_package_passes_in_blocks_of_any_size(data: bytes, block: int) -> None:
    """Its entries, its length and its content are counted, whatever the blocks."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
    content = sum(info.file_size for info in infos)

    assert _check(data, block) == Summary(len(infos), len(data), content, 0)


@pytest.mark.parametrize("descriptor", [None, "<4sLLL"])
def test_content_may_end_anywhere_in_what_is_inflated_at_once(descriptor: str | None) -> None:
    """The end may come together with the last full piece, or after it."""
    piece = check._INFLATED_PIECE
    for size in (piece - 1, piece, piece + 1, 3 * piece):
        for content in (bytes(size), random.Random(size).randbytes(size)):
            data = _made((b"a", content), descriptor=descriptor)
            for block in (1000, 65536, 0):
                assert _check(data, block).inflated == size


def _tree(root: Path) -> None:
    (root / "Customers V3").mkdir()
    (root / "Manifest.xml").write_bytes(MANIFEST)
    (root / "Customers V3" / "rows.csv").write_bytes(ROWS * 300)
    (root / "noise.bin").write_bytes(random.Random(1).randbytes(200_000))
    (root / "empty.txt").touch()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["zip", "-qr", "../out.zip", "."], id="zip"),
        pytest.param(["zip", "-qr", "-fd", "../out.zip", "."], id="zip with descriptors"),
        pytest.param(["zip", "-qr", "-fz", "../out.zip", "."], id="zip with zip64"),
        pytest.param(["sh", "-c", "zip -qr - . | cat >../out.zip"], id="zip into a pipe"),
        pytest.param(["7z", "a", "-tzip", "-bd", "../out.zip", "."], id="7z"),
        pytest.param(["7z", "a", "-tzip", "-mx0", "../out.zip", "."], id="7z stored"),
    ],
)
def test_packages_of_other_programs_pass(command: list[str], tmp_path: Path) -> None:
    """Info-ZIP's and 7-Zip's files are followed to the last byte of content."""
    program = "zip" if command[0] == "sh" else command[0]
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    source = tmp_path / "source"
    source.mkdir()
    _tree(source)
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    data = (tmp_path / "out.zip").read_bytes()

    summary = _check(data, 65536)

    assert (summary.bytes, summary.unchecked) == (len(data), 0)
    assert {entry.name: _read(entry) for entry in entries(io.BytesIO(data))} == {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in source.rglob("*")
        if path.is_file()
    }


# -- broken packages ------------------------------------------------------------------------------


@every_writer
def test_a_package_that_breaks_off_anywhere_is_refused(data: bytes) -> None:
    """No beginning of a package is a package; the message says at which byte it ended."""
    for end in range(len(data)):
        with pytest.raises(InvalidPackage, match=f"breaks off at byte {end}, in|is empty"):
            _check(data[:end])


@every_writer
def test_bytes_before_or_after_a_package_are_refused(data: bytes) -> None:
    """However few they are, and in whichever block they come."""
    for wrong in (data + b"\0", data + b"PK", data + data, b"\0" + data, b"PK\3\4" + data):
        for block in (1, len(data), 0):
            with pytest.raises(InvalidPackage):
                _check(wrong, block)


def _harmless(data: bytes) -> set[int]:
    """Offsets of what says nothing about the content: versions, times, attributes, some flag bits, and the
    last byte of deflated content, whose upper bits may be unused."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos, at = archive.infolist(), archive.start_dir
    places: set[int] = set()
    for info in sorted(infos, key=lambda info: info.header_offset):
        local = info.header_offset
        places |= {local + n for n in (4, 5, 6, 7, 10, 11, 12, 13)}
        if info.flag_bits & 8:
            places |= {local + n for n in range(14, 26)}  # the descriptor says it
        name, extra = struct.unpack_from("<2H", data, local + 26)
        content = local + 30 + name + extra
        places |= set(range(content - extra, content))
        if info.compress_type == zipfile.ZIP_DEFLATED:
            places.add(content + info.compress_size - 1)
        # The directory's record; 34 is the disk's number.
        places |= {at + n for n in (4, 5, 6, 7, 8, 9, 12, 13, 14, 15, *range(34, 42))}
        name, extra, comment = struct.unpack_from("<3H", data, at + 28)
        if not extra or data[at + 46 + name : at + 48 + name] != b"\1\0":
            places |= set(range(at + 46 + name, at + 46 + name + extra + comment))
        at += 46 + name + extra + comment
    if data.startswith(b"PK\6\6", at):
        places |= {at + n for n in (12, 13, 14, 15, 56 + 16)}  # versions, and 0 or 1 disks
    return places


@pytest.mark.parametrize(
    "name",
    [
        "stored",
        "deflated",
        "streamed",
        "zip64",
        "folders",
        "descriptor of 64 bits without signature",
        "directory and end in zip64",
    ],
)
def test_a_changed_byte_is_refused_unless_it_means_nothing(name: str) -> None:
    """Each byte of a package is changed in turn: what zipfile can't read never passes, and what passes
    was a time, a version, an attribute or such."""
    data = WRITERS[name]
    harmless = _harmless(data)
    for at in range(len(data)):
        for change in (0x01, 0x08, 0x80, 0xFF):
            changed = bytearray(data)
            changed[at] ^= change
            if _passes(bytes(changed)):
                assert at in harmless, at
                assert _zipfile_reads(bytes(changed)), at


def _replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the package is empty"),
        (b"<html><body>Sign in</body></html>", "not a zip: it begins with b'<htm'"),
        (b'{"error"', "not a zip: it begins with"),
        (b"PK", "breaks off at byte 2"),
        (_made(*FILES, crc=1), r"entry 'Manifest.xml' at byte 0: the content has 159 bytes"),
        (_made(*FILES, crc=1, descriptor="<4sLLL"), "'Manifest.xml' at byte 0: no data descriptor"),
        (_made(*FILES, size=9), "its header says 9"),
        (_made((b"a", b"x"), deflated=b"\xff\xff"), "entry 'a' at byte 0: broken content"),
        (_made((b"a", b""), deflated=b"\3\0\0"), "deflated content ends after 2 of 3 bytes"),
        (_made((b"a", b""), deflated=b"\0"), "deflated content has no end in its 1 bytes"),
        (_made(*FILES, order=lambda r: r[:2]), "the entry at byte .* is not in the directory"),
        (_made(*FILES, order=lambda r: [*r[:2], r[1]]), "lists entry 'rows.csv' twice"),
        (_made(*FILES, order=lambda r: [*r[:2], r[2].replace(b"y.", b"Y.")]), "differ in name"),
        (_replaced(_made(*FILES), b"PK\5\6\0\0\0\0\3", b"PK\5\6\0\0\0\0\4"), "says 4 where 3 is"),
        (_python(comment=b"an end PK\5\6" + bytes(30)), "another end record in its comment"),
        (_made((b"\xff", b""), flags=1 << 11), "is not UTF-8"),
        (_replaced(_made(*FILES, zip64=True), b"\1\0\30\0", b"\1\0\31\0"), "longer than all"),
        (_replaced(_made(*FILES, zip64=True), b"\1\0\30\0", b"\2\0\30\0"), "lacks its zip64"),
        (_made(*FILES)[:-4] + b"\xff\xff\0\0", "breaks off|says"),
        (_made(*FILES)[:-6] + b"\xff\xff\xff\xff\0\0", "says 4294967295 where"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_message_says_what_is_wrong_and_where(data: bytes, message: str) -> None:
    """It names the entry or the byte."""
    for block in (3, 0):
        with pytest.raises(InvalidPackage, match=message):
            _check(data, block)


WITHOUT_ISAL = """
import sys
sys.modules["isal"] = None
from shared.packages import check
assert check.zlib.__name__ == "zlib"
data = bytearray(sys.stdin.buffer.read())
judge = check.PackageCheck()
judge.feed(data)
print(judge.finish().entries)
data[data.index(b"a.csv") + 5 + 10] ^= 0xFF
try:
    check.PackageCheck().feed(data)
except check.InvalidPackage:
    print("refused")
"""


def test_where_there_is_no_isal_zlib_does_its_work() -> None:
    """Its wheels are not for every machine."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", ROWS)
    command = [sys.executable, "-c", WITHOUT_ISAL]
    result = subprocess.run(command, input=target.getvalue(), stdout=subprocess.PIPE, check=True)
    assert result.stdout.split() == [b"1", b"refused"]


def test_a_refused_package_stays_refused() -> None:
    """Whatever is fed afterwards, `finish` repeats the reason."""
    check = PackageCheck()
    with pytest.raises(InvalidPackage, match="not a zip"):
        check.feed(b"no zip at all")
    for again in (lambda: check.feed(WRITERS["stored"]), check.finish, check.finish):
        with pytest.raises(InvalidPackage, match="not a zip"):
            again()


def test_the_fed_block_is_not_kept() -> None:
    """The caller may fill its buffer anew: memory stays at one block, and nothing is read later."""
    for data in (WRITERS["stored"], WRITERS["streamed"]):
        check = PackageCheck()
        buffer = bytearray()
        for at in range(0, len(data), 50):
            buffer[:] = data[at : at + 50]  # a BufferError if a view of it were held
            check.feed(memoryview(buffer))
            buffer.clear()
        assert check.finish() == _check(data)


# -- what a stream can't prove --------------------------------------------------------------------


def _skipping(method: str) -> bytes:
    """A package with content of a method that is not inflated."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", getattr(zipfile, method)) as archive:
        archive.writestr("a.bin", ROWS)
        archive.writestr("b.txt", b"inflated", zipfile.ZIP_DEFLATED)
    return into.getvalue()


@pytest.mark.parametrize("method", ["ZIP_BZIP2", "ZIP_LZMA"])
def test_content_of_another_method_is_skipped_and_counted(method: str) -> None:
    """All but that content is still proven."""
    data = _skipping(method)

    assert _check(data) == Summary(2, len(data), len(b"inflated"), 1)
    for end in range(len(data)):
        assert not _passes(data[:end])
    at = data.index(b"b.txt") + 6  # in the content that is deflated
    assert not _passes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_content_of_unknown_length_leaves_directory_and_end_to_check() -> None:
    """Stored with the length after it: from there on only the structure is proven, and it is said."""
    data = _python(zipfile.ZIP_STORED, streamed=True)

    for block in (1, 7, 0):
        assert _check(data, block) == Summary(3, len(data), 0, 3)
    for end in range(len(data)):
        assert not _passes(data[:end])
    for wrong in (data + b"\0", b"\0" + data):
        assert not _passes(wrong)
    wide = _made(*FILES, method=0, descriptor="<4sLLL", zip64=True)
    assert _check(wide) == Summary(3, len(wide), 0, 3)
    beyond = _made((b"a", b"x"), (b"b", b"y"), method=0, descriptor="<4sLLL")
    at = beyond.rindex(b"PK\1\2") + 42  # where the second entry is said to be
    with pytest.raises(InvalidPackage, match="'b' at byte 1000: none begins there"):
        _check(beyond[:at] + struct.pack("<L", 1000) + beyond[at + 4 :])
    for at in set(range(data.index(b"PK\1\2"), len(data))) - _harmless(data):
        changed = bytearray(data)
        changed[at] ^= 0x80
        if _passes(bytes(changed)):
            with zipfile.ZipFile(io.BytesIO(changed)) as archive:
                assert len(archive.namelist()) == 3


def test_a_directory_too_large_to_keep_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than passed unseen."""
    monkeypatch.setattr(check, "TAIL", 100)
    with pytest.raises(InvalidPackage, match="can't be followed"):
        _check(_python(zipfile.ZIP_STORED, streamed=True))


# -- size -----------------------------------------------------------------------------------------


def _many(count: int) -> Iterator[bytes]:
    """A package of `count` entries in blocks, with the zip64 end record that it needs."""
    local, size = struct.Struct("<4s5H3L2H"), 0
    records = []
    for n in range(count):
        name, content = b"entity/%06d.xml" % n, b"%d" % n
        sums = (zlib.crc32(content), len(content), len(content))
        yield local.pack(b"PK\3\4", 20, 0, 0, 0, 33, *sums, len(name), 0) + name + content
        records.append(
            struct.pack(
                "<4s6H3L5H2L",
                *(b"PK\1\2", 20, 20, 0, 0, 0, 33, *sums, len(name), 0, 0, 0, 0, 0, size),
            )
            + name
        )
        size += 30 + len(name) + len(content)
    directory = b"".join(records)
    yield directory
    yield _end(count, len(directory), size, zip64=True)


def test_a_hundred_thousand_entries_take_little_memory() -> None:
    """About 17 bytes for each, not its name."""
    blocks = list(_many(100_000))
    check = PackageCheck()
    tracemalloc.start()
    try:
        for block in blocks[:100_000]:
            check.feed(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    whole = b"".join(blocks[100_000:])
    for at in range(0, len(whole), 65536):
        check.feed(whole[at : at + 65536])

    assert check.finish().entries == 100_000
    assert peak < 4 * 1024**2


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the memory would not be bounded."""
    monkeypatch.setattr(check, "MAX_ENTRIES", 99)
    with pytest.raises(InvalidPackage, match="more than 99 entries"):
        _check(b"".join(_many(100)))


def _zeros(gigabytes: int) -> bytes:
    """Deflated zeros, made fast: one flushed piece repeated."""
    deflater = zlib.compressobj(wbits=-15)
    piece = deflater.compress(bytes(1 << 26)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return piece * (gigabytes * 16) + b"\3\0"


@pytest.mark.parametrize("descriptor", [None, "<4sLQQ"])
def test_a_bomb_costs_no_more_than_the_limit(descriptor: str | None) -> None:
    """Ten gigabytes of zeros in ten megabytes are given up once they pass what is allowed."""
    deflated = _zeros(10)
    data = _made((b"zeros", b""), deflated=deflated, size=2**32 - 2, descriptor=descriptor)
    check = PackageCheck(max_inflated=64 * 1024**2)
    feeding = iter(range(0, len(data), 16384))
    with pytest.raises(InvalidPackage, match="'zeros' at byte 0: inflates to more than 67108864"):  # noqa: PT012
        for at in feeding:
            check.feed(data[at : at + 16384])

    assert next(feeding) < 128 * 1024  # of ten megabytes


# -- unpacking ------------------------------------------------------------------------------------


def _read(entry: Entry, chunk: int = 1000) -> bytes:
    with entry.open() as content:
        return b"".join(iter(lambda: content.read(chunk), b""))


@every_writer
def test_the_files_of_a_package_are_given_in_order(data: bytes) -> None:
    """Name, size and content; folders are left out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        expected = [(i.filename, archive.read(i)) for i in archive.infolist() if not i.is_dir()]

    actual = [(entry.name, _read(entry), entry.size) for entry in entries(io.BytesIO(data))]

    assert actual == [(name, content, len(content)) for name, content in expected]


def test_a_backslash_is_a_slash() -> None:
    """Old .NET writers separate folders so."""
    data = _made((b"Customers\\rows.csv", ROWS), (b"Customers\\", b""))
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
    data = _made((b"good.txt", b"good"), (name.encode(), b"bad"), flags=1 << 11)
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
    data = _made((one.encode(), b"1"), (other.encode(), b"2"), flags=1 << 11)
    with pytest.raises(InvalidPackage, match="two entries with one name"):
        entries(io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_made((b"s", b"t"), attributes=(stat.S_IFLNK | 0o777) << 16), "'s' is a link"),
        (_made((b"s", b"t"), attributes=(stat.S_IFIFO | 0o600) << 16), "'s' is a link"),
        (_made((b"s", b"t"), attributes=(stat.S_IFDIR | 0o755) << 16), "'s' is a link"),
        (_made((b"s", b"t"), attributes=0x400), "'s' is a link"),
        (_made((b"s/", b"t")), "'s/' is a folder with content"),
        (_made((b"s", b"t"), flags=1), "'s' is encrypted"),
        (_skipping("ZIP_BZIP2"), "'a.bin' is compressed with bzip2"),
        (_made((b"s", b"t"), method=9), "'s' is compressed with Deflate64"),
        (_made((b"s", b"t"), method=77), "'s' is compressed with method 77"),
        (_made((b"s", b""), size=60 * 1024**2 * 2), "'s' would grow from 2 to 125829120 bytes"),
        (b"", "not a zip"),
        (b"x" * 100, "not a zip"),
        (WRITERS["deflated"][:-1], "not a zip"),
        (WRITERS["comment"][:-1], "what follows the end record is not its comment"),
        (_replaced(_made(*FILES), b"PK\1\2", b"PK\1\1"), "can't be read as a zip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_plain_file_refuses_the_whole_package(data: bytes, message: str) -> None:
    """Links, devices, encrypted and unreadable content, bombs."""
    with pytest.raises(InvalidPackage, match=message):
        entries(io.BytesIO(data))


def test_a_package_past_its_limits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number, in one file, in all together, and in the size of its directory."""
    data = io.BytesIO(_made((b"a", b"12345"), (b"b", b"12345")))
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

    data = _made((b"a.txt", ROWS), (b"b.txt", ROWS), order=both_first)
    with pytest.raises(InvalidPackage, match=r"'b.txt' shares its bytes"):
        entries(io.BytesIO(data))


def test_an_entry_that_reaches_into_the_directory_is_refused() -> None:
    """Its length is a lie."""
    data = _made((b"a.txt", ROWS), method=0)
    at = data.index(b"PK\1\2") + 20
    lying = data[:at] + struct.pack("<L", len(ROWS) + 1) + data[at + 4 :]
    with pytest.raises(InvalidPackage, match=r"'a.txt' shares its bytes"):
        entries(io.BytesIO(lying))


def test_the_count_of_files_is_not_taken_on_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end record may say less than the directory has."""
    data = _made((b"a", b"1"), (b"b", b"2"))
    monkeypatch.setattr(unpack, "MAX_FILES", 1)
    with pytest.raises(InvalidPackage, match="2 entries, more than 1"):
        entries(io.BytesIO(_replaced(data, b"\0\0\0\0\2\0\2\0", b"\0\0\0\0\1\0\1\0")))


@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("size", [len(ROWS) - 1, len(ROWS) + 1, 0])
@pytest.mark.parametrize("chunk", [1, 1000, 1 << 20, -1])
def test_content_of_another_size_than_announced_is_refused(
    method: int, size: int, chunk: int
) -> None:
    """Even where the CRC is that of what zipfile would give out."""
    data = _made((b"rows.csv", ROWS), method=method, size=size, crc=zlib.crc32(ROWS[:size]))
    (entry,) = entries(io.BytesIO(data))
    with pytest.raises(InvalidPackage, match=r"entry 'rows\.csv' can't be read"):
        _read(entry, chunk)


def test_changed_content_is_refused_when_it_is_read() -> None:
    """By its CRC."""
    (entry,) = entries(io.BytesIO(_made((b"rows.csv", ROWS), crc=1)))
    with pytest.raises(InvalidPackage, match=r"entry 'rows\.csv' can't be read: Bad CRC-32"):
        _read(entry)


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
        _read(first)
    with pytest.raises(ConnectionError):
        entries(file)


# -- anything at all ------------------------------------------------------------------------------


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(list(WRITERS.values()))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "insert", "remove", "copy"]))
        piece = draw(st.binary(min_size=1, max_size=8))
        if kind == "change":
            data[at : at + len(piece)] = piece
        elif kind == "insert":
            data[at:at] = piece
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 40))]
        else:
            begin = draw(st.integers(0, len(data)))
            data[at:at] = data[begin : begin + draw(st.integers(1, 60))]
    return bytes(data)


@settings(
    max_examples=int(os.environ.get("PACKAGE_EXAMPLES", "400")),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(_mutated() | st.binary(max_size=200), st.sampled_from([0, 1, 13]))
def test_whatever_comes_is_judged_and_never_more_kindly_than_by_zipfile(
    data: bytes, block: int
) -> None:
    """Only `InvalidPackage` is raised; what passes whole is read by zipfile in full; blocks don't matter."""
    verdict = _passes(data)
    try:
        assert _check(data, block) == verdict
    except InvalidPackage:
        assert verdict is None
    if verdict and not verdict.unchecked:
        assert _zipfile_reads(data)
    try:
        for entry in entries(io.BytesIO(data)):
            assert len(_read(entry)) == entry.size
    except InvalidPackage:
        pass
