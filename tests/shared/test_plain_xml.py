"""XML from outside: read without entities, or refused in words."""

import pytest

from shared import plain_xml
from shared.plain_xml import InvalidXml

BOMB = (
    '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;"><!ENTITY z SYSTEM "file:///etc/passwd">]>'
    "<a>&y;&z;</a>"
)


@pytest.mark.parametrize(
    "data",
    [
        BOMB.encode(),
        ('<?xml version="1.0" encoding="utf-16"?>' + BOMB).encode("utf-16"),
        b"<!DOCTYPE a><a/>",
        b'<!-- a --><!DOCTYPE a SYSTEM "http://x/y.dtd"><a/>',
    ],
    ids=["entities", "UTF-16", "without entities", "of another place"],
)
def test_a_document_type_is_refused(data: bytes) -> None:
    """With it an entity could read a file, or grow without end."""
    with pytest.raises(InvalidXml, match="declares a document type"):
        plain_xml.parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Account;Name",
        b"<a><b></a>",
        b"<a/><b/>",
        b"<a>\xff</a>",
        b'<?xml version="1.0" encoding="x-none"?><a/>',
        b"<a>&nbsp;</a>",
        b"PK\3\4\0\0",
    ],
)
def test_what_is_not_xml_is_told_as_that(data: bytes) -> None:
    """However the parser says so."""
    with pytest.raises(InvalidXml, match="not XML that can be read"):
        plain_xml.parse(data)


def test_names_are_read_without_their_namespace() -> None:
    """D365's manifests have one, and those that people write have none."""
    for start in ("<m:a xmlns:m='urn:m'>", "<a xmlns='urn:m'>", "<a>"):
        prefix = "m:" if start.startswith("<m:") else ""
        body = f"<{prefix}b> one\n</{prefix}b><{prefix}b>two</{prefix}b><{prefix}c/>"
        root = plain_xml.parse(f"{start}{body}</{prefix}a>".encode())
        assert plain_xml.tag(root) == "a"
        assert plain_xml.text(root, "b") == "one"
        assert (plain_xml.text(root, "c"), plain_xml.text(root, "d")) == ("", "")
