"""Tells an exported file's format from its first bytes, because D365 sends neither a name nor a format with it.

Microsoft Learn, "Recurring integrations" ("a generated file or package"): a recurring export delivers a data
package (a zip), or the bare file in the format of its data project: CSV, XML, Excel, or text of another kind.
"""

import json
import re
from dataclasses import dataclass
from typing import Final


class NotAFile(ValueError):
    """D365 has not answered with a file, but with a page or an error: nothing that could be stored."""


@dataclass(frozen=True)
class Format:
    """What a file is stored as."""

    extension: str
    media_type: str

    @property
    def zipped(self) -> bool:
        """Whether it is a zip, which says itself whether it is whole."""
        return self in (ZIP, XLSX)


ZIP: Final = Format(".zip", "application/zip")
XLSX: Final = Format(".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")
XML: Final = Format(".xml", "application/xml")
CSV: Final = Format(".csv", "text/csv")
TXT: Final = Format(".txt", "text/plain")
BIN: Final = Format(".bin", "application/octet-stream")

MANIFEST: Final = "Manifest.xml"
"""At the root of a zip, it makes a data package of it (Microsoft Learn, "Data management package REST API")."""

_LOCAL, _EMPTY_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_WORKBOOK: Final = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"xl/")
"""How the name of a workbook's first entry begins (ECMA-376, part 2, "Open Packaging Conventions")."""

_LOOKED_AT: Final = 64 * 1024
"""Bytes in which a text's kind is looked for."""

_ERROR_LIMIT: Final = 64 * 1024
"""Bytes of JSON that may be an error in the place of a file."""

_BOMS: Final = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def detect(head: bytes) -> Format:
    """The format of a file that begins so; a shorter one is given whole. Raises `NotAFile`."""
    if not head:
        raise NotAFile("the package is empty: no bytes")
    if head.startswith(_LOCAL):
        return XLSX if _is_workbook(head) else ZIP
    if head.startswith(_EMPTY_ZIP):
        return ZIP
    text = _text(head[:_LOOKED_AT])
    if text is None:
        # Some writers put bytes of their own before the first entry.
        return ZIP if _LOCAL in head else BIN
    begin = text.lstrip()
    if re.match(r"<(!doctype\s+html|html|head|body)\b", begin, re.IGNORECASE):
        raise NotAFile("D365 answered with a web page (to sign in, perhaps) and not with a package")
    if begin.startswith("<"):
        return XML
    if begin.startswith("{") and _is_error(head):
        raise NotAFile(f"D365 answered with an error in place of the package: {begin[:300]}")
    first_line = text.split("\n", 1)[0]
    return CSV if "," in first_line or ";" in first_line else TXT


def _is_workbook(head: bytes) -> bool:
    """By the first entry: in a data package a workbook may be a later one."""
    length = int.from_bytes(head[26:28], "little")
    return head[30 : 30 + length].startswith(_WORKBOOK) and MANIFEST.encode() not in head


def _text(head: bytes) -> str | None:
    """The bytes as text; None where they are something else."""
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")
    if encoding == "utf-16":
        head = head[: len(head) // 2 * 2]
    text = head.decode(encoding, "replace")
    if encoding == "utf-8" and "\ufffd" in text.rstrip("\ufffd"):
        text = head.decode("cp1252", "replace")  # what Windows wrote before Unicode
    return None if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text) else text


def _is_error(head: bytes) -> bool:
    """Whether it is an object of JSON that has an error's members. D365 exports no JSON."""
    if len(head) > _ERROR_LIMIT:
        return False
    try:
        value = json.loads(head)
    except (ValueError, RecursionError):
        return False
    members = {str(key).lower() for key in value} if isinstance(value, dict) else set()
    return bool(members & {"error", "message", "exceptionmessage", "odata.error", "statuscode"})
