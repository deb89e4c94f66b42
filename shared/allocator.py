"""Makes the C library's allocator keep freed blocks: the app takes and frees blocks of many MiB all the time.

A fresh block costs a page fault for each 4 KiB of it, so freed ones are kept. On Flex Consumption a worker
process is started first and gets its app settings later, so that glibc's own variables (`MALLOC_…`) would
come too late.
"""

import ctypes
import sys
from typing import Final

MIB: Final = 1 << 20
_OPTIONS: Final = (
    (-8, 1),  # M_ARENA_MAX: what one thread has freed is there for the others
    (-3, 32 * MIB),  # M_MMAP_THRESHOLD, the greatest that glibc takes: above our blocks
    (-1, 128 * MIB),  # M_TRIM_THRESHOLD: so much is kept
)
"""Numbers and values of mallopt(3)."""


def keep_freed_blocks() -> None:
    """Have the process keep freed blocks for new ones. Without glibc it does nothing."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _OPTIONS:
            mallopt(option, value)
