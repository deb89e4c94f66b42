"""What a data package must be: judged while it streams by, and safe to unpack."""

import io
import os
import random
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.packages import InvalidPackage, PackageCheck, Summary, check, entries
from tests.shared.packages.zips import (
    FILES,
    MANIFEST,
    ROWS,
    WRITERS,
    end_records,
    every_writer,
    judge,
    read,
    replaced,
    with_skipped,
    zip_by_hand,
    zip_by_python,
)


def _passes(data: bytes) -> Summary | None:
    try:
        return judge(data)
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


@every_writer
@pytest.mark.parametrize("block", [1, 7, 4096, 0])
def test_a_good_package_passes_in_blocks_of_any_size(data: bytes, block: int) -> None:
    """Its entries, its length and its content are counted, whatever the blocks."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
    content = sum(info.file_size for info in infos)

    assert judge(data, block) == Summary(len(infos), len(data), content, 0)


@pytest.mark.parametrize("descriptor", [None, "<4sLLL"])
def test_content_may_end_anywhere_in_what_is_inflated_at_once(descriptor: str | None) -> None:
    """The end may come together with the last full piece, or after it."""
    piece = check._INFLATED_PIECE
    for size in (piece - 1, piece, piece + 1, 3 * piece):
        for content in (bytes(size), random.Random(size).randbytes(size)):
            data = zip_by_hand((b"a", content), descriptor=descriptor)
            for block in (1000, 65536, 0):
                assert judge(data, block).inflated == size


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

    summary = judge(data, 65536)

    assert (summary.bytes, summary.unchecked) == (len(data), 0)
    assert {entry.name: read(entry) for entry in entries(io.BytesIO(data))} == {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in source.rglob("*")
        if path.is_file()
    }


# -- broken packages ------------------------------------------------------------------------------


@every_writer
def test_bytes_before_or_after_a_package_are_refused(data: bytes) -> None:
    """However few they are, and in whichever block they come."""
    for wrong in (data + b"\0", data + b"PK", data + data, b"\0" + data, b"PK\3\4" + data):
        for block in (1, len(data), 0):
            with pytest.raises(InvalidPackage):
                judge(wrong, block)


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the package is empty"),
        (b"<html><body>Sign in</body></html>", "not a zip: it begins with b'<htm'"),
        (b'{"error"', "not a zip: it begins with"),
        (b"PK", "breaks off at byte 2"),
        (zip_by_hand(*FILES, crc=1), r"entry 'Manifest.xml' at byte 0: the content has 159 bytes"),
        (
            zip_by_hand(*FILES, crc=1, descriptor="<4sLLL"),
            "'Manifest.xml' at byte 0: no data descriptor",
        ),
        (zip_by_hand(*FILES, size=9), "its header says 9"),
        (zip_by_hand((b"a", b"x"), deflated=b"\xff\xff"), "entry 'a' at byte 0: broken content"),
        (zip_by_hand((b"a", b""), deflated=b"\3\0\0"), "deflated content ends after 2 of 3 bytes"),
        (zip_by_hand((b"a", b""), deflated=b"\0"), "deflated content has no end in its 1 bytes"),
        (
            zip_by_hand(*FILES, order=lambda r: r[:2]),
            "the entry at byte .* is not in the directory",
        ),
        (zip_by_hand(*FILES, order=lambda r: [*r[:2], r[1]]), "lists entry 'rows.csv' twice"),
        (
            zip_by_hand(*FILES, order=lambda r: [*r[:2], r[2].replace(b"y.", b"Y.")]),
            "differ in name",
        ),
        (
            replaced(zip_by_hand(*FILES), b"PK\5\6\0\0\0\0\3", b"PK\5\6\0\0\0\0\4"),
            "says 4 where 3 is",
        ),
        (zip_by_python(comment=b"an end PK\5\6" + bytes(30)), "another end record in its comment"),
        (zip_by_hand(*FILES)[:-4] + b"\xff\xff\0\0", "breaks off|says"),
        (zip_by_hand(*FILES)[:-6] + b"\xff\xff\xff\xff\0\0", "says 4294967295 where"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_message_says_what_is_wrong_and_where(data: bytes, message: str) -> None:
    """It names the entry or the byte."""
    for block in (3, 0):
        with pytest.raises(InvalidPackage, match=message):
            judge(data, block)


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


# -- what a stream can't prove --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ZIP_BZIP2", "ZIP_LZMA"])
def test_content_of_another_method_is_skipped_and_counted(method: str) -> None:
    """All but that content is still proven."""
    data = with_skipped(method)

    assert judge(data) == Summary(2, len(data), len(b"inflated"), 1)
    for end in range(len(data)):
        assert not _passes(data[:end])
    at = data.index(b"b.txt") + 6  # in the content that is deflated
    assert not _passes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_content_of_unknown_length_leaves_directory_and_end_to_check() -> None:
    """Stored with the length after it: from there on only the structure is proven, and it is said."""
    data = zip_by_python(zipfile.ZIP_STORED, streamed=True)

    for block in (1, 7, 0):
        assert judge(data, block) == Summary(3, len(data), 0, 3)
    for end in range(len(data)):
        assert not _passes(data[:end])
    for wrong in (data + b"\0", b"\0" + data):
        assert not _passes(wrong)
    wide = zip_by_hand(*FILES, method=0, descriptor="<4sLLL", zip64=True)
    assert judge(wide) == Summary(3, len(wide), 0, 3)
    beyond = zip_by_hand((b"a", b"x"), (b"b", b"y"), method=0, descriptor="<4sLLL")
    at = beyond.rindex(b"PK\1\2") + 42  # where the second entry is said to be
    with pytest.raises(InvalidPackage, match="'b' at byte 1000: none begins there"):
        judge(beyond[:at] + struct.pack("<L", 1000) + beyond[at + 4 :])
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
        judge(zip_by_python(zipfile.ZIP_STORED, streamed=True))


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
    yield end_records(count, len(directory), size, zip64=True)


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
        judge(b"".join(_many(100)))


def _zeros(gigabytes: int) -> bytes:
    """Deflated zeros, made fast: one flushed piece repeated."""
    deflater = zlib.compressobj(wbits=-15)
    piece = deflater.compress(bytes(1 << 26)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return piece * (gigabytes * 16) + b"\3\0"


@pytest.mark.parametrize("descriptor", [None, "<4sLQQ"])
def test_a_bomb_costs_no_more_than_the_limit(descriptor: str | None) -> None:
    """Ten gigabytes of zeros in ten megabytes are given up once they pass what is allowed."""
    deflated = _zeros(10)
    data = zip_by_hand((b"zeros", b""), deflated=deflated, size=2**32 - 2, descriptor=descriptor)
    check = PackageCheck(max_inflated=64 * 1024**2)
    feeding = iter(range(0, len(data), 16384))
    with pytest.raises(InvalidPackage, match="'zeros' at byte 0: inflates to more than 67108864"):  # noqa: PT012
        for at in feeding:
            check.feed(data[at : at + 16384])

    assert next(feeding) < 128 * 1024  # of ten megabytes


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
        assert judge(data, block) == verdict
    except InvalidPackage:
        assert verdict is None
    if verdict and not verdict.unchecked:
        assert _zipfile_reads(data)
    try:
        for entry in entries(io.BytesIO(data)):
            assert len(read(entry)) == entry.size
    except InvalidPackage:
        pass
