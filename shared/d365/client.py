"""The D365 client: dequeue, download, acknowledge, enqueue, message status, execution errors.

Facts on the API come from Microsoft Learn, "Recurring integrations" (sections on dequeue, acknowledge,
enqueue, message status and Http vs Https) and "Data management package REST API"; where these are silent,
from the source of Microsoft's Recurring Integrations Scheduler. `docs/d365-api.md` has what we rely on.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from math import inf
from typing import Final
from urllib.parse import quote, urljoin, urlsplit
from uuid import uuid4

import urllib3

from shared import clock, deadline
from shared.d365 import actions
from shared.d365.errors import D365Error, Rejected, Unavailable, Uncertain
from shared.d365.package_api import PackageApi
from shared.d365.responses import (
    GUID,
    MessageId,
    Response,
    announced_range,
    drain,
    error_elsewhere,
    error_of,
    error_text,
    json_value,
    message_id_of,
    reader,
    retry_after_seconds,
    text_value,
)
from shared.d365.statuses import (
    JobStatus,
    errors_of,
    execution_id_of,
    job_status_of,
    status_of,
)
from shared.d365.transport import PROMPT, QUESTION_TIMEOUT, TROUBLE, Body, Credential, Transport

TOO_LARGE: Final = 413

KEYS_WAITS: Final = (1, 2, 4, 8, 8, 8)
"""Seconds to wait while D365 makes a file of error keys."""


@dataclass(frozen=True)
class DequeuedMessage:
    """A package that D365 offers, or word that there is none."""

    correlation_id: str
    download_location: str
    """Empty where D365 gives none."""
    body: bytes
    """The answer as it came, unknown fields included: it is what the acknowledgement sends back (E5)."""
    problem: str = ""
    """What D365 says of a file that it could not make."""
    has_file: bool = True
    """False for an export without records, where the data project prevents an upload of zero records, and where
    D365 could make no file: there is nothing to download."""


@dataclass(frozen=True)
class Download:
    """A package on its way: `read(n)` gives up to n bytes, b"" at the end."""

    read: Callable[[int], bytes]
    length: int | None
    """Bytes of the whole package, as D365 announced; None where it announced none."""
    start: int = 0
    """The number of the first byte that comes."""


class D365:
    """One D365 environment. Safe for use by several threads; connections and token are shared."""

    def __init__(
        self, url: str, new_credential: Callable[[], Credential], setting: str = "D365_URL"
    ) -> None:
        """`url` is `https://host` without a slash at its end; `new_credential` makes a fresh credential;
        `setting` tells a person where the address is set."""
        self._url, self._setting = url, setting
        self._host = (urlsplit(url).hostname or "").lower()
        self._transport = Transport(url, new_credential, setting)
        self._action = partial(actions.call, self._transport)
        self.packages = PackageApi(self._transport)
        self.rejected_length: float = inf
        """Bytes of the smallest file that was too large for enqueue, as far as this process knows."""
        self._send_was_lost = False

    # -- export -----------------------------------------------------------------------------------

    def dequeue(self, activity_id: str) -> DequeuedMessage | None:
        """Take the next message of an export job's queue; None when it is empty.

        Raises `D365Error`.
        """
        path = f"/api/connector/dequeue/{_guid(activity_id)}"
        return _message(self._transport.call("dequeue", "GET", path))

    @contextmanager
    def download(self, message: DequeuedMessage, start: int = 0) -> Iterator[Download]:
        """Open a package's download, from the byte number `start` on if D365 gives parts of a package; the
        `Download` says from where it comes. Raises `D365Error`, also while it is read."""
        if not message.download_location:
            words = message.problem or "and does not say why"
            raise Rejected("download", f"D365 offers a message without a package: {words}")
        with self._fetch(message.download_location, start) as download:
            yield download

    @contextmanager
    def download_export(self, execution_id: str, start: int = 0) -> Iterator[Download]:
        """The same of the package that an execution has made, by a fresh URL: D365's expire within the hour."""
        url = self.packages.exported_url(execution_id)
        if not url:
            raise Unavailable("download", "D365 gives no address for the package yet")
        with self._get(url, start, ours=False) as download:
            yield download

    @contextmanager
    def _fetch(self, location: str, start: int = 0) -> Iterator[Download]:
        url, ours = self._download_url(location)
        with self._get(url, start, ours=ours) as download:
            yield download

    @contextmanager
    def _get(self, url: str, start: int, *, ours: bool) -> Iterator[Download]:
        """`ours`: the URL is D365's own, so the token goes there."""
        if ours:
            self._transport.wait_for_throttle("download")
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._transport.open(
            "download", "GET", url, headers=headers, authorize=ours
        ) as response:
            if response.status not in (200, 206):
                answer = Response(response.status, drain("download", response))
                if not ours:
                    raise error_elsewhere(url, answer, response.headers, self._setting)
                error = error_of("download", answer, response.headers, self._setting)
                self._transport.note_throttle(error)
                raise error
            length, start = announced_range(response)
            yield Download(reader(response), length, start)

    def acknowledge(self, activity_id: str, message: DequeuedMessage) -> None:
        """Tell D365 that the package is stored: it is never offered again. Raises `D365Error`."""
        path = f"/api/connector/ack/{_guid(activity_id)}"
        try:
            self._transport.call("acknowledge", "POST", path, message.body)
        except Rejected as error:
            # D365 knows the message no longer: the attempt whose answer was lost has struck it off.
            if not (error.answer_lost and error.status in (404, 410)):
                raise

    def _download_url(self, location: str) -> tuple[str, bool]:
        """Where to fetch from, and whether the token may go there (A1).

        Behind a load balancer D365 gives `http://`; the same host is then asked over https, without the
        port (Microsoft Learn, "Recurring integrations", section Http vs Https). D365 behind an alias or a
        gateway names a host of its own: a path of the connector's is asked for at our address, whatever host
        and port stand in the location, so the token goes nowhere else.
        """
        try:
            absolute = urljoin(self._url + "/", location)
            parts = urlsplit(absolute)
            host, base = (parts.hostname or "").lower(), urlsplit(self._url)
            same_port = (parts.port or 443) == (base.port or 443)
        except ValueError as error:
            raise Rejected(
                "download", f"D365 gave a download location that is no URL: {error}"
            ) from error
        ours = host == self._host and (parts.scheme == "http" or same_port)
        if ours or parts.path.lower().startswith("/api/connector/download/"):
            return parts._replace(scheme=base.scheme, netloc=base.netloc).geturl(), True
        if parts.scheme != "https":
            where = f"{parts.scheme}://{host}"
            raise Rejected(
                "download", f"D365 gave a download location on {where}; only https is fetched"
            )
        return absolute, False

    # -- import -----------------------------------------------------------------------------------

    def enqueue(
        self,
        activity_id: str,
        body: Callable[[], Iterator[bytes]],
        length: int,
        *,
        entity: str | None,
        company: str | None,
        external_id: str,
    ) -> MessageId:
        """Send one file of `length` bytes; `body` opens it anew for each attempt.

        Raises `NotAccepted` (D365 has surely not taken it) or `Uncertain` (nobody can know).
        """
        names = {"entity": entity, "company": company}
        query = "&".join(
            f"{name}={quote(value, safe='')}" for name, value in names.items() if value
        )
        path = f"/api/connector/enqueue/{_guid(activity_id)}" + (f"?{query}" if query else "")
        # No type, as every client does that is known to work: it is no JSON, and D365 knows what the job takes.
        headers = {"x-ms-dyn-externalidentifier": external_id, "Content-Type": None}
        if self._send_was_lost:
            self._probe_before_send()
        try:
            answer = self._transport.call("enqueue", "POST", path, Body(body, length), headers)
            return message_id_of(answer, activity_id)
        except Uncertain:
            self._send_was_lost = True
            raise
        except Rejected as error:
            if error.status == TOO_LARGE:
                self.rejected_length = min(self.rejected_length, length)
            raise

    def _probe_before_send(self) -> None:
        """Ask D365 for what does no harm (the status of no message) before the next file goes out.

        Where one send was lost, as in D365's maintenance, the next would be too: it waits until D365 itself
        answers, whatever it says. Raises `NotAccepted`.
        """
        try:
            with deadline.within(QUESTION_TIMEOUT), self._harmless_question() as response:
                answer = Response(response.status, drain("enqueue", response))
        except Uncertain as error:
            raise Unavailable(
                "enqueue", f"not sent, D365 does not answer a question: {error}"
            ) from error
        if answer.status in TROUBLE:
            text = f"not sent, D365 is in trouble: it answers {answer.status} to a question: "
            trouble = Unavailable("enqueue", text + error_text(answer.body), answer.status)
            trouble.retry_after = retry_after_seconds(response.headers.get("Retry-After"))
            self._transport.note_throttle(trouble)
            raise trouble
        self._send_was_lost = False

    def answers_promptly(self) -> bool:
        """Whether D365 answers within seconds, and is in no trouble. Where it has not answered just now, it is
        asked what does no harm."""
        known = self._transport.known_promptness()
        if known is not None:
            return known
        with (
            suppress(D365Error),
            deadline.within(PROMPT),
            self._harmless_question() as response,
        ):
            drain("enqueue", response)
        return self._transport.note_promptness()

    def _harmless_question(self) -> AbstractContextManager[urllib3.BaseHTTPResponse]:
        """Asks for the status of no message."""
        body = actions.body_of({"messageId": str(uuid4())})
        url = f"{self._url}{actions.PATH}GetMessageStatus"
        return self._transport.open("enqueue", "POST", url, body, actions.HEADERS)

    def message_status(self, message_id: MessageId) -> str:
        """The status of a message, by D365's name for it (`statuses.meaning`). Raises `D365Error`."""
        return status_of(self._action("GetMessageStatus", {"messageId": message_id}))

    def job_status(self, activity_id: str, message_id: MessageId) -> JobStatus:
        """The connector's own status of a message: execution id, log, counts for each entity.

        Raises `D365Error`.
        """
        path = f"/api/connector/jobstatus/{_guid(activity_id)}?jobId={quote(message_id)}"
        return job_status_of(self._transport.call("job status", "GET", path))

    def execution_id(self, message_id: MessageId) -> str:
        """The execution of a message; "" while there is none. Raises `D365Error`.

        Microsoft Learn, "Recurring integrations", section on the execution id of a message.
        """
        try:
            answer = self._action("GetExecutionIdByMessageId", {"_messageId": message_id})
        except Rejected:  # the parameter bears the name that GetMessageStatus has for it, perhaps
            answer = self._action("GetExecutionIdByMessageId", {"messageId": message_id})
        return execution_id_of(text_value(answer))

    def execution_errors(self, execution_id: str) -> list[str]:
        """D365's errors of an execution, a line each. Raises `D365Error`."""
        return errors_of(self._action("GetExecutionErrors", {"executionId": execution_id}))

    def execution_summary_url(self, execution_id: str) -> str:
        """D365's page for a person on an execution, on D365's own host. Raises `D365Error`.

        Microsoft Learn, "Data management package REST API", section GetExecutionSummaryPageUrl.
        """
        url = text_value(self._action("GetExecutionSummaryPageUrl", {"executionId": execution_id}))
        parts, base = urlsplit(re.sub(r"[\x00-\x20\x7f-\x9f]", "", url)), urlsplit(self._url)
        if (parts.hostname or "").lower() != self._host:
            raise Rejected("GetExecutionSummaryPageUrl", f"D365 gave a page elsewhere: {url}")
        # As with a download, D365 behind a load balancer may say http.
        return parts._replace(scheme=base.scheme, netloc=base.netloc).geturl()

    @contextmanager
    def error_keys(self, execution_id: str, entity: str) -> Iterator[Download | None]:
        """The keys of an entity's records that did not come from staging into their table; None for none.

        Microsoft Learn, "Data management package REST API": GenerateImportTargetErrorKeysFile says whether
        there are any, GetImportTargetErrorKeysFileUrl gives the file's URL once it is made (a shared access
        signature on another host: our token does not go there). Raises `D365Error`.
        """
        arguments = {"executionId": execution_id, "entityName": entity}
        if text_value(self._action("GenerateImportTargetErrorKeysFile", arguments)) != "true":
            yield None
            return
        for wait in KEYS_WAITS:
            url = text_value(self._action("GetImportTargetErrorKeysFileUrl", arguments)).strip()
            if url not in ("", "null"):
                with self._fetch(url) as download:
                    yield download
                return
            if wait >= deadline.left():
                break
            clock.sleep(wait)
        raise Unavailable("error keys", "D365 has not made the file in time")


def _path_and_query(location: str) -> str:
    """What of a location is the file's own; in the form `…/download/{activity}?…` the query has its ids."""
    try:
        parts = urlsplit(location)
    except ValueError:  # no URL, which the download will say
        return location
    return f"{parts.path}?{parts.query}"


def _message(response: Response) -> DequeuedMessage | None:
    """The message of a dequeue's answer; None for an empty queue. Raises `Rejected`."""
    if response.status == 204 or not response.body.strip():
        return None
    fields = json_value(response, "dequeue")
    if not fields:  # null, "", [] or {}: nothing that could be a message
        return None
    if not isinstance(fields, dict):
        raise Rejected("dequeue", f"D365 answered with something else than a message: {fields!r}")
    # Case is D365's to change, so it is not relied on.
    lower = {key.lower(): value for key, value in fields.items()}
    location, problem = lower.get("downloadlocation"), str(lower.get(_PROBLEM) or "")
    if not isinstance(location, str):
        location = ""
    if not location and not problem and not lower.get("popreceipt"):
        return None
    flag = str(lower.get("isdownloadfileexist")).lower()
    has_file = flag == "true" or (flag != "false" and bool(location))
    id_ = str(lower.get("correlationid") or "").strip().strip("{}")
    if not id_:
        # The blob's name must follow from the message. Its location stands in for the id; in the query of that
        # is the package's own id.
        id_ = sha256(_path_and_query(location).encode()).hexdigest()[:32]
    elif GUID.fullmatch(id_):
        id_ = id_.lower()
    return DequeuedMessage(id_, location, response.body, problem, has_file)


_PROBLEM: Final = "filedownloaderrormessage"


def _guid(activity_id: str) -> str:
    return quote(activity_id.strip("{}"), safe="")
