"""The simulator over TLS, and asked as clients ask that work against D365; the rest is tested by the tests that
use it."""

import json
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import trustme
from azure.core.exceptions import HttpResponseError

from local.host_process import ROOT
from local.simulator import Simulator, identity_settings, running_simulator
from shared.bridge import Bridge
from shared.d365 import D365
from shared.d365.errors import D365Error
from shared.identity import new_credential
from tests.helpers import EXPORT_ID, IMPORT_ID, client_of, import_package, uploaded, wait_for


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A certificate for loopback that clients trust, and its key."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    cert, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    own.cert_chain_pems[0].write_to_path(cert)
    own.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca))
    return str(cert), str(key)


def test_a_package_is_fetched_over_tls(
    certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Message and package one way, a file the other; and a fault breaks that connection too."""
    cert, key = certificate
    with running_simulator(cert=cert, key=key) as d365:
        for name, value in identity_settings(d365).items():
            monkeypatch.setenv(name, value)
        d365.add_package(EXPORT_ID, b"PK of an export job")
        client = D365(d365.base_url, new_credential)
        message = client.dequeue(EXPORT_ID)
        assert message
        assert message.download_location.startswith("https://")
        with client.download(message) as download:
            assert download.read(1 << 20) == b"PK of an export job"
        d365.add_import_job(IMPORT_ID)
        part = random.Random(1).randbytes(3_000_000)
        names: dict[str, Any] = {"entity": None, "company": None, "external_id": "x"}
        client.enqueue(IMPORT_ID, lambda: iter([part, part]), 2 * len(part), **names)
        assert d365.received[0].sha256 == sha256(2 * part).hexdigest()
        d365.add_fault("*", "reset")
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{d365.base_url}/anything", timeout=10)


def test_the_command_line_serves_over_tls(certificate: tuple[str, str]) -> None:
    """Its first line says where."""
    cert, key = certificate
    command = [sys.executable, "-m", "local.simulator", "--cert", cert, "--key", key]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = json.loads(process.stdout.readline())["url"]
            assert url.startswith("https://")
            assert requests.get(f"{url}/control/state", timeout=10).json()["packages"] == []
        finally:
            process.terminate()


@pytest.fixture
def ask(
    d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Sends a request with a token: the answer's status and JSON."""
    for name, value in identity_settings(d365).items():
        monkeypatch.setenv(name, value)
    token = new_credential().get_token(f"{d365.base_url}/.default").token

    def request(
        method: str, path: str, data: str = "", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        response = requests.request(
            method,
            d365.base_url + path,
            data=data,
            headers={"Authorization": f"Bearer {token}", **headers},
            timeout=10,
        )
        content = response.json() if response.content else None
        return response.status_code, content if isinstance(content, dict) else {"": content}

    return request


type Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.mark.parametrize("blank", [None, ""])
def test_a_message_is_acknowledged_with_its_three_fields(
    d365: Simulator, ask: Ask, blank: str | None
) -> None:
    """As the Recurring Integrations Scheduler does, with the location changed to https; and what is blank in a
    message is null or an empty text."""
    d365.blank = blank
    package = d365.add_package(EXPORT_ID, b"PK")
    _, message = ask("GET", f"/api/connector/dequeue/%7B{EXPORT_ID}%7D")
    assert message["LastDequeueDateTime"] == message["FileDownLoadErrorMessage"] == blank
    fields = {key: message[key] for key in ("CorrelationId", "PopReceipt", "DownloadLocation")}
    fields["DownloadLocation"] = fields["DownloadLocation"].replace("http:", "https:")
    kind = "application/json; charset=utf-8"
    path = f"/api/connector/ack/{EXPORT_ID}"
    assert ask("POST", path, json.dumps(fields), Content_Type=kind)[0] == 200
    assert package.acknowledged == 1


def test_an_action_takes_single_quotes(d365: Simulator, ask: Ask) -> None:
    """As d365fo.integrations sends them."""
    _, body = ask("POST", f"/api/connector/enqueue/%7b{IMPORT_ID}%7d", "1;2;3")
    action = "/data/DataManagementDefinitionGroups/Microsoft.Dynamics.DataEntities.GetMessageStatus"
    status, body = ask(
        "POST", action, f"{{'messageId':'{body['']}'}}", Content_Type="application/json"
    )
    assert (status, body["value"]) == (200, "Enqueued")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json;odata.metadata=minimal", 415),
        ("application/octet-stream", 200),
        ("application/zip", 200),
        ("", 200),
    ],
)
def test_a_file_that_calls_itself_json_is_turned_down(ask: Ask, kind: str, status: int) -> None:
    """No client that works sends one."""
    headers = {"Content_Type": kind} if kind else {}
    path = f"/api/connector/enqueue/{IMPORT_ID}?entity=Steps"
    assert ask("POST", path, "1;2;3", **headers)[0] == status


def request(d365: Simulator, path: str, **options: Any) -> requests.Response:
    """A request with a token, as any client would send it."""
    name, value = "Authorization", f"Bearer {next(iter(d365.tokens))}"
    headers = {name: value, **options.pop("headers", {})}
    method = options.pop("method", "GET")
    return requests.request(method, d365.base_url + path, headers=headers, timeout=30, **options)


@pytest.fixture
def signed_in(bridge: Bridge, d365: Simulator) -> Simulator:
    """The simulator, of which there is a token."""
    client_of(bridge).dequeue(EXPORT_ID)
    return d365


def test_a_body_is_as_long_as_announced(signed_in: Simulator) -> None:
    """What comes after it on the connection is the next request, as HTTP/1.1 has it."""
    token = next(iter(signed_in.tokens))
    host, port = signed_in.base_url.removeprefix("http://").split(":")
    head = (
        f"POST /api/connector/enqueue/{IMPORT_ID} HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 3\r\n\r\n"
    )
    following = f"GET /after HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"{head}abc{following}".encode())
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [received.length for received in signed_in.received] == [3]
    assert answers.count(b"HTTP/1.1 ") == 2
    assert signed_in.requests[-1].path == "/after"


def test_a_location_has_its_ids_in_the_query(signed_in: Simulator) -> None:
    """As D365 gives it; the blob's id leads to the package, whatever the correlation id."""
    package = signed_in.add_package(EXPORT_ID, b"PK")
    location = request(signed_in, f"/api/connector/dequeue/{EXPORT_ID}").json()["DownloadLocation"]
    parts = urlsplit(location)
    assert parts.path == f"/api/connector/download/{EXPORT_ID}"
    assert parse_qs(parts.query) == {
        "correlation-id": [package.correlation_id],
        "blob": [package.blob],
    }
    assert request(signed_in, f"{parts.path}?blob={package.blob}").content == b"PK"


@pytest.mark.parametrize("form", ["same", "new", "none"])
def test_a_further_offer_may_have_another_correlation_id(signed_in: Simulator, form: str) -> None:
    """Or none; and it is acknowledged by that."""
    signed_in.reoffer_seconds, signed_in.reoffered_as = 0, form
    package = signed_in.add_package(EXPORT_ID, b"PK")
    first, second = (request(signed_in, f"/api/connector/dequeue/{EXPORT_ID}") for _ in range(2))
    ids = {answer.json()["CorrelationId"] for answer in (first, second)}
    assert (len(ids), None in ids) == (1 + (form != "same"), form == "none")
    path = f"/api/connector/ack/{EXPORT_ID}"
    assert request(signed_in, path, method="POST", data=first.content).status_code in (400, 404)
    assert request(signed_in, path, method="POST", data=second.content).status_code == 200
    assert package.acknowledged == 1


def test_a_second_acknowledgement_is_refused(signed_in: Simulator) -> None:
    """The message is gone."""
    package = signed_in.add_package(EXPORT_ID, b"PK")
    message = request(signed_in, f"/api/connector/dequeue/{EXPORT_ID}").content
    path = f"/api/connector/ack/{EXPORT_ID}"
    answers = [request(signed_in, path, method="POST", data=message).status_code for _ in range(2)]
    assert (answers, package.acknowledged) == ([200, 404], 1)


@pytest.mark.parametrize(("location", "problem"), [(None, ""), ("{base}/x", "No file was made.")])
def test_a_message_may_have_no_file(
    signed_in: Simulator, location: str | None, problem: str
) -> None:
    """Its location is null or leads nowhere, and D365 says why, or nothing."""
    signed_in.add_package(EXPORT_ID, b"", file_exists=False, location=location, problem=problem)
    message = request(signed_in, f"/api/connector/dequeue/{EXPORT_ID}").json()
    assert message["IsDownLoadFileExist"] is False
    assert (message["FileDownLoadErrorMessage"] or "") == problem
    assert bool(message["DownloadLocation"]) is bool(location)


@pytest.mark.parametrize("gives", [True, False])
def test_a_part_of_a_package_can_be_asked_for(signed_in: Simulator, gives: bool) -> None:
    """Where the environment gives parts."""
    signed_in.gives_ranges = gives
    package = signed_in.add_package(EXPORT_ID, b"0123456789")
    path = f"/api/connector/download/{EXPORT_ID}?blob={package.blob}"
    answer = request(signed_in, path, headers={"Range": "bytes=4-"})
    expected = (206, b"456789", "bytes 4-9/10") if gives else (200, b"0123456789", None)
    assert (answer.status_code, answer.content, answer.headers.get("Content-Range")) == expected


def test_a_corrupt_download_is_another_each_time(signed_in: Simulator) -> None:
    """Two that are alike are what D365 has."""
    package = signed_in.add_package(EXPORT_ID, b"0123456789")
    signed_in.add_fault("download", "corrupt", bytes=5, times=2)
    path = f"/api/connector/download/{EXPORT_ID}?blob={package.blob}"
    contents = {request(signed_in, path).content for _ in range(3)}
    assert (len(contents), {len(each) for each in contents}) == (3, {10})


def answer_to_import(bridge: Bridge, project: str, id_: str, url: str = "") -> str:
    """D365's words where it rejects the import of a package; "" where it takes it."""
    url = url or uploaded(bridge)
    try:
        import_package(bridge, url, id_, project=project)
    except D365Error as error:
        return str(error)
    return ""


def test_two_imports_of_one_data_project_at_once_deadlock(bridge: Bridge, d365: Simulator) -> None:
    """The later one; one of another project does not, though D365 counts that they overlap."""
    d365.package_api.import_seconds = 3.0
    url = uploaded(bridge)  # before the clock of the first one runs
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(answer_to_import, bridge, "Vendors", "one", url)
        wait_for(lambda: d365.importing == ["Vendors"])
        other = pool.submit(answer_to_import, bridge, "Customers", "two", url)
        assert "Deadlock" in answer_to_import(bridge, "Vendors", "three", url)
        assert (first.result(), other.result()) == ("", "")
    assert {received.execution_id for received in d365.received} == {"one", "two"}
    assert d365.most_importing >= 2


def test_an_exported_package_has_no_address_at_first(bridge: Bridge, d365: Simulator) -> None:
    """Nor has one of an export that goes on; each request takes it one status on."""
    d365.projects["Vendors"] = "plain"
    d365.package_api.empty_urls = 2
    packages = client_of(bridge).packages
    packages.export_package("Vendors", "one", re_execute=False, company="")
    assert packages.exported_url("one") == ""
    while packages.execution_status("one") != "Succeeded":
        pass
    addresses = [packages.exported_url("one") for _ in range(3)]
    assert [bool(each) for each in addresses] == [False, True, True]


def test_an_export_that_fails_has_its_errors(bridge: Bridge, d365: Simulator) -> None:
    """And no package; one that succeeds in part has both."""
    d365.projects["Vendors"] = "plain"
    client, packages = client_of(bridge), client_of(bridge).packages
    for status, has_package in (("Failed", False), ("PartiallySucceeded", True)):
        d365.package_api.statuses, d365.package_api.empty_urls = (status,), 0
        d365.package_api.export_errors = ["Vendor 7 has no group."]
        packages.export_package("Vendors", status, re_execute=False, company="")
        assert packages.execution_status(status) == status
        assert client.execution_errors(status) == ["Vendor 7 has no group."]
        assert bool(packages.exported_url(status)) is has_package


def test_a_signed_address_is_good_for_its_time(bridge: Bridge, d365: Simulator) -> None:
    """Azurite itself refuses it after that, and D365 can't read the package."""
    d365.package_api.url_lifetime = timedelta(seconds=-1)
    with pytest.raises(HttpResponseError) as refusal:
        answer_to_import(bridge, "Vendors", "one")
    assert refusal.value.status_code == 403
    assert d365.received == []


def test_an_import_that_vanishes_leaves_no_trace(bridge: Bridge, d365: Simulator) -> None:
    """It is accepted; so is the next one, which stays."""
    d365.package_api.vanishing = 1
    for id_ in ("one", "two"):
        assert answer_to_import(bridge, "Vendors", id_) == ""
    packages = client_of(bridge).packages
    assert [packages.execution_status(id_) for id_ in ("one", "two")] == [None, "NotRun"]
    assert packages.execution_details("one") is None


def test_an_execution_is_hidden_for_a_while(bridge: Bridge, d365: Simulator) -> None:
    """From the status and from the details, each for its own time."""
    d365.package_api.hidden_seconds = 1000
    assert answer_to_import(bridge, "Vendors", "one") == ""
    packages = client_of(bridge).packages
    assert packages.execution_status("one") is None
    assert packages.execution_details("one") is not None
    d365.package_api.hidden_seconds, d365.package_api.hidden_details_seconds = 0, 1000
    d365.package_api.statuses = ("Succeeded",)
    assert answer_to_import(bridge, "Customers", "two") == ""
    assert packages.execution_status("two") == "Succeeded"
    assert packages.execution_details("two") is None
