"""The D365 client on the wire: what it sends, where the token goes, what it makes of a message."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.d365 import D365, DequeuedMessage
from shared.d365.errors import Rejected, Unavailable, Uncertain
from shared.identity import new_credential
from tests.helpers import (
    EXPORT_ID,
    IMPORT_ID,
    PACKAGE,
    Elsewhere,
    Events,
    client_of,
    dequeued,
    send,
)


def test_every_request_has_the_headers_of_the_documentation(
    bridge: Bridge, d365: Simulator
) -> None:
    """Read off the wire, in the case in which they are documented."""
    d365.add_package(EXPORT_ID, PACKAGE)
    message = client_of(bridge).dequeue(EXPORT_ID)
    assert message
    with client_of(bridge).download(message) as download:
        while download.read(1 << 20):
            pass
    client_of(bridge).acknowledge(EXPORT_ID, message)
    message_id = send(bridge)
    client_of(bridge).message_status(message_id)
    client_of(bridge).job_status(IMPORT_ID, message_id)
    client_of(bridge).execution_errors("DMF-1")
    seen = {request.operation: request for request in d365.requests}
    assert seen.keys() == {
        "token",
        "dequeue",
        "download",
        "acknowledge",
        "enqueue",
        "message_status",
        "job_status",
        "execution_errors",
    }
    for operation, request in seen.items():
        if operation == "token":
            continue
        assert request.authorized, operation
        is_action = "Microsoft.Dynamics.DataEntities" in request.path
        minimal = "application/json;odata.metadata=minimal"
        expected = {
            "OData-Version": "4.0",
            "OData-MaxVersion": "4.0",
            "Accept": "application/json" if is_action else minimal,
            "Accept-Charset": "UTF-8",
            "Host": urlsplit(d365.base_url).netloc,
        }
        if operation != "enqueue":
            expected["Content-Type"] = "application/json; charset=utf-8" if is_action else minimal
        assert expected.items() <= request.headers.items(), operation
    without_spaces = f'{{"messageId":"{message_id}"}}'
    assert seen["message_status"].headers["Content-Length"] == str(len(without_spaces))
    assert seen["enqueue"].headers["x-ms-dyn-externalidentifier"] == "may.csv"
    assert seen["enqueue"].headers["Content-Length"] == "5"
    assert "Transfer-Encoding" not in seen["enqueue"].headers
    assert "Content-Type" not in seen["enqueue"].headers
    assert seen["enqueue"].query == "entity=General%20journal&company=USMF"


def test_a_wait_asked_for_at_a_download_is_kept_by_all(
    bridge: Bridge, d365: Simulator, slept: list[float]
) -> None:
    """It comes from D365 as well."""
    d365.add_package(EXPORT_ID, PACKAGE)
    message = client_of(bridge).dequeue(EXPORT_ID)
    assert message
    d365.add_fault("download", "answer", status=429, headers={"Retry-After": "20"})
    with pytest.raises(Unavailable), client_of(bridge).download(message):
        pass
    with client_of(bridge).download(message):
        assert [10 < wait <= 25 for wait in slept] == [True]


def test_after_a_lost_file_d365_is_asked_something_harmless_first(
    bridge: Bridge, d365: Simulator
) -> None:
    """In a maintenance window one file is in doubt, and not each that is tried."""
    page = {"status": 503, "body": "<html>Maintenance</html>"}
    down = d365.add_fault("enqueue", "answer", times=-1, **page)
    with pytest.raises(Uncertain):
        send(bridge)
    down.operation = "message_status"
    for _ in range(3):
        with pytest.raises(Unavailable, match="D365 is in trouble: it answers 503"):
            send(bridge)
    down.do = "reset"
    with pytest.raises(Unavailable, match="does not answer a question"):
        send(bridge)
    assert d365.count("enqueue") == 1
    down.do, down.status = "answer", 500  # whatever it says, D365 is there
    for _ in range(2):
        send(bridge)
    assert (d365.count("message_status"), len(d365.received)) == (5, 2)


def test_without_a_correlation_id_the_location_says_which_message_it_is(
    bridge: Bridge, d365: Simulator
) -> None:
    """With its query, in which D365 has the package's id; and a second time alike."""
    d365.reoffer_seconds = 0
    package = d365.add_package(EXPORT_ID, PACKAGE, correlation_id="")
    first, again = dequeued(bridge), dequeued(bridge)
    package.acknowledged = 1
    d365.add_package(EXPORT_ID, PACKAGE, correlation_id="")
    assert first.correlation_id == again.correlation_id != dequeued(bridge).correlation_id


@pytest.mark.parametrize("form", ["{}", "{{{}}}", " {} "])
def test_a_correlation_id_is_the_same_however_it_is_written(
    bridge: Bridge, d365: Simulator, form: str
) -> None:
    """In capitals or in braces: its blob is the same."""
    id_ = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
    d365.add_package(EXPORT_ID, PACKAGE, correlation_id=form.format(id_.upper()))
    assert dequeued(bridge).correlation_id == id_
    d365.packages.clear()
    d365.add_package(EXPORT_ID, PACKAGE, correlation_id="Of-Another-Form")
    assert dequeued(bridge).correlation_id == "Of-Another-Form"


@pytest.mark.parametrize("location", [None, "{base}/nothing"])
@pytest.mark.parametrize("problem", ["", "No records were found."])
def test_a_message_without_a_file_is_one(
    bridge: Bridge, d365: Simulator, location: str | None, problem: str
) -> None:
    """It carries D365's words, and can be acknowledged."""
    package = d365.add_package(
        EXPORT_ID, b"", file_exists=False, location=location, problem=problem
    )
    message = dequeued(bridge)
    assert (message.has_file, message.problem) == (False, problem)
    client_of(bridge).acknowledge(EXPORT_ID, message)
    assert package.acknowledged == 1


@pytest.mark.parametrize(
    "fault", [{"do": "reset-after"}, {"do": "answer-after", "status": 502, "body": "<html>"}]
)
def test_an_acknowledgement_that_was_lost_is_done_when_d365_knows_the_message_no_more(
    bridge: Bridge, d365: Simulator, fault: dict[str, Any]
) -> None:
    """The repeated one gets 404; without a lost one before it that is an error."""
    package = d365.add_package(EXPORT_ID, PACKAGE)
    message = dequeued(bridge)
    d365.add_fault("acknowledge", **fault)
    client_of(bridge).acknowledge(EXPORT_ID, message)
    assert (package.acknowledged, d365.count("acknowledge")) == (1, 2)
    with pytest.raises(Rejected):
        client_of(bridge).acknowledge(EXPORT_ID, message)


@pytest.mark.parametrize("gives", [True, False])
def test_a_download_goes_on_where_it_broke_off(
    bridge: Bridge, d365: Simulator, gives: bool
) -> None:
    """If D365 gives parts; else it begins anew, and says so."""
    d365.gives_ranges = gives
    d365.add_package(EXPORT_ID, PACKAGE)
    message = dequeued(bridge)
    with client_of(bridge).download(message, start=7) as download:
        assert (download.start, download.length) == (7 * gives, len(PACKAGE))
        assert download.read(1 << 20) == PACKAGE[7 * gives :]


def test_the_token_goes_to_d365_alone(bridge: Bridge, elsewhere: tuple[str, Elsewhere]) -> None:
    """A1: a location on another host is fetched, over https, without it."""
    url, server = elsewhere
    message = DequeuedMessage("1", f"{url}/package?sig=secret", b"{}")
    with client_of(bridge).download(message) as download:
        assert download.read(1 << 20) == PACKAGE
    (headers,) = server.headers
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("location", "fetched"),
    [
        ("https://CONTOSO.operations.example/p?a=1", "https://contoso.operations.example/p?a=1"),
        ("https://contoso.operations.example:443/p", "https://contoso.operations.example/p"),
        ("http://Contoso.operations.example:80/p", "https://contoso.operations.example/p"),
    ],
)
def test_d365s_own_host_is_known_however_it_is_written(
    bridge: Bridge, location: str, fetched: str
) -> None:
    """Else the package would be asked for without the token."""
    contoso = D365("https://contoso.operations.example", new_credential)
    assert contoso._download_url(location) == (fetched, True)


@pytest.mark.parametrize(
    "base",
    ["https://alias.example:8443", "http://10.1.2.3", "//gateway", "http://127.0.0.1:1", ""],
)
def test_a_package_of_d365s_is_asked_for_at_d365(
    bridge: Bridge, d365: Simulator, base: str
) -> None:
    """Whatever name, scheme and port stand in its location, or none: D365 may have an alias, or a gateway or a
    load balancer before it."""
    path = "/api/connector/download/{activity}?correlation-id={correlation}&blob={blob}"
    d365.add_package(EXPORT_ID, PACKAGE, location=base + path)
    with client_of(bridge).download(dequeued(bridge)) as download:
        assert download.read(1 << 20) == PACKAGE


def test_a_package_elsewhere_that_needs_a_token_says_why_it_got_none(
    bridge: Bridge, elsewhere: tuple[str, Elsewhere]
) -> None:
    """It is not D365's host."""
    url, server = elsewhere
    server.status = 401
    with (
        pytest.raises(Unavailable, match=r"(?s)localhost answered 401.*without a token"),
        client_of(bridge).download(DequeuedMessage("1", f"{url}/package", b"{}")),
    ):
        pass


def test_another_port_is_another_server(elsewhere: tuple[str, Elsewhere], d365: Simulator) -> None:
    """Which gets no token."""
    url, server = elsewhere
    other = D365("https://localhost:1", new_credential)
    with other.download(DequeuedMessage("1", f"{url}/package", b"{}")):
        assert "authorization" not in server.headers[0]


def test_a_refusal_elsewhere_is_not_d365s(
    bridge: Bridge, elsewhere: tuple[str, Elsewhere], events: Events
) -> None:
    """A signature that has run out says nothing of our permissions in D365."""
    url, server = elsewhere
    server.status = 403
    with (
        pytest.raises(Unavailable, match=r"localhost answered 403.*not on the host of D365_URL"),
        client_of(bridge).download(DequeuedMessage("1", f"{url}/package?sig=secret", b"{}")),
    ):
        pass
    assert not events("d365.denied")


def test_error_keys_are_fetched_without_the_token(
    bridge: Bridge, d365: Simulator, elsewhere: tuple[str, Elsewhere]
) -> None:
    """A1: they lie in D365's own storage, under a signature; its URL is asked for until there is one."""
    url, server = elsewhere
    message_id = send(bridge)
    (received,) = d365.received
    with client_of(bridge).error_keys(received.execution_id, "General journal") as download:
        assert download is None
    received.errors = ["Bad."]
    d365.keys_location, d365.keys_polls = url + "/keys?sv=1&sig=secret", 2
    with client_of(bridge).error_keys(received.execution_id, "General journal") as download:
        assert download
        assert download.read(1 << 20) == PACKAGE
    (headers,) = server.headers
    assert "authorization" not in headers
    assert message_id


@pytest.mark.parametrize(
    "location", ["http://elsewhere.example/x", "file:///etc/passwd", "ftp://x/y"]
)
def test_a_location_without_https_is_not_fetched(bridge: Bridge, location: str) -> None:
    """A1."""
    with (
        pytest.raises(Rejected, match="only https"),
        client_of(bridge).download(DequeuedMessage("1", location, b"{}")),
    ):
        pass


@pytest.mark.parametrize(
    "page",
    [
        "{base}/?cmp=USMF",
        "{http}:80/?cmp=USMF",
        "{base}/?cmp=\r\nSet-Cookie: a=b&USMF",
        " {base}/?cmp=USMF\n",
    ],
)
def test_a_summary_link_leads_to_d365_in_one_line(
    bridge: Bridge, d365: Simulator, page: str
) -> None:
    """Behind a load balancer it says http; a line break would end a header of ours."""
    host = d365.base_url.rsplit(":", 1)[0]
    body = json.dumps({"value": page.format(base=d365.base_url, http=host)})
    d365.add_fault("action", "answer", status=200, body=body)
    url = client_of(bridge).execution_summary_url("DMF-1")
    assert url.startswith(f"{d365.base_url}/?cmp=")
    assert url.endswith("USMF")
    assert not re.search(r"\s", url)


def test_a_link_into_d365_leads_nowhere_else(bridge: Bridge, d365: Simulator) -> None:
    """Whatever the answer says, a person is sent to D365's own host alone."""
    body = '{"value": "https://d365.example.com.evil.example/?q=1"}'
    d365.add_fault("action", "answer", status=200, body=body)
    with pytest.raises(Rejected, match="a page elsewhere"):
        client_of(bridge).execution_summary_url("DMF-1")


@pytest.mark.parametrize(
    "body",
    ["", "{}", "null", '""', "[]", '{"DownloadLocation": null}', '{"CorrelationId": "x"}'],
)
def test_an_answer_without_a_location_is_an_empty_queue(
    bridge: Bridge, d365: Simulator, body: str
) -> None:
    """How D365 says so is not documented, so every sane way is taken."""
    d365.add_fault("dequeue", "answer", status=200, body=body)
    assert client_of(bridge).dequeue(EXPORT_ID) is None
