"""Zip files for the tests: of several writers, and with whatever fields a test wants; and what reads them."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import override

import pytest

from shared.packages import Entry, PackageCheck, Summary

MANIFEST = b"<?xml version='1.0'?><DataManagementPackageManifest/>" * 3
ROWS = b"".join(b"%06d;USMF;Customer %d\r\n" % (n, n * 7919 % 1000) for n in range(40))
ONES = 0xFFFFFFFF
FILES = ((b"Manifest.xml", MANIFEST), (b"rows.csv", ROWS), (b"empty.txt", b""))


def judge(data: bytes, block: int = 0) -> Summary:
    """What a check says of the bytes, fed in blocks of this size, or at once. Raises `InvalidPackage`."""
    check = PackageCheck()
    for at in range(0, len(data), block or max(1, len(data))):
        check.feed(data[at : at + (block or len(data))])
    return check.finish()


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


def zip_by_python(
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
    """A zip as `zipfile` writes it; `streamed` into what it can't seek in."""
    into = io.BytesIO()
    with zipfile.ZipFile(_Unseekable(into) if streamed else into, "w", method) as archive:
        archive.comment = comment
        for name, content in files:
            with archive.open(name, "w", force_zip64=zip64) as file:
                file.write(content)
    return into.getvalue()


def zip_by_hand(
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
    return bytes(body) + listed + end_records(len(directory), len(listed), len(body), zip64)


def end_records(count: int, size: int, offset: int, zip64: bool) -> bytes:
    """What stands behind a directory of so many entries and bytes."""
    if not zip64:
        return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, offset, 0)
    counts = (0, 0, count, count, size, offset)
    return (
        struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, *counts)
        + struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, ONES, ONES, 0)
    )


WRITERS = {
    "stored": zip_by_python(zipfile.ZIP_STORED),
    "deflated": zip_by_python(),
    "streamed": zip_by_python(streamed=True),
    "zip64": zip_by_python(zip64=True),
    "streamed zip64": zip_by_python(streamed=True, zip64=True),
    "comment": zip_by_python(comment=b"made by D365 PK"),
    "folders": zip_by_python(files=(("a/", b""), ("a/b/", b""), ("a/b/c.txt", b"c"))),
    "no entries": zip_by_python(files=()),
    "descriptor": zip_by_hand(*FILES, descriptor="<4sLLL"),
    "descriptor without signature": zip_by_hand(*FILES, descriptor="<LLL"),
    "descriptor of 64 bits": zip_by_hand(*FILES, descriptor="<4sLQQ"),
    "descriptor of 64 bits without signature": zip_by_hand(*FILES, descriptor="<LQQ"),
    "descriptor of an empty stored file": zip_by_hand(
        (b"e", b""), (b"f", b""), method=0, descriptor="<4sLLL"
    ),
    "directory in another order": zip_by_hand(*FILES, order=lambda records: records[::-1]),
    "directory and end in zip64": zip_by_hand(*FILES, zip64=True),
    "deflated to no bytes": zip_by_hand((b"empty.txt", b""), deflated=b""),
}
every_writer = pytest.mark.parametrize("data", WRITERS.values(), ids=WRITERS)
"""A test of a good package runs with each of them."""


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """The data with other bytes in the place of those."""
    assert old in data
    return data.replace(old, new, 1)


def with_skipped(method: str) -> bytes:
    """A package with content of a method that is not inflated."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", getattr(zipfile, method)) as archive:
        archive.writestr("a.bin", ROWS)
        archive.writestr("b.txt", b"inflated", zipfile.ZIP_DEFLATED)
    return into.getvalue()


def read(entry: Entry, chunk: int = 1000) -> bytes:
    """A file's content, read in pieces."""
    with entry.open() as content:
        return b"".join(iter(lambda: content.read(chunk), b""))
