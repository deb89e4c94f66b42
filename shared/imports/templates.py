"""Wraps a file of one entity in a data package: everything but the file comes from a template.

A template is a zip in the container `templates` with `Manifest.xml` and `PackageHeader.xml`: what D365 gives
when a data project is downloaded as a package. Its manifest names each entity's file (`InputFilePath`; element
names as in packages that D365 exports); the file takes that place, its bytes unaltered, and a sample that the
template has there is left out.
"""

import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Final

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from shared import packages, plain_xml
from shared.storage.account import TEMPLATES, DataAccount

LARGEST: Final = 16 * 1024**2
"""Bytes of a template, and of all that is in it: it has a manifest and at most some small files."""

LARGEST_FILE: Final = 1024**3
"""Bytes of a file that is wrapped: it is packed on the temporary disk. D365 takes far less in one request."""

_MANIFEST: Final = "manifest.xml"
_NEEDED: Final = (_MANIFEST, "packageheader.xml")


class WrongFormat(ValueError):
    """A file is of another format than the template says; the text says what it is and what it should be."""


class InvalidTemplate(ValueError):
    """The set-up's mistake, not the file's: the text says what is wrong and how to mend it."""


@dataclass(frozen=True)
class Template:
    """What a template says."""

    path: str
    """The name of the entity's file in the package."""
    others: tuple[tuple[str, bytes], ...]
    """Every other file of it, in its order."""
    format: str = ""
    """The entity's `SourceFormat`, the name of a source data format of D365, as CSV-Unicode or EXCEL."""


def fetch(account: DataAccount, name: str, entity: str | None) -> Template:
    """The template of that name in the container `templates`. Raises `InvalidTemplate`."""
    blob = account.blobs.get_blob_client(TEMPLATES, name)
    try:
        data = blob.download_blob(0, LARGEST + 1, decompress=False).readall()
    except ResourceNotFoundError as error:
        raise InvalidTemplate(f"there is no {name} in the container {TEMPLATES}") from error
    except HttpResponseError as error:
        if error.status_code != 416:  # what an empty blob answers
            raise
        data = b""
    if len(data) > LARGEST:
        raise InvalidTemplate(f"{name} is larger than {LARGEST} bytes: is it a template?")
    return read(name, data, entity)


def read(name: str, data: bytes, entity: str | None) -> Template:
    """The template in a zip. `entity` says whose file it is, where the manifest names several.

    Raises `InvalidTemplate`.
    """
    try:
        entries = {each.name.lower(): each for each in packages.entries(io.BytesIO(data))}
        for needed in _NEEDED:
            if needed not in entries:
                raise InvalidTemplate(f"{name} has no {needed}: is it a package that D365 gave?")
        path, form = _entity_file(name, _content(name, entries[_MANIFEST], LARGEST), entity)
        # D365 runs on Windows, where names that differ in case are one.
        entries.pop(path.lower(), None)
        room, others = LARGEST, []
        for each in entries.values():
            others.append((each.name, _content(name, each, room)))
            room -= each.size
    except packages.InvalidPackage as error:
        raise InvalidTemplate(f"{name} is no zip that can be used: {error}") from error
    return Template(path, tuple(others), form)


def _content(name: str, entry: packages.Entry, room: int) -> bytes:
    if entry.size > room:
        raise InvalidTemplate(
            f"{name} has more than {LARGEST} bytes in it beside the entity's file"
        )
    with entry.open() as file:
        return file.read()


def _entity_file(name: str, manifest: bytes, entity: str | None) -> tuple[str, str]:
    """The file name and the format that the manifest has for the entity, or for its only one.

    Raises `InvalidTemplate`.
    """
    try:
        root = plain_xml.parse(manifest)
    except plain_xml.InvalidXml as error:
        raise InvalidTemplate(f"the manifest of {name} can't be read: {error}") from error
    entities = [
        (plain_xml.text(element, "EntityName"), path, plain_xml.text(element, "SourceFormat"))
        for element in root.iter()
        if (path := plain_xml.text(element, "InputFilePath"))
    ]
    known = ", ".join(each[0] for each in entities) or "none"
    if entity:
        entities = [each for each in entities if each[0].lower() == entity.lower()]
    if len(entities) != 1:
        which = f"the job's entity is {entity}" if entity else "give the job its entity"
        raise InvalidTemplate(f"which entity of {name} is meant? It has: {known}; {which}")
    _, path, form = entities[0]
    if "/" in path or "\\" in path or path in (".", ".."):
        raise InvalidTemplate(f"the manifest of {name} names a file in a folder: {path}")
    return path, form


def wrap(template: Template, content: Iterable[bytes], size: int, package: IO[bytes]) -> None:
    """Write the data package of a file of `size` bytes. The same file and template give the same bytes."""
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in template.others:
            archive.writestr(_member(path), data)
        member = _member(template.path)
        member.file_size = size  # decides whether its records have room for its size
        with archive.open(member, "w") as file:
            for chunk in content:
                file.write(chunk)


_WORKBOOKS: Final = {
    b"PK": "a workbook or another zip",
    b"\xd0\xcf\x11\xe0": "an old workbook (.xls)",
}
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


def in_format(form: str, content: Iterable[bytes]) -> Iterator[bytes]:
    """The content of a file, unaltered. Raises `WrongFormat` where its first bytes contradict the format.

    Formats are set up in D365 under names of a person's choice. Those that D365 has from the start begin with
    EXCEL, CSV or XML (Microsoft Learn, "Data import and export jobs overview", file formats); of others nothing
    is said here.
    """
    parts = iter(content)
    beginning = next(parts, b"")
    kind = form.upper()
    workbook = next((what for magic, what in _WORKBOOKS.items() if beginning.startswith(magic)), "")
    utf_16 = beginning.startswith(_UTF_16)
    what = ""
    if kind.startswith("EXCEL"):
        what = "" if workbook else "no workbook"
    elif kind.startswith(("CSV", "XML")):
        what = workbook
        if kind.startswith("CSV") and "UNICODE" not in kind and utf_16:
            what = "text in UTF-16"
        elif kind.startswith("XML") and not utf_16 and not what:
            text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
            what = "" if text.startswith(b"<") else "no XML"
    if what:
        raise WrongFormat(f"the file is {what}, and the template's format is {form}")
    yield beginning
    yield from parts


def _member(path: str) -> zipfile.ZipInfo:
    # Of 1980: the time of packing would make each try another package.
    member = zipfile.ZipInfo(path)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 0
    return member
