"""Checks a data package before it is sent: it must be a whole zip with its manifest at the root.

Only what D365 can't but turn down is turned down here; of what is merely odd, D365 itself is the judge.
"""

from io import SEEK_END
from typing import IO, Final

from shared.packages.records import LONGEST_END, InvalidPackage, find_end
from shared.packages.unpack import MAX_DIRECTORY

_MANIFEST: Final = "manifest.xml"
_ZIP: Final = b"PK"


class NotAPackage(ValueError):
    """A file that is called .zip is no data package; the text says why."""


def check(file: IO[bytes]) -> None:
    """Raise `NotAPackage` where D365 can't read the file as a data package.

    It needs `Manifest.xml` at the root of the zip (Microsoft Learn, "Data management package REST API").
    """
    from zipfile import BadZipFile, ZipFile

    length = file.seek(0, SEEK_END)
    file.seek(0)
    if file.read(2) != _ZIP:
        raise NotAPackage("the file is called .zip and is none: it does not begin as one")
    file.seek(max(0, length - LONGEST_END))
    try:
        if find_end(file.read(LONGEST_END), length).size > MAX_DIRECTORY:
            return  # `zipfile` would hold it in memory
    except InvalidPackage:
        pass  # `zipfile` bears with more than we do
    try:
        with ZipFile(file) as archive:
            names = archive.namelist()
    # A broken directory surfaces as any of these.
    except (BadZipFile, EOFError, ValueError, OverflowError) as error:
        raise NotAPackage(f"the zip can't be read ({error}): it is cut short or damaged") from error
    except NotImplementedError:
        return
    paths = [name.replace("\\", "/").lower() for name in names]
    if _MANIFEST in paths:
        return
    deeper = next((name for name in names if name.lower().endswith(f"/{_MANIFEST}")), None)
    if deeper:
        raise NotAPackage(
            f"the manifest lies in a folder, as {deeper}: zip the package's files themselves, not the folder "
            "in which they are"
        )
    raise NotAPackage("the zip has no Manifest.xml, so it is no data package")
