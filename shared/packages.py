"""What a D365 data package must be: a zip, whole and readable to its end, whose files are safe to unpack.

Knows nothing of storage or of HTTP. `PackageCheck` judges the bytes while they stream by; `entries` gives the
files of one that is stored.
"""

from shared.package_check import PackageCheck, Summary
from shared.unzipping import Entry, entries
from shared.zip_records import InvalidPackage

__all__ = ["Entry", "InvalidPackage", "PackageCheck", "Summary", "entries"]
