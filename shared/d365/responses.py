"""Reads and parses D365's responses, and decides what an error response proves."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NewType
from urllib.parse import urlsplit

import urllib3

from shared.d365.errors import D365Error, Denied, Rejected, Unavailable, Uncertain
from shared.observability.events import emit

MessageId = NewType("MessageId", str)

MAX_RETRY_AFTER: Final = 24 * 3600.0
"""Upper limit for Retry-After, in seconds."""

SENDS: Final = ("enqueue", "ImportFromPackage", "ExportToPackage")
"""Operations that D365 does anew each time that it is asked: each is sent once, since D365 may have done it
whatever it answers."""

_ANSWER_LIMIT: Final = 16 * 1024 * 1024
_PAGE_LIMIT: Final = 8 * 1024
"""Bytes of an answer that is no JSON, in which its words are looked for."""


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes


def drain(operation: str, response: urllib3.BaseHTTPResponse) -> bytes:
    """The whole answer. Raises `Uncertain` where it breaks off: what was asked may have been done."""
    try:
        body = response.read(_ANSWER_LIMIT + 1, decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        if 300 <= response.status < 500:  # D365 has rejected the request; its reason is lost
            return b""
        raise Uncertain(operation, f"D365's answer broke off: {error}", response.status) from error
    if len(body) > _ANSWER_LIMIT:
        raise Uncertain(operation, "D365's answer is larger than any that it should give")
    return body


def require_success(operation: str, answer: Response) -> None:
    """See that an answer of 2xx is one: a sign-in page comes as 200, and so may an error.

    Raises `Rejected` for a page, since that is not D365's, and `Uncertain` for an error.
    """
    text = error_text(answer.body)
    if is_page(answer.body.decode("utf-8", "replace")):
        raise Rejected(operation, f"D365's answer is not JSON: {text}")
    try:
        fields = parse(answer.body)
    except ValueError:
        return
    filled = (
        {key.lower() for key, value in fields.items() if value}
        if isinstance(fields, dict)
        else set()
    )
    if filled & _ERROR_KEYS and not filled & _RESULT_KEYS:
        raise Uncertain(operation, f"D365 answered {answer.status} with an error: {text}")


_ERROR_KEYS: Final = frozenset(("error", "message", "exceptionmessage", "odata.error"))
_RESULT_KEYS: Final = frozenset(("value", "popreceipt", "downloadlocation", "datajobstatus"))
"""In small letters: what D365's answers have that are none of its errors."""


def reader(response: urllib3.BaseHTTPResponse) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        try:
            return response.read(size, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable("download", f"the package broke off on its way: {error}") from error

    return read


def announced_range(response: urllib3.BaseHTTPResponse) -> tuple[int | None, int]:
    """The package's length, as far as the answer says, and the number of the byte with which it begins.

    An encoded answer's length is another one. Raises `Unavailable` for a part that does not say which it is.
    """
    text = response.headers.get("Content-Length", "")
    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        text = ""
    if response.status != 206:
        return int(text) if text.isdecimal() else None, 0
    # RFC 9110, section 14.4
    part = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
    )
    if not part:
        raise Unavailable("download", "D365 gave a part of the package and did not say which")
    return int(part[2]) if part[2] != "*" else None, int(part[1])


def error_of(
    operation: str, answer: Response, headers: Mapping[str, str], setting: str
) -> D365Error:
    """The error for an answer that is no success; `setting` says where D365's address is set."""
    status, answer_text = answer.status, error_text(answer.body)
    page = is_page(answer.body[:_PAGE_LIMIT].decode("utf-8", "replace"))
    # To a question about a message D365 itself may answer 404 and nothing else.
    foreign = page or (operation in SENDS and not said_by_d365(answer.body))
    kind = verdict(operation, status, foreign=foreign)
    text = f"D365 answered {status}" + (f": {answer_text.rstrip('.')}" if answer_text else "")
    todo = _todo(operation, status, setting, foreign=foreign)
    error = kind(operation, f"{text}. {todo}" if todo else text, status)
    error.retry_after = retry_after_seconds(headers.get("Retry-After"))
    if isinstance(error, Denied):
        emit("d365.denied", level=logging.ERROR, operation=operation, error=str(error))
    return error


def error_elsewhere(
    url: str, answer: Response, headers: Mapping[str, str], setting: str
) -> Unavailable:
    """The same of a host that is not D365's, at which we are nobody: its signed URL may have run out."""
    text = (
        f"{urlsplit(url).hostname} answered {answer.status}: {error_text(answer.body) or 'nothing'}. The "
        f"location is not on the host of {setting}, so it was asked without a token"
    )
    error = Unavailable("download", text, answer.status)
    error.retry_after = retry_after_seconds(headers.get("Retry-After"))
    return error


def verdict(operation: str, status: int, *, foreign: bool) -> type[D365Error]:
    """What an answer that is no success proves: did D365 do what we asked? (I2)

    `foreign`: as its form shows, something else than D365 speaks, or may. `docs/reliability.md` gives the
    reason for each line; `tests/faults/failed_sends.py` tries each.
    """
    match status:
        case 302 | 404 | 410 if operation in _OFFERED:
            return Rejected
        case 401 | 403:
            return Denied
        case 404 | 405 if foreign:
            return Denied  # something before D365 knows no way to it
        case _ if 300 <= status < 400:
            return Denied
        case 408 | 429:
            return Unavailable
        case _ if status >= 500:
            # Whoever says so, in whatever form, may have failed after D365 had done it: a gateway that lost the
            # answer makes a 503 of it as well, with Retry-After (Varnish does).
            return Uncertain
        case _:
            return Rejected


_OFFERED: Final = ("download", "acknowledge")
"""Operations on a package that D365 has offered: the address was right, so what is not found is the package."""

_TODO: Final = {
    300: "That is a redirect, as a sign-in page or an on-premises system gives: check {setting}",
    401: "It does not accept the token: check that {setting} is this environment's own address",
    403: "It does not know the application, or its user may not do this: register the client id under "
    "System administration > Setup > Microsoft Entra applications, and allow it in the recurring data job's "
    "authorisation policy",
    404: "Is the activity id that of a recurring data job in this environment, and enabled?",
    413: "The file is larger than D365 takes in one request: split it, or zip it as a data package",
}


def _todo(operation: str, status: int, setting: str, *, foreign: bool) -> str:
    """What to do about an answer, "" where nothing is known."""
    match operation, status:
        case "download", 302 | 404 | 410:
            return "D365 no longer has the package: it keeps one for seven days. Export it anew"
        case "acknowledge", 404 | 410:
            return "The pop receipt has expired: D365 offers the message again, with a fresh one"
        case _, 404 | 405 if foreign:
            return (
                f"It is not D365 that says so: check that {setting} is this environment's own address, and "
                "what stands before it"
            )
    todo = _TODO.get(300 if 300 <= status < 400 else status, "")
    return todo.replace("{setting}", setting)


def retry_after_seconds(text: str | None) -> float | None:
    """Seconds to wait, from either form of the header (RFC 9110, section 10.2.3)."""
    if not text:
        return None
    try:
        if text.strip().isdecimal():
            seconds = float(text)
        else:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER)


def said_by_d365(body: bytes) -> bool:
    """Whether a body is one of D365's own error bodies (not a gateway's page)."""
    try:
        fields = parse(body)
    except ValueError:
        return False
    keys = {key.lower() for key in fields} if isinstance(fields, dict) else set()
    # With a status code beside the message it is an API gateway's.
    return "statuscode" not in keys and bool(keys & _ERROR_KEYS)


def error_text(body: bytes) -> str:
    """What an error body says, in at most 500 characters."""
    text = body[:_PAGE_LIMIT].decode("utf-8", "replace")
    try:
        fields = parse(body)
        if isinstance(fields, dict):
            error = fields.get("error", fields.get("odata.error", fields))
            inner = error.get("innererror") if isinstance(error, dict) else None
            parts = [
                part[key].get("value") if isinstance(part[key], dict) else part[key]
                for part in (error, inner)
                if isinstance(part, dict)
                for key in ("code", "message", "Message", "ExceptionMessage")
                if part.get(key)
            ]
            text = "; ".join(map(str, parts)) or text
    except ValueError:
        text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
    return " ".join(text.split())[:500]


def parse(text: str | bytes) -> Any:
    """JSON whose text can be written as UTF-8. Raises `ValueError`, also if it is nested too deeply."""
    try:
        value = json.loads(text)
        # Half a surrogate pair is JSON, but not UTF-8: it would break whoever writes it down.
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def json_value(answer: Response, operation: str) -> Any:
    try:
        return parse(answer.body)
    except ValueError as error:
        raise Rejected(
            operation, f"D365's answer is not JSON: {error_text(answer.body)}"
        ) from error


def text_value(answer: Response) -> str:
    """The `value` of an OData action's answer, which stands directly or nested ([P] shows both)."""
    value = innermost(json_value(answer, "D365"), "value")
    return value if isinstance(value, str) else json.dumps(value)


def innermost(value: Any, *names: str) -> Any:
    """What stands under the first of these names that an object has, or alone in a list, however deep."""
    while True:
        fields = fields_of(value)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        elif inner := [fields[name] for name in names if name in fields]:
            value = inner[0]
        else:
            return value


def fields_of(value: Any) -> dict[str, Any]:
    """An object's fields by their names in small letters, since case is D365's to change."""
    return {key.lower(): each for key, each in value.items()} if isinstance(value, dict) else {}


def message_id_of(answer: Response, activity_id: str) -> MessageId:
    """The message id of an enqueue's answer: the one GUID in it, in whatever form D365 or a gateway gives it.

    Raises `Uncertain` where there is none, or more than one and none named so.
    """
    text = answer.body.decode(json.detect_encoding(answer.body), "replace")
    named = " ".join(_MESSAGE_ID.findall(text))
    guids = _guids(named)
    if not named and not is_page(text) and not said_by_d365(answer.body):
        guids = _guids(text) - _guids(activity_id)
    if len(guids) != 1:
        text_ = f"D365 answered {answer.status} without a message id: {error_text(answer.body) or 'nothing'}"
        raise Uncertain("enqueue", text_, answer.status)
    return MessageId(guids.pop())


_MESSAGE_ID: Final = re.compile(r"(?i)\bmessage_?id\W{1,8}([0-9a-f-]+)")


def _guids(text: str) -> set[str]:
    """The GUIDs in a text, with hyphens; that of zeros, which stands for none, left out."""
    hyphened = (re.sub(_BARE_GUID, r"\1-\2-\3-\4-\5", guid) for guid in GUID.findall(text))
    return {guid for guid in hyphened if guid.strip("0-")}


GUID: Final = re.compile(
    r"(?i)(?<![0-9a-f-])(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32})(?![0-9a-f-])"
)
_BARE_GUID: Final = re.compile(r"(?i)^(.{8})(.{4})(.{4})(.{4})(.{12})$")


def is_page(text: str) -> bool:
    """Whether a text is HTML, as a sign-in page or a gateway gives it; D365's API gives none."""
    return bool(re.match(r"(?i)\s*<(!doctype|html)\b", text))
