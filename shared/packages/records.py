"""The records of a zip file, as bytes and as values. Source: PKWARE, APPNOTE.TXT 6.3, section 4.3 and 4.5.

Two modules read zips with it: `package_check` in one pass while the bytes stream by, `unzipping` from a file.
"""

import struct
from typing import Final, NamedTuple

LOCAL: Final = b"PK\x03\x04"
CENTRAL: Final = b"PK\x01\x02"
END: Final = b"PK\x05\x06"
END64: Final = b"PK\x06\x06"
LOCATOR64: Final = b"PK\x06\x07"
DESCRIPTOR: Final = b"PK\x07\x08"

LOCAL_RECORD: Final = struct.Struct("<4s5H3L2H")
CENTRAL_RECORD: Final = struct.Struct("<4s6H3L5H2L")
END_RECORD: Final = struct.Struct("<4s4H2LH")
END64_RECORD: Final = struct.Struct("<4sQ2H2L4Q")
LOCATOR64_RECORD: Final = struct.Struct("<4sLQL")

LONGEST_END: Final = END64_RECORD.size + LOCATOR64_RECORD.size + END_RECORD.size + 0xFFFF
"""Bytes from the end of the directory to the end of the file, with the longest comment."""

STORED: Final = 0
DEFLATED: Final = 8
METHODS: Final = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd"}

ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
DESCRIPTOR_FOLLOWS: Final = 1 << 3
PATCHED: Final = 1 << 5
UTF8: Final = 1 << 11

ALL_ONES: Final = 0xFFFFFFFF
"""In a 32-bit field: the value is in the zip64 record or extra field."""

_ZIP64_EXTRA: Final = 1
_NEWEST_VERSION: Final = 63


class InvalidPackage(ValueError):
    """The bytes are not a package that can be used. The text is for a person: what is wrong, and where."""


class Header(NamedTuple):
    """What a local header or a central directory record says of an entry."""

    name: bytes
    flags: int
    method: int
    crc: int
    compressed: int
    size: int
    offset: int
    """Where the local header stands; -1 in a local header, which does not say."""

    def meaning(self) -> tuple[object, ...]:
        """All that both records of an entry must agree on. Times, versions and extra fields may differ.

        Bit 3 may too, and how the name is encoded matters only where it isn't ASCII.
        """
        matter = ENCRYPTED | PATCHED | (0 if self.name.isascii() else UTF8)
        return self.name, self.flags & matter, self.method, self.crc, self.compressed, self.size


class End(NamedTuple):
    """Where the central directory is, as the records at the end say."""

    offset: int
    size: int
    entries: int


def shown(name: bytes, flags: int = UTF8) -> str:
    """An entry's name for a message: on one line, not too long."""
    return shortened(repr(name.decode("utf-8" if flags & UTF8 else "cp437", "replace")))


def shortened(text: str) -> str:
    """At most 200 characters, from both ends."""
    return text if len(text) <= 200 else f"{text[:100]}…{text[-99:]}"


def local_header(fixed: tuple[int, ...], name: bytes, extra: bytes) -> Header:
    """From an unpacked `LOCAL_RECORD` and what follows it. Raises `InvalidPackage`."""
    _, version, flags, method, _, _, crc, compressed, size, _, _ = fixed
    _check(version, flags, name)
    if ALL_ONES in (size, compressed):
        size, compressed = _widened(name, extra, size, compressed)
    return Header(name, flags, method, crc, compressed, size, -1)


def central_header(fixed: tuple[int, ...], name: bytes, extra: bytes) -> Header:
    """From an unpacked `CENTRAL_RECORD` and what follows it. Raises `InvalidPackage`."""
    _, _, version, flags, method, _, _, crc, compressed, size = fixed[:10]
    offset = fixed[16]
    _check(version, flags, name)
    if extra or ALL_ONES in (size, compressed, offset):
        size, compressed, offset = _widened(name, extra, size, compressed, offset)
    return Header(name, flags, method, crc, compressed, size, offset)


def _check(version: int, flags: int, name: bytes) -> None:
    if version & 0xFF > _NEWEST_VERSION:  # the other byte is about the writer
        raise InvalidPackage(f"entry {shown(name)} asks for zip version {(version & 0xFF) / 10}")
    if flags & UTF8 and not name.isascii():
        try:
            name.decode()
        except UnicodeDecodeError:
            raise InvalidPackage(
                f"the name of entry {shown(name)} is not UTF-8, as it says"
            ) from None


def _widened(name: bytes, extra: bytes, *values: int) -> list[int]:
    """The values, those that are all ones replaced from the zip64 extra field: there they stand in order."""
    wide = b""
    at = 0
    while at + 4 <= len(extra):  # up to three bytes of padding are seen at the end
        kind, length = struct.unpack_from("<2H", extra, at)
        if at + 4 + length > len(extra):
            raise InvalidPackage(
                f"an extra field of entry {shown(name)} is longer than all of them"
            )
        if kind == _ZIP64_EXTRA and not wide:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    result = []
    for value in values:
        if value == ALL_ONES:
            if len(wide) < 8:
                raise InvalidPackage(f"entry {shown(name)} lacks its zip64 sizes")
            value = int.from_bytes(wide[:8], "little")  # noqa: PLW2901
            wide = wide[8:]
        result.append(value)
    return result


def find_end(tail: bytes | bytearray, length: int) -> End:
    """Find the records at the end of a file of `length` bytes whose last ones are `tail`.

    Raises `InvalidPackage`. What they say is not checked against anything yet.
    """
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < END_RECORD.size:
        raise InvalidPackage(f"no end record in the last {len(tail)} of {length} bytes: not a zip")
    *_, count, size, offset, comment = END_RECORD.unpack_from(tail, at)
    if at + END_RECORD.size + comment != len(tail):
        raise InvalidPackage("what follows the end record is not its comment")
    wide = at - LOCATOR64_RECORD.size - END64_RECORD.size
    if (
        wide >= 0
        and tail.startswith(LOCATOR64, at - LOCATOR64_RECORD.size)
        and tail.startswith(END64, wide)
    ):
        *_, count, size, offset = END64_RECORD.unpack_from(tail, wide)
    return End(offset, size, count)
