"""What D365 answers: read in whole, parsed, and of an error what it proves."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NewType
from urllib.parse import urlsplit

import urllib3

from shared import telemetry
from shared.d365.errors import D365Error, Denied, Rejected, Unavailable, Uncertain

MessageId = NewType("MessageId", str)

LONGEST_ASKED: Final = 24 * 3600.0
"""Seconds. Whoever asks for a longer wait is asked again after these."""

_ANSWER_LIMIT: Final = 16 * 1024 * 1024
_PAGE_LIMIT: Final = 8 * 1024
"""Bytes of an answer that is no JSON, in which its words are looked for."""
_GUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes


def drain(operation: str, response: urllib3.BaseHTTPResponse) -> bytes:
    """The whole answer. Raises `Uncertain` where it breaks off: what was asked may have been done."""
    try:
        body = response.read(_ANSWER_LIMIT + 1, decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        if 300 <= response.status < 500:  # turned down, whatever it would have said of that
            return b""
        raise Uncertain(operation, f"D365's answer broke off: {error}", response.status) from error
    if len(body) > _ANSWER_LIMIT:
        raise Uncertain(operation, "D365's answer is larger than any that it should give")
    return body


def reader(response: urllib3.BaseHTTPResponse) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        try:
            return response.read(size, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable("download", f"the package broke off on its way: {error}") from error

    return read


def announced_length(response: urllib3.BaseHTTPResponse) -> int | None:
    """The package's length, as far as the answer says: an encoded answer's length is another one."""
    text = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")
    return int(text) if text.isdecimal() and not encoded else None


def refusal(operation: str, answer: Response, headers: Mapping[str, str]) -> D365Error:
    """The error for an answer that is no success."""
    status, said = answer.status, error_text(answer.body)
    retry_after = retry_after_seconds(headers.get("Retry-After"))
    kind = verdict(
        status, from_d365=said_by_d365(answer.body), asks_to_wait=retry_after is not None
    )
    text = f"D365 answered {status}" + (f": {said.rstrip('.')}" if said else "")
    todo = _TODO.get(300 if 300 <= status < 400 else status)
    error = kind(operation, f"{text}. {todo}" if todo else text, status)
    error.retry_after = retry_after
    if isinstance(error, Denied):
        telemetry.report("d365.denied", level=40, operation=operation, error=str(error))
    return error


def refusal_elsewhere(url: str, answer: Response, headers: Mapping[str, str]) -> Unavailable:
    """The same of a host that is not D365's, at which we are nobody: its signed URL may have run out."""
    text = (
        f"{urlsplit(url).hostname} answered {answer.status}: {error_text(answer.body) or 'nothing'}"
    )
    error = Unavailable("download", text, answer.status)
    error.retry_after = retry_after_seconds(headers.get("Retry-After"))
    return error


def verdict(status: int, *, from_d365: bool, asks_to_wait: bool) -> type[D365Error]:
    """What an answer that is no success proves: did D365 do what we asked? (I2)

    `from_d365`: it has D365's own error body; `asks_to_wait`: it has `Retry-After`. `docs/reliability.md` gives
    the reason for each line; `tests/faults/sending.py` tries each.
    """
    match status:
        case 401 | 403:
            return Denied
        case 408 | 429:
            return Unavailable
        case 500 | 503 if from_d365 or asks_to_wait:
            # Its own words, or a wish to wait, come from a server that has turned the request down.
            return Unavailable
        case _ if status >= 500:
            # A gateway between, whatever it says, does not know what became of the request behind it.
            return Uncertain
        case _:
            return Rejected


_TODO: Final = {
    300: "That is a redirect, as a sign-in page or an on-premises system gives: check D365_URL",
    401: "It does not accept the token: check that D365_URL is this environment's own address",
    403: "It does not know the application, or its user may not do this: register the client id under "
    "System administration > Setup > Microsoft Entra applications, and allow it in the recurring data job's "
    "authorisation policy",
    404: "Is the activity id that of a recurring data job in this environment, and enabled?",
    413: "The file is larger than D365 takes in one request: split it, or zip it as a data package",
}


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
    return min(max(0.0, seconds), LONGEST_ASKED)


def said_by_d365(body: bytes) -> bool:
    """Whether a body is one of D365's own error bodies (not a gateway's page)."""
    try:
        found = parse(body)
    except ValueError:
        return False
    keys = {key.lower() for key in found} if isinstance(found, dict) else set()
    # With a status code beside the message it is an API gateway's.
    return "statuscode" not in keys and bool(
        keys & {"error", "message", "exceptionmessage", "odata.error"}
    )


def error_text(body: bytes) -> str:
    """What an error body says, in at most 500 characters."""
    text = body[:_PAGE_LIMIT].decode("utf-8", "replace")
    try:
        found = parse(body)
        if isinstance(found, dict):
            error = found.get("error", found.get("odata.error", found))
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
    """JSON, of which all text can be written. Raises `ValueError`, also where it is nested beyond all sense."""
    try:
        found = json.loads(text)
        # Half a surrogate pair is JSON, but not UTF-8: it would break whoever writes it down.
        return json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
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
    value = json_value(answer, "D365")
    while isinstance(value, dict) and "value" in value:
        value = value["value"]
    return value if isinstance(value, str) else json.dumps(value)


def message_id_of(answer: Response) -> MessageId:
    """The message id of an enqueue's answer: a GUID, bare, quoted, in braces, or in an OData `value`."""
    text = answer.body.decode("utf-8", "replace").strip()
    try:
        found = parse(text)
        while isinstance(found, dict) and "value" in found:
            found = found["value"]
        text = found if isinstance(found, str) else text
    except ValueError:
        pass
    text = text.strip().strip("\"'{}")
    if not _GUID.fullmatch(text) or not text.strip("0-"):
        said = f"D365 answered {answer.status} without a message id: {error_text(answer.body) or 'nothing'}"
        raise Uncertain("enqueue", said, answer.status)
    return MessageId(text)
