"""Takes the files out of a package; if one entry is unsafe, it takes out none (A4)."""

import re
import stat
import zlib
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial
from io import SEEK_END, BufferedIOBase
from typing import IO, TYPE_CHECKING, Final, override
from unicodedata import category, normalize

from shared.packages.records import (
    DEFLATED,
    ENCRYPTED,
    LOCAL_RECORD,
    LONGEST_END,
    METHODS,
    PATCHED,
    STORED,
    InvalidPackage,
    find_end,
    shortened,
)

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

MAX_FILES: Final = 10_000
"""D365 has some 5,000 data entities, and a package has one file for each; the rest is room for attachments."""

MAX_DIRECTORY: Final = MAX_FILES * 512
"""Bytes of the central directory, which `zipfile` holds in memory: 512 an entry are more than writers use."""

MAX_SIZE: Final = 50 * 1024**3
"""Bytes of all files together, unpacked: a run could not write more in its time."""

MAX_RATIO: Final = 1000
RATIO_FROM: Final = 100 * 1024**2
"""Deflate ends at 1032:1, with one byte repeated; exported text stays far below. Small files may do it."""

MAX_NAME: Final = 700
"""UTF-16 units. A blob's name has 1,024 at most (Microsoft Learn, "Naming and referencing containers, blobs,
and metadata"), and the job's name, the correlation id and their separators stand before it."""

MAX_SEGMENTS: Final = 200
"""Of 254 that a blob's name may have (same page)."""

_PIECE: Final = 256 * 1024

_REPARSE_POINT: Final = 0x400
"""FILE_ATTRIBUTE_REPARSE_POINT: how Windows writers mark symbolic links."""


@dataclass(frozen=True)
class Entry:
    """A file in a package."""

    name: str
    """A relative path with `/`: no part of it is empty, `.` or `..`."""
    size: int
    crc: int
    open: Callable[[], BufferedIOBase]
    """Gives the content. Reading it to its end proves its size and CRC, or raises `InvalidPackage`."""


def entries(file: IO[bytes]) -> Iterator[Entry]:
    """The files of the package in a seekable file, in the directory's order. Folders are left out.

    Raises `InvalidPackage` at once, before there is any entry, if one is unsafe or they are too many or too
    large. A backslash in a name counts as a slash, since old .NET writers use it so. The file is not closed,
    and must stay open while the entries are read.
    """
    from zipfile import BadZipFile, ZipFile

    _limit_directory(file)
    try:
        archive = ZipFile(file)
    # A broken directory surfaces as any of these, the last three from negative or huge numbers in it.
    except (BadZipFile, NotImplementedError, EOFError, ValueError, OverflowError) as error:
        raise InvalidPackage(f"the package can't be read as a zip: {error}") from error
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise InvalidPackage(f"the package has {len(infos)} entries, more than {MAX_FILES}")
    names: dict[str, str] = {}
    files: list[Entry] = []
    for info in infos:
        name = _safe_name(info)
        _check_kind(info, name)
        _check_size(info, name)
        # Windows and macOS take names for one that differ in case or in how an accent is written.
        alike = normalize("NFC", normalize("NFC", name).casefold())
        if (other := names.setdefault(alike, name)) is not name:
            raise InvalidPackage(f"two entries with one name: {_shown(other)} and {_shown(name)}")
        if not name.endswith("/"):
            files.append(Entry(name, info.file_size, info.CRC, partial(_Content, archive, info)))
    if (total := sum(info.file_size for info in infos)) > MAX_SIZE:
        raise InvalidPackage(f"the files have {total} bytes in all, more than {MAX_SIZE}")
    _check_overlaps(infos, archive.start_dir)
    return iter(files)


def read_to_the_end(file: IO[bytes], go_on: Callable[[], None] = lambda: None) -> None:
    """Read every file of the zip in a seekable file to its end, as Python's `zipfile` does, with its CRC.

    Nothing is unpacked, so names do not matter. `go_on` is called between pieces, and may raise to stop it.
    Raises `InvalidPackage` where a file can't be read so.
    """
    from lzma import LZMAError
    from zipfile import BadZipFile, ZipFile

    _limit_directory(file)
    name, total = "", 0
    try:
        with ZipFile(file) as archive:
            for info in archive.infolist():
                name, size = info.filename, 0
                with archive.open(info) as content:
                    while part := content.read(_PIECE):
                        go_on()
                        size += len(part)
                total += size
                if size != info.file_size:
                    raise BadZipFile(f"it has {size} bytes, not {info.file_size}")
                if total > MAX_SIZE:
                    raise BadZipFile(f"with it the files have more than {MAX_SIZE} bytes")
    # RuntimeError is for what is encrypted, OSError for broken bzip2, and the last ones for broken numbers.
    except (
        BadZipFile,
        LZMAError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        zlib.error,
    ) as error:
        what = f"entry {_shown(name)}" if name else "the package"
        why = str(error) or "its bytes end too early"
        raise InvalidPackage(f"{what} can't be read: {why}") from error


def _limit_directory(file: IO[bytes]) -> None:
    """Refuse what `zipfile` would read into memory whole."""
    length = file.seek(0, SEEK_END)
    file.seek(max(0, length - LONGEST_END))
    end = find_end(file.read(LONGEST_END), length)
    if end.entries > MAX_FILES or end.size > MAX_DIRECTORY:
        raise InvalidPackage(
            f"the package has {end.entries} entries in a directory of {end.size} bytes, "
            f"more than {MAX_FILES} or {MAX_DIRECTORY}"
        )


def _safe_name(info: "ZipInfo") -> str:
    """The entry's path with slashes. Raises `InvalidPackage` unless it stays where it is put."""
    name = info.filename.replace("\\", "/")
    why = None
    # `filename` ends at a NUL; `orig_filename` is what the package has.
    if any(category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in name + info.orig_filename):
        why = "has a control character"
    elif name.startswith("/"):
        why = "is an absolute path"
    elif re.match("[A-Za-z]:", name):
        why = "begins with a drive letter"
    elif len(name.encode("utf-16-le")) // 2 > MAX_NAME:
        why = f"has more than {MAX_NAME} characters"
    else:
        parts = name.removesuffix("/").split("/")
        if not all(parts):
            why = "is empty or has an empty part"
        elif any(part.rstrip().endswith(".") or not part.strip() for part in parts):
            # `.` and `..` among them; blob names may have no part that ends so, and Windows drops it.
            why = "has a part that ends with a dot or is blank"
        elif len(parts) > MAX_SEGMENTS:
            why = f"has more than {MAX_SEGMENTS} parts"
    if why:
        raise InvalidPackage(f"the name of entry {_shown(info.orig_filename)} {why}")
    return name


def _check_kind(info: "ZipInfo", name: str) -> None:
    """A file or a folder, that we can read."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    folder = name.endswith("/")
    why = None
    if kind not in (0, stat.S_IFDIR if folder else stat.S_IFREG) or (
        info.external_attr & _REPARSE_POINT
    ):
        why = "is a link or another special file"
    elif folder and info.file_size:
        why = "is a folder with content"
    elif info.flag_bits & ENCRYPTED:
        why = "is encrypted"
    elif info.flag_bits & PATCHED or info.compress_type not in (STORED, DEFLATED):
        # zipfile knows some more, but can't bound the memory that they take.
        method = METHODS.get(info.compress_type, f"method {info.compress_type}")
        why = f"is compressed with {method}, not with Deflate"
    if why:
        raise InvalidPackage(f"entry {_shown(name)} {why}")


def _check_size(info: "ZipInfo", name: str) -> None:
    if info.file_size > MAX_SIZE:
        raise InvalidPackage(
            f"entry {_shown(name)} has {info.file_size} bytes, more than {MAX_SIZE}"
        )
    if info.file_size > RATIO_FROM and info.file_size > MAX_RATIO * info.compress_size:
        raise InvalidPackage(
            f"entry {_shown(name)} would grow from {info.compress_size} to {info.file_size} bytes, "
            f"more than {MAX_RATIO} times"
        )


def _check_overlaps(infos: "list[ZipInfo]", directory: int) -> None:
    """Entries that share bytes let a small file unpack to a huge one."""
    free = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        begin = info.header_offset
        end = begin + LOCAL_RECORD.size + len(info.orig_filename) + info.compress_size
        if begin < free or end > directory:
            raise InvalidPackage(f"entry {_shown(info.filename)} shares its bytes with another")
        free = end


class _Content(BufferedIOBase):
    """An entry's content. `zipfile` stops silently at the announced size, and takes less for the end."""

    def __init__(self, archive: "ZipFile", info: "ZipInfo") -> None:
        from zipfile import BadZipFile

        self._broken = (BadZipFile, NotImplementedError, UnicodeDecodeError, EOFError, zlib.error)
        self._name, self._size, self._read = info.filename, info.file_size, 0
        larger = copy(info)
        larger.file_size += 1  # so that a byte too many shows
        try:
            self._inner = archive.open(larger)
        except self._broken as error:
            raise self._invalid(str(error)) from error

    @override
    def readable(self) -> bool:
        return True

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        try:
            data = self._inner.read(-1 if size is None else size)
        except self._broken as error:
            raise self._invalid(str(error) or "its bytes end too early") from error
        self._read += len(data)
        if self._read > self._size or (not data and size != 0 and self._read < self._size):
            raise self._invalid(f"it has not the {self._size} bytes that the directory announces")
        return data

    @override
    def close(self) -> None:
        if not self.closed and hasattr(self, "_inner"):
            self._inner.close()
        super().close()

    def _invalid(self, why: str) -> InvalidPackage:
        return InvalidPackage(f"entry {_shown(self._name)} can't be read: {why}")


def _shown(name: str) -> str:
    return shortened(repr(name))
