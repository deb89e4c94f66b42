"""Blocks of any size, of which none is kept: what goes on in the next one, and where the bytes end."""

import pytest

from shared.packages import InvalidPackage, PackageCheck
from tests.shared.packages.zips import WRITERS, every_writer, judge


@every_writer
def test_a_package_that_breaks_off_anywhere_is_refused(data: bytes) -> None:
    """No beginning of a package is a package; the message says at which byte it ended."""
    for end in range(len(data)):
        with pytest.raises(InvalidPackage, match=f"breaks off at byte {end}, in|is empty"):
            judge(data[:end])


def test_the_fed_block_is_not_kept() -> None:
    """The caller may fill its buffer anew: memory stays at one block, and nothing is read later."""
    for data in (WRITERS["stored"], WRITERS["streamed"]):
        check = PackageCheck()
        buffer = bytearray()
        for at in range(0, len(data), 50):
            buffer[:] = data[at : at + 50]  # a BufferError if a view of it were held
            check.feed(memoryview(buffer))
            buffer.clear()
        assert check.finish() == judge(data)
