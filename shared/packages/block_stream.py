"""Lets a parser read records from bytes that come in blocks of any size; whoever gives the bytes never
waits."""

from collections.abc import Generator
from struct import Struct
from typing import Any

from shared.packages.records import InvalidPackage

type Step[T] = Generator[None, None, T]
"""A part of a parser that gives a T. It yields where it needs the next block."""


class BlockStream:
    """A cursor over the blocks. Of one block nothing is kept but a record that goes on in the next."""

    def __init__(self) -> None:
        self.part = "the first record"
        """What is being read, for messages."""
        self.ended = False
        self._block = memoryview(b"")
        self._at = 0  # the cursor in the block
        self._base = 0  # where in the stream the block begins

    @property
    def position(self) -> int:
        """Where in the stream the cursor is."""
        return self._base + self._at

    @property
    def waiting(self) -> int:
        """Bytes of the block that are not consumed yet."""
        return len(self._block) - self._at

    # -- for whoever has the blocks ---------------------------------------------------------------

    def push(self, data: bytes | bytearray | memoryview) -> None:
        """The next block, valid until `release`; the last one must be consumed."""
        self._block = memoryview(data).cast("B")

    def release(self) -> None:
        """The block's bytes may be overwritten from now on."""
        self._base += self._at
        self._block, self._at = memoryview(b""), 0

    # -- for the parser ---------------------------------------------------------------------------

    def need(self, count: int) -> Step[None]:
        """Wait until `count` bytes lie together at the cursor. Raises `InvalidPackage` if they don't come."""
        while self.waiting < count:
            rest = bytes(self._block[self._at :])
            self._at += len(rest)
            end = self.position
            if not self.ended:
                yield
            if self.ended:
                what = f"breaks off at byte {end}, in {self.part}" if end else "is empty: no bytes"
                raise InvalidPackage(f"the package {what}")
            if rest:
                self._base -= len(rest)
                self._block = memoryview(rest + self._block)

    def ahead(self, count: int) -> Step[bytes]:
        """The next bytes; the cursor stays."""
        yield from self.need(count)
        return bytes(self._block[self._at : self._at + count])

    def take(self, count: int) -> Step[bytes]:
        """The next bytes."""
        yield from self.need(count)
        self._at += count
        return bytes(self._block[self._at - count : self._at])

    def unpack(self, record: Struct) -> Step[tuple[Any, ...]]:
        """The next record's values."""
        yield from self.need(record.size)
        self._at += record.size
        return record.unpack_from(self._block, self._at - record.size)

    def piece(self, limit: int) -> memoryview:
        """What is there of the next `limit` bytes. Use it in `with`, so that the block can be released."""
        begin = self._at
        self._at = min(begin + limit, len(self._block))
        return self._block[begin : self._at]

    def back(self, count: int) -> None:
        """Return the last bytes of a piece."""
        self._at -= count

    def restart(self, data: bytes | bytearray, position: int) -> None:
        """Go on at `position` in what came before, which the parser has kept."""
        self._block, self._at, self._base = memoryview(data), 0, position
