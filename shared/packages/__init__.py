"""What a D365 data package must be: a zip, whole and readable to its end, whose files are safe to unpack.

Knows nothing of storage or of HTTP. `PackageCheck` judges the bytes while they stream by, and needs no second
look at them; `read_to_the_end` judges from a file what it refuses, or can't look into. `entries` gives the
files of one that is stored.
"""

from shared.packages.check import PackageCheck, Summary
from shared.packages.records import InvalidPackage
from shared.packages.unpack import Entry, entries, read_to_the_end

__all__ = ["Entry", "InvalidPackage", "PackageCheck", "Summary", "entries", "read_to_the_end"]
