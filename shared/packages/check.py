"""Checks whether a stream of bytes is a whole, readable zip, in one pass and in bounded memory."""

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Final

from shared.packages.block_stream import BlockStream, Step
from shared.packages.records import (
    ALL_ONES,
    CENTRAL,
    CENTRAL_RECORD,
    DEFLATED,
    DESCRIPTOR,
    DESCRIPTOR_FOLLOWS,
    ENCRYPTED,
    END,
    END64,
    END64_RECORD,
    END_RECORD,
    LOCAL,
    LOCAL_RECORD,
    LOCATOR64,
    LOCATOR64_RECORD,
    PATCHED,
    STORED,
    Header,
    InvalidPackage,
    central_header,
    find_end,
    local_header,
    shown,
)

try:  # CRC-32 in a quarter of the time, inflating in half of it; there are no wheels for some machines
    from isal import isal_zlib as zlib
except ImportError:
    import zlib  # type: ignore[no-redef]  # the same functions

_InflateError: Final[type[Exception]] = zlib.error  # type: ignore[assignment]  # its stub gives an instance

MAX_INFLATED: Final = 64 * 1024**3
"""Bytes that all entries together may inflate to. More than any export of D365, less than a run's time."""

MAX_ENTRIES: Final = 1_000_000
"""A package has a file for each entity. 17 bytes are kept for each until the directory has confirmed it."""

TAIL: Final = 8 * 1024**2
"""Bytes kept of a package whose entries can't all be followed: a directory of some 80,000 entries."""

# Small pieces stay in the processor's cache, and what zlib hands back unused is copied each time. A new entry
# begins with a smaller one still, since the end of its content is not known beforehand.
_FIRST_PIECE: Final = 4 * 1024
_PIECE: Final = 64 * 1024
_INFLATED_PIECE: Final = 512 * 1024


@dataclass(frozen=True)
class Summary:
    """What was found in a good package."""

    entries: int
    bytes: int
    """The package's length."""
    inflated: int
    """Bytes of content that were checked."""
    unchecked: int
    """Entries whose content could not be checked; see `PackageCheck`."""


class PackageCheck:
    """Checks a zip that is fed to it block by block.

    `finish` returning means that any zip reader can read the package to its end: every entry's content has
    the sizes and CRC-32 that its local header or data descriptor and the central directory give, the directory
    lists each entry once at its place, and nothing stands before, between or after them.

    Two kinds of entry can't be proven like this; `Summary.unchecked` counts them:
    - compressed by another method than Deflate, or encrypted: the content is skipped by its announced length,
      and all the rest holds;
    - of these, and of stored ones, those that give their length only afterwards, so that their end can't be
      seen: from there on no content is checked, only that the directory and the end record are whole, fit the
      package's length, and that the directory agrees with what was seen before.
    """

    def __init__(self, max_inflated: int = MAX_INFLATED) -> None:
        self._max_inflated = max_inflated
        self._in = BlockStream()
        self._offsets = array("Q")  # of each entry seen, and
        self._meanings = array("q")  # the hash of what its local record and content say
        self._inflated = 0
        self._unchecked = 0
        self._blind: tuple[int, Header] | None = None  # the first entry that hides its end
        self._summary: Summary | None = None
        self._problem: str | None = None
        self._steps = self._package()
        self._resume()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Check the next block, which is not kept. Raises `InvalidPackage` as soon as it is certain."""
        self._in.push(data)
        try:
            self._resume()
        finally:
            self._in.release()

    def finish(self) -> Summary:
        """There is no more: raises `InvalidPackage` unless the package ended right here."""
        self._in.ended = True
        if self._summary is None:
            self._resume()
        assert self._summary is not None
        return self._summary

    def _resume(self) -> None:
        if self._problem is not None:
            raise InvalidPackage(self._problem)
        try:
            next(self._steps)
        except StopIteration:
            pass
        except InvalidPackage as error:
            self._problem = str(error)
            raise

    # -- the package from its first byte to its last ----------------------------------------------

    def _package(self) -> Step[None]:
        while (yield from self._signature(LOCAL)):
            if len(self._offsets) == MAX_ENTRIES:
                raise InvalidPackage(f"more than {MAX_ENTRIES} entries")
            yield from self._entry()
            if self._blind is not None:
                yield from self._find_directory()
                break
        count = yield from self._directory()
        while True:
            if self._in.waiting:
                raise InvalidPackage(f"more bytes follow the package's end at {self._in.position}")
            if self._in.ended:
                break
            yield
        self._summary = Summary(count, self._in.position, self._inflated, self._unchecked)

    def _signature(self, signature: bytes) -> Step[bool]:
        return (yield from self._in.ahead(4)) == signature

    def _entry(self) -> Step[None]:
        offset = self._in.position
        self._in.part = f"the entry at byte {offset}"
        fixed = yield from self._in.unpack(LOCAL_RECORD)
        name = yield from self._in.take(fixed[9])
        extra = yield from self._in.take(fixed[10])
        header = local_header(fixed, name, extra)
        self._in.part = f"entry {shown(header.name, header.flags)} at byte {offset}"
        self._offsets.append(offset)

        afterwards = bool(header.flags & DESCRIPTOR_FOLLOWS)
        if header.flags & (ENCRYPTED | PATCHED) or header.method not in (STORED, DEFLATED):
            if afterwards:
                self._blind = offset, header
                return
            self._unchecked += 1
            yield from self._stored(header.compressed)
            entry = header
        elif header.method == DEFLATED:
            crc, compressed, size = yield from self._deflated(
                None if afterwards else header.compressed
            )
            entry = header._replace(crc=crc, compressed=compressed, size=size)
        else:
            empty = not header.compressed
            if afterwards and empty and not (yield from self._descriptor(0, 0, 0)):
                self._blind = offset, header  # not empty, but of unknown length
                return
            crc = yield from self._stored(header.compressed)
            self._count(header.compressed)
            entry = header._replace(crc=crc, size=header.compressed)
        if afterwards:
            length = yield from self._descriptor(entry.crc, entry.compressed, entry.size)
            if not length:
                raise InvalidPackage(
                    f"{self._in.part}: no data descriptor with CRC {entry.crc:08x} and sizes "
                    f"{entry.compressed} and {entry.size} follows the content"
                )
            yield from self._in.take(length)
        elif entry.meaning() != header.meaning():
            raise InvalidPackage(
                f"{self._in.part}: the content has {entry.size} bytes with CRC {entry.crc:08x}, "
                f"its header says {header.size} with {header.crc:08x}"
            )
        self._meanings.append(hash(entry.meaning()))

    # -- content ----------------------------------------------------------------------------------

    def _stored(self, length: int) -> Step[int]:
        """Pass over `length` bytes: their CRC."""
        crc = 0
        while length:
            yield from self._in.need(1)
            with self._in.piece(length) as piece:
                crc = zlib.crc32(piece, crc)
                length -= len(piece)
        return crc

    def _deflated(self, length: int | None) -> Step[tuple[int, int, int]]:
        """Inflate, `length` bytes or up to the stream's own end: CRC, compressed and inflated size."""
        if length == 0:
            return 0, 0, 0  # some writers do so with empty files
        inflater = zlib.decompressobj(wbits=-15)
        begin, size, crc, step = self._in.position, 0, 0, _FIRST_PIECE
        while not inflater.eof:
            yield from self._in.need(1)
            if length is not None:
                step = min(_PIECE, length - (self._in.position - begin))
                if not step:
                    raise InvalidPackage(
                        f"{self._in.part}: the deflated content has no end in its {length} bytes"
                    )
            with self._in.piece(step) as piece:
                crc, inflated = self._inflate(inflater, piece, crc)
                size += inflated
            self._in.back(len(inflater.unused_data))
            step = min(2 * step, _PIECE)
        compressed = self._in.position - begin
        if length not in (None, compressed):
            raise InvalidPackage(
                f"{self._in.part}: deflated content ends after {compressed} of {length} bytes"
            )
        return crc, compressed, size

    def _inflate(self, inflater: Any, data: bytes | memoryview, crc: int) -> tuple[int, int]:
        """All that `data` inflates to, piece by piece: the CRC up to there, and how many bytes."""
        size = 0
        while True:
            try:
                content = inflater.decompress(data, _INFLATED_PIECE)
            except _InflateError as error:
                raise InvalidPackage(
                    f"{self._in.part}: broken content near byte {self._in.position}: {error}"
                ) from None
            crc = zlib.crc32(content, crc)
            size += len(content)
            self._count(len(content))
            data = inflater.unconsumed_tail
            if inflater.eof or (not data and len(content) < _INFLATED_PIECE):
                return crc, size

    def _count(self, inflated: int) -> None:
        self._inflated += inflated
        if self._inflated > self._max_inflated:
            raise InvalidPackage(
                f"{self._in.part}: inflates to more than {self._max_inflated} bytes in all"
            )

    def _descriptor(self, crc: int, compressed: int, size: int) -> Step[int]:
        """The length of the data descriptor at the cursor, in any of its four forms; 0 if it says otherwise.

        The signature is optional, the sizes have 32 or 64 bits, and nothing says which: so the record that
        must follow it decides too.
        """
        ahead = yield from self._in.ahead(28)  # at least a directory and an end record follow
        for width in (4, 8) if max(compressed, size) <= ALL_ONES else (8,):
            sizes = compressed.to_bytes(width, "little") + size.to_bytes(width, "little")
            for signature in (DESCRIPTOR, b""):
                form = signature + crc.to_bytes(4, "little") + sizes
                if ahead.startswith(form) and ahead.startswith(b"PK", len(form)):
                    return len(form)
        return 0

    # -- directory and end ------------------------------------------------------------------------

    def _find_directory(self) -> Step[None]:
        """Let all pass up to the end, then go back to where the end says that the directory begins."""
        tail = bytearray()
        while True:
            with self._in.piece(self._in.waiting) as piece:
                tail += piece[-TAIL:]
            del tail[:-TAIL]
            if self._in.ended:
                break
            yield
        end = find_end(tail, self._in.position)
        begin = self._in.position - len(tail)
        if not begin <= end.offset <= self._in.position:
            raise InvalidPackage(
                f"the directory can't be followed from byte {end.offset}: {self._in.part} does not "
                "say where it ends, and the directory is too large or in the wrong place"
            )
        self._in.restart(tail[end.offset - begin :], end.offset)

    def _directory(self) -> Step[int]:
        begin, count = self._in.position, 0
        listed = bytearray(len(self._offsets))
        while (yield from self._signature(CENTRAL)):
            self._in.part = f"the directory that begins at byte {begin}"
            fixed = yield from self._in.unpack(CENTRAL_RECORD)
            name = yield from self._in.take(fixed[10])
            extra = yield from self._in.take(fixed[11])
            yield from self._in.take(fixed[12])
            self._confirm(central_header(fixed, name, extra), listed, begin)
            count += 1
            if count > MAX_ENTRIES:
                raise InvalidPackage(f"more than {MAX_ENTRIES} entries")
        if not all(listed):
            offset = self._offsets[listed.index(0)]
            raise InvalidPackage(f"the entry at byte {offset} is not in the directory")
        if self._blind is not None:
            self._unchecked += count - len(self._meanings)
        yield from self._end(begin, self._in.position - begin, count)
        return count

    def _confirm(self, header: Header, listed: bytearray, directory: int) -> None:
        """The directory says the same of this entry as its local header and content."""
        index = bisect_left(self._offsets, header.offset)
        if index == len(self._offsets) or self._offsets[index] != header.offset:
            if self._blind is None or not self._blind[0] < header.offset < directory:
                raise InvalidPackage(
                    f"the directory has entry {shown(header.name, header.flags)} at byte "
                    f"{header.offset}: none begins there"
                )
            return
        if listed[index]:
            raise InvalidPackage(
                f"the directory lists entry {shown(header.name, header.flags)} twice"
            )
        listed[index] = 1
        if self._blind is not None and header.offset == self._blind[0]:
            seen = self._blind[1]
            same = (seen.name, seen.flags, seen.method) == (
                header.name,
                header.flags,
                header.method,
            )
        else:
            same = self._meanings[index] == hash(header.meaning())
        if not same:
            raise InvalidPackage(
                f"the directory and the entry at byte {header.offset} differ in name, method, CRC or "
                f"sizes: the directory says {shown(header.name, header.flags)}, CRC {header.crc:08x}, "
                f"{header.compressed} bytes, inflated {header.size}"
            )

    def _end(self, directory: int, size: int, count: int) -> Step[None]:
        """The records after the directory say of it what is the case."""
        wide = yield from self._signature(END64)
        if wide:
            yield from self._end64(directory, size, count)
        begin = self._in.position
        signature = yield from self._in.ahead(4)
        if signature != END and not begin:
            raise InvalidPackage(f"not a zip: it begins with {signature!r}")
        if signature != END:
            raise InvalidPackage(
                f"after {self._in.part} something unknown follows at byte {begin}: {signature!r}"
            )
        self._in.part = f"the end record at byte {begin}"
        _, *sums, comment = yield from self._in.unpack(END_RECORD)
        for size_field, true, ones in zip(
            sums,
            (0, 0, count, count, size, directory),
            (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, ALL_ONES, ALL_ONES),
            strict=True,
        ):
            if size_field != true and not (wide and size_field == ones):
                raise InvalidPackage(f"{self._in.part} says {size_field} where {true} is the case")
        if END in (yield from self._in.take(comment)):
            raise InvalidPackage(f"{self._in.part} has another end record in its comment")

    def _end64(self, directory: int, size: int, count: int) -> Step[None]:
        begin = self._in.position
        self._in.part = f"the zip64 end record at byte {begin}"
        _, length, _, _, *fields = yield from self._in.unpack(END64_RECORD)
        if length != END64_RECORD.size - 12 or fields != [0, 0, count, count, size, directory]:
            raise InvalidPackage(f"{self._in.part} does not fit what stands before it")
        locator = yield from self._in.unpack(LOCATOR64_RECORD)
        if locator[:3] != (LOCATOR64, 0, begin) or locator[3] > 1:
            raise InvalidPackage(f"{self._in.part} has no locator that leads to it")
