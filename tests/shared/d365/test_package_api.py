"""The package API on the wire: what is sent, what the answers mean, and what each failure proves."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import HttpResponseError
from urllib3.connectionpool import HTTPConnectionPool

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.d365 import actions, transport
from shared.d365.errors import Rejected, Uncertain
from tests.faults import failed_sends
from tests.helpers import PACKAGE, client_of, import_package, uploaded


@pytest.mark.parametrize("old", [True, False])
def test_a_package_is_uploaded_and_imported(bridge: Bridge, d365: Simulator, old: bool) -> None:
    """The signed URL in both forms; the execution has the id that we chose, and each status is D365's word."""
    d365.package_api.old_signatures = old
    url = uploaded(bridge)
    assert (len(url) > 500) is not old
    assert import_package(bridge, url) == "one"
    (received,) = d365.received
    assert (received.execution_id, received.company, received.length) == (
        "one",
        "USMF",
        len(PACKAGE),
    )
    packages = client_of(bridge).packages
    assert [packages.execution_status("one") for _ in range(4)] == [
        "NotRun",
        "Executing",
        "Succeeded",
        "Succeeded",
    ]
    details = packages.execution_details("one")
    assert details
    assert details.counts == "General journal: 20 of 20"


def test_the_requests_are_those_of_the_client_that_is_known_to_work(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parameters, in order, without spaces; no token and no header of ours goes to the blob."""
    bodies = dict[str, bytes]()
    call = transport.Transport.call

    def note(self: transport.Transport, *request: Any) -> object:
        _, _, path, body, *_ = request
        bodies[path.removeprefix(actions.PATH)] = body
        return call(self, *request)

    monkeypatch.setattr(transport.Transport, "call", note)
    url = uploaded(bridge)
    import_package(bridge, url)
    assert bodies["GetAzureWriteUrl"] == b'{"uniqueFileName":"a package.zip"}'
    assert list(json.loads(bodies["ImportFromPackage"]).items()) == [
        ("packageUrl", url),
        ("definitionGroupId", "Vendors in"),
        ("executionId", "one"),
        ("execute", True),
        ("overwrite", True),
        ("legalEntityId", "USMF"),
    ]
    assert b": " not in bodies["ImportFromPackage"]
    headers = {k.lower(): v for k, v in d365.requests[-1].headers.items()}
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["accept"] == "application/json"


def test_an_execution_that_d365_does_not_know_is_told_apart(
    bridge: Bridge, d365: Simulator
) -> None:
    """A 400 with these words is an answer; any other 400 is an error."""
    assert client_of(bridge).packages.execution_status("unknown") is None
    assert client_of(bridge).packages.execution_details("unknown") is None
    d365.add_fault("execution_status", "answer", status=400, body='{"error": {"message": "No."}}')
    with pytest.raises(Rejected, match="400: No"):
        client_of(bridge).packages.execution_status("unknown")


def test_an_execution_is_not_found_for_a_while_after_it_was_taken(
    bridge: Bridge, d365: Simulator
) -> None:
    """The details are the second witness."""
    d365.package_api.hidden_seconds = 60
    import_package(bridge, uploaded(bridge))
    assert client_of(bridge).packages.execution_status("one") is None
    assert client_of(bridge).packages.execution_details("one") is not None


def test_a_url_that_has_expired_is_refused_by_the_storage(bridge: Bridge, d365: Simulator) -> None:
    """Really signed, so really refused: the upload, and D365's own reading."""
    d365.package_api.url_lifetime = timedelta(seconds=-1)
    with pytest.raises(HttpResponseError) as caught:
        uploaded(bridge)
    assert caught.value.status_code == 403
    with pytest.raises(Rejected, match="could not be read"):
        import_package(bridge, client_of(bridge).packages.write_url("x.zip"))


@pytest.mark.parametrize(
    "form", ["ftp://elsewhere/x?sig=1", "http:/x?sig=1", "https://host/no-signature"]
)
def test_an_address_that_is_not_signed_https_is_not_used(
    bridge: Bridge, d365: Simulator, form: str
) -> None:
    """A package goes nowhere else."""
    d365.package_api.url_form = form
    with pytest.raises(Rejected, match="only a signed address over https"):
        client_of(bridge).packages.write_url("x.zip")


@pytest.mark.parametrize("case", failed_sends.PACKAGE_CASES, ids=lambda case: case.what)
@pytest.mark.parametrize(
    "one", [failed_sends.one_import, failed_sends.one_export], ids=["import", "export"]
)
def test_what_a_failed_request_proves(
    d365: Simulator,
    bridge: Bridge,
    one: Callable[[failed_sends.Case, Simulator], failed_sends.Tried],
    case: failed_sends.Case,
) -> None:
    """docs/reliability.md has the table. It is sent once: what follows is for the flow to decide."""
    with failed_sends.quick():
        tried = one(case, d365)
    assert tried.violation == ""
    new_token = case.what.startswith("401")
    assert d365.count(tried.operation) <= 1 + new_token


def test_an_error_of_an_import_has_no_signature_in_it(bridge: Bridge, d365: Simulator) -> None:
    """A3, also where D365 repeats the address."""
    url = uploaded(bridge)
    d365.add_fault("import_package", "answer", status=400, body=json.dumps({"message": url}))
    with pytest.raises(Rejected) as caught:
        import_package(bridge, url)
    assert "sig=" in url
    assert urlsplit(url).query.split("sig=")[1][:20] not in str(caught.value)


def test_d365_goes_on_when_its_client_has_left(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time-out of ImportFromPackage is no failure of the import."""
    d365.package_api.import_seconds = 0.5
    monkeypatch.setattr(transport, "FILE_TIMEOUT", 0.1)
    url = uploaded(bridge)
    with pytest.raises(Uncertain):
        import_package(bridge, url)
    while client_of(bridge).packages.execution_status("one") is None:
        pass
    assert len(d365.received) == 1


@pytest.mark.parametrize(("used_id", "taken"), [("rejected", 1), ("taken", 2)])
def test_an_id_that_was_used_before(
    bridge: Bridge, d365: Simulator, used_id: str, taken: int
) -> None:
    """Nobody says what D365 does with it, so the simulator does both."""
    d365.package_api.used_id = used_id  # type: ignore[assignment]
    d365.package_api.statuses = ("Succeeded",)
    import_package(bridge, uploaded(bridge))
    if taken == 1:
        with pytest.raises(Rejected, match="exists already"):
            import_package(bridge, uploaded(bridge))
    else:
        import_package(bridge, uploaded(bridge))
    assert len(d365.received) == taken


@pytest.mark.parametrize(
    ("company", "execution_id", "words"),
    [("", "one", "legal entity"), ("XXXX", "one", "legal entity"), ("USMF", "o'ne", "not valid")],
)
def test_what_d365_does_not_accept_is_said_in_its_own_words(
    bridge: Bridge, company: str, execution_id: str, words: str
) -> None:
    """`error.innererror.message` is what a person needs."""
    with pytest.raises(Rejected, match=words):
        import_package(bridge, uploaded(bridge), execution_id, company)


def test_a_running_or_dead_execution_blocks_the_projects_next_one(
    bridge: Bridge, d365: Simulator
) -> None:
    """Until a person deletes it in the job history."""
    import_package(bridge, uploaded(bridge))
    with pytest.raises(Rejected, match="job history"):
        import_package(bridge, uploaded(bridge), "two")
    while client_of(bridge).packages.execution_status("one") != "Succeeded":
        pass
    d365.package_api.blocked_projects.add("Vendors in")
    with pytest.raises(Rejected, match="job history"):
        import_package(bridge, uploaded(bridge), "two")


def test_errors_that_are_no_json_are_split_at_their_records(
    bridge: Bridge, d365: Simulator
) -> None:
    """D365 leaves quotes and line breaks in large lists as they are."""
    d365.reject_text = b"<EntityName>"
    d365.reject_errors = ['The value "A, "B" }" is\nnot valid.', "Plain."]
    d365.package_api.broken_errors = True
    d365.package_api.statuses = ("Failed",)
    import_package(bridge, uploaded(bridge))
    assert client_of(bridge).packages.execution_status("one") == "Failed"
    assert client_of(bridge).execution_errors("one") == [
        'The value "A, "B" }" is not valid. (record 1)',
        "Plain. (record 2)",
    ]


def test_no_request_to_the_storage_goes_to_d365s_host(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A1: the upload goes to the address that D365 gave, with its signature and nothing else of ours."""
    headers = list[set[str]]()
    urlopen = HTTPConnectionPool.urlopen

    def note(self: HTTPConnectionPool, **request: Any) -> Any:
        if "sig=" in request["url"]:
            headers.append({name.lower() for name in request["headers"]})
        return urlopen(self, **request)

    monkeypatch.setattr(HTTPConnectionPool, "urlopen", note)
    url = uploaded(bridge)
    assert headers
    assert all("authorization" not in names for names in headers)
    assert urlsplit(url).netloc != urlsplit(d365.base_url).netloc
    assert [request.operation for request in d365.requests] == ["token", "write_url"]
