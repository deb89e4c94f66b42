"""Reads XML from outside and refuses a document type: so the XML has no entities, reads no other file and
can't grow."""

from typing import NoReturn
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers import expat


class InvalidXml(ValueError):
    """The text says why it can't be read."""


def parse(data: bytes) -> Element:
    """The root element. Raises `InvalidXml`."""
    try:
        looking = expat.ParserCreate()
        looking.StartDoctypeDeclHandler = _refuse_document_type
        looking.Parse(data, True)
        return ElementTree.fromstring(data)
    except InvalidXml:
        raise
    # An unknown encoding surfaces as any of the last two.
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise InvalidXml(f"it is not XML that can be read: {error}") from error


def _refuse_document_type(*_: object) -> NoReturn:
    raise InvalidXml("it declares a document type")


def tag(element: Element) -> str:
    """The element's name without its namespace."""
    return element.tag.rsplit("}", 1)[-1]


def text(element: Element, name: str) -> str:
    """The text of the first child of that name, "" where there is none."""
    return next((each.text or "" for each in element if tag(each) == name), "").strip()
