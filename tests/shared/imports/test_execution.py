"""Imports by the package API: the id is there before the request, so a lost answer leaves no doubt."""

import hashlib
import io
import json
import re
import threading
import zipfile
from collections import deque
from datetime import timedelta
from typing import Any

import pytest
from azure.storage.blob import BlobClient

from local import samples
from local.azurite import Azurite
from local.simulator import Simulator
from shared.bridge import Bridge
from shared.config.settings import Storage
from shared.d365 import transport
from shared.imports import advance, execution, intake, reconciliation
from shared.operations import actions, views
from shared.operations.actions import Action, NotDone
from shared.storage import block_copy, leases, signed
from shared.storage.account import (
    FAILED,
    IMPORTS,
    NOTIFICATIONS_QUEUE,
    PROCESSING,
    STATE,
    SUCCEEDED,
    TEMPLATES,
    DataAccount,
    connect,
)
from shared.storage.records import File
from tests.helpers import (
    D365_STORAGE,
    Events,
    Later,
    contents,
    drop,
    make_bridge_of,
    only,
    report,
    try_on,
    work_queue,
)

HOUR = timedelta(hours=1)


def package(number: int = 1) -> bytes:
    """A data package, each number another one."""
    return samples.package(f"Vendors {number}", [samples.Part(samples.VENDORS, number)])


def test_a_package_is_imported_under_an_id_that_was_written_down_before(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes, its company and its data project; the record has the id while D365 has nothing yet."""
    before = list[str]()
    call = transport.Transport.call

    def look(self: transport.Transport, operation: str, *rest: Any) -> Any:
        if operation == "ImportFromPackage":
            record = only(account, PROCESSING).record
            assert record.state == "sending"
            before.append(record.externalid)
        return call(self, operation, *rest)

    monkeypatch.setattr(transport.Transport, "call", look)
    data = package()
    intake.import_file(bridge, drop(account, "projects/vendors.zip", data))
    (received,) = d365.received
    record = only(account, PROCESSING).record
    assert (received.activity_id, received.company) == ("Vendors in", "USMF")
    assert (received.sha256, received.length) == (hashlib.sha256(data).hexdigest(), len(data))
    assert [received.execution_id] == before == [record.externalid]
    assert (record.state, record.messageid, record.sha256) == (
        "sent",
        received.execution_id,
        received.sha256,
    )
    work_queue(bridge)
    record = only(account, SUCCEEDED).record
    assert (record.status, record.records, record.entities) == (
        "Succeeded",
        "20",
        "General journal: 20 of 20",
    )


def test_an_import_costs_few_requests(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """At most five of D365 beside the status questions and the token."""
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1
    operations = [request.operation for request in d365.requests]
    rest = [each for each in operations if each not in ("token", "execution_status")]
    assert rest == ["write_url", "import_package", "execution_details"]


def test_a_bare_file_goes_in_the_jobs_template(
    d365: Simulator, account: DataAccount, bridge: Bridge
) -> None:
    """The file's bytes, unaltered, in the place that the manifest names."""
    account.blobs.get_blob_client(TEMPLATES, "vendors.zip").upload_blob(package(), overwrite=True)
    bridge = make_bridge_of("projects", d365, account, template="vendors.zip")
    intake.import_file(bridge, drop(account, "projects/may.csv", b"1;2;3"))
    assert only(account, PROCESSING).record.sha256 == hashlib.sha256(b"1;2;3").hexdigest()
    (execution_,) = d365.executions
    assert isinstance(execution_.content, bytes)
    with zipfile.ZipFile(io.BytesIO(execution_.content)) as archive:
        assert b"1;2;3" in [archive.read(each) for each in archive.infolist()]


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("projects/may.csv", {}, "no-entity"),
        ("projects/vendors.zip", {"company": None}, "no-company"),
        ("projects/XXXX/vendors.zip", {"company": None}, "rejected"),
        ("projects/vendors.zip", {"overwrite": False}, "rejected"),
        ("projects/vendors.zip", {"dataProject": "Composite in"}, "rejected"),
    ],
)
def test_what_can_not_be_imported_is_refused_with_what_to_do(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    name: str,
    changes: dict[str, object],
    reason: str,
) -> None:
    """By us before it is sent, or by D365, whose own words the report has."""
    d365.projects["Composite in"] = "composite"
    bridge = make_bridge_of("projects", d365, account, **changes)
    intake.import_file(bridge, drop(account, name, package()))
    error_report = report(account)
    assert (error_report["reason"], d365.received) == (reason, [])
    assert error_report["todo"]
    if reason == "rejected":
        assert re.search("exist|composite", error_report["error"])


@pytest.mark.parametrize(
    "fault",
    [
        {"do": "reset-after"},
        {"do": "answer-after", "status": 504},
        {"do": "answer-after", "status": 500, "body": '{"error": {"message": "x"}}'},
        {"do": "answer-after", "status": 400, "body": '{"error": {"message": "x"}}'},
    ],
)
def test_a_lost_answer_leaves_no_doubt(
    bridge: Bridge, d365: Simulator, account: DataAccount, fault: dict[str, Any]
) -> None:
    """D365 is asked for the execution, and the file goes on as sent."""
    d365.add_fault("import_package", **fault)
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.messageid == d365.received[0].execution_id
    assert d365.count("import_package") == len(d365.received) == 1


def test_an_execution_that_is_not_found_yet_is_asked_for_again(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """For up to a minute D365 does not know what it has just begun; no file is held for that, or sent again."""
    d365.package_api.hidden_seconds = d365.package_api.hidden_details_seconds = 3600
    d365.add_fault("import_package", "reset-after")
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    try_on(bridge, later, timedelta(minutes=30), timedelta(minutes=5))
    assert only(account, PROCESSING).record.state == "sending"
    d365.executions[0].visible_at = 0
    try_on(bridge, later, timedelta(minutes=20), timedelta(minutes=5))
    assert len(contents(account, SUCCEEDED)) == 1
    assert len(d365.received) == 1


def test_the_second_witness_is_asked_too(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """D365's entity of executions knows one whose status it does not find."""
    d365.package_api.hidden_seconds = 3600
    d365.add_fault("import_package", "reset-after")
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    work_queue(bridge, rounds=2)
    assert only(account, PROCESSING).record.state == "sent"


@pytest.mark.parametrize("fault", [{"do": "reset"}, {"do": "answer", "status": 502}])
def test_a_package_that_d365_never_got_is_resent_under_the_same_id(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, fault: dict[str, Any]
) -> None:
    """Once D365 has not known the execution for an hour. No file is held for a broken connection."""
    d365.add_fault("import_package", **fault)
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    chosen = only(account, PROCESSING).record.externalid
    try_on(bridge, later, timedelta(minutes=55), timedelta(minutes=5))
    assert d365.count("import_package") == 1
    try_on(bridge, later, timedelta(minutes=60), timedelta(minutes=5))
    assert only(account, SUCCEEDED).record.externalid == chosen
    assert [received.execution_id for received in d365.received] == [chosen]


def test_an_accepted_import_that_vanished_is_held(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, events: Events
) -> None:
    """D365 said that it has it, so only a person can say whether its records are there."""
    d365.package_api.vanishing = 1
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    chosen = only(account, PROCESSING).record.externalid
    try_on(bridge, later, timedelta(minutes=90), timedelta(minutes=5))
    error_report = report(account)
    assert (
        error_report["reason"],
        error_report["outcome"],
        error_report["externalIdentifier"],
    ) == (
        "vanished",
        "held",
        chosen,
    )
    assert "Job history" in error_report["todo"]
    assert d365.count("import_package") == 1
    assert events("file.held")[0]["externalId"] == chosen


def test_an_accepted_import_that_vanished_is_resent_where_the_job_says_so(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Under the same id."""
    bridge = make_bridge_of("projects", d365, account, whenUncertain="resend")
    d365.package_api.vanishing = 1
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    chosen = only(account, PROCESSING).record.externalid
    try_on(bridge, later, timedelta(minutes=120), timedelta(minutes=5))
    assert only(account, SUCCEEDED).record.messageid == chosen
    assert (d365.count("import_package"), len(d365.received)) == (2, 1)


def test_an_execution_that_was_known_and_is_deleted_has_no_final_status(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """A person, or the clean-up of the job history, took it away."""
    d365.package_api.statuses = ("Executing",)
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    work_queue(bridge, rounds=2)
    d365.executions.clear()
    try_on(bridge, later, timedelta(minutes=90), timedelta(minutes=5))
    assert report(account)["reason"] == "no-final-status"


def test_a_worker_that_died_while_it_sent_leaves_no_doubt(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    monkeypatch: pytest.MonkeyPatch,
    later: Later,
) -> None:
    """D365 went on; what reconcile finds is asked after."""

    class Died(BaseException):
        pass

    call = transport.Transport.call

    def die(self: transport.Transport, operation: str, *rest: Any) -> Any:
        answer = call(self, operation, *rest)
        if operation == "ImportFromPackage":
            raise Died
        return answer

    name = drop(account, "projects/vendors.zip", package())
    with monkeypatch.context() as patch:
        patch.setattr(transport.Transport, "call", die)
        with pytest.raises(Died):
            intake.import_file(bridge, name)
    assert only(account, PROCESSING).record.state == "sending"
    later(timedelta(hours=1))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1
    assert len(d365.received) == 1


@pytest.mark.parametrize("shown", [True, False])
def test_an_id_that_d365_has_already_is_no_rejection(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
    shown: bool,
) -> None:
    """What was thought lost came through after all, and D365 turns the second one down: if it then knows the
    execution, the file goes on as sent; if not, nobody knows, and a person is asked."""
    d365.package_api.hidden_seconds = d365.package_api.hidden_details_seconds = 10_000
    d365.add_fault("import_package", "reset-after")
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    d365.executions[0].statuses = deque(["Succeeded"])
    call = transport.Transport.call

    def show(self: transport.Transport, operation: str, *rest: Any) -> Any:
        if operation == "ImportFromPackage" and shown:
            d365.executions[0].visible_at = 0
        return call(self, operation, *rest)

    monkeypatch.setattr(transport.Transport, "call", show)
    try_on(bridge, later, timedelta(minutes=150), timedelta(minutes=5))
    assert d365.count("import_package") == 2
    assert len(d365.received) == 1
    if shown:
        assert len(contents(account, SUCCEEDED)) == 1
    else:
        assert (report(account)["reason"], report(account)["outcome"]) == ("vanished", "held")


@pytest.mark.parametrize("imported", [None, 5])
@pytest.mark.parametrize("broken", [False, True])
def test_a_failed_import_is_reported_with_d365s_errors(
    bridge: Bridge, d365: Simulator, account: DataAccount, imported: int | None, broken: bool
) -> None:
    """Also where the list of errors is no JSON; where a part is in, that is the reason."""
    d365.reject_text, d365.imported = b"<EntityName>", imported
    d365.package_api.broken_errors = broken
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    work_queue(bridge)
    error_report = report(account)
    assert error_report["reason"] == ("partly-imported" if imported else "not-imported")
    assert error_report["status"] == ("PartiallySucceeded" if imported else "Failed")
    assert error_report["records"] == (imported or 0)
    assert error_report["d365"]["executionId"] == d365.received[0].execution_id
    assert [error.split(".")[0] for error in error_report["d365"]["errors"]] == [
        "The journal does not balance",
        "Account 999999 does not exist",
    ]


def test_a_url_that_expired_is_asked_for_anew(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Before the upload, or between upload and import: nothing was imported, and nothing is lost."""
    lifetime = d365.package_api.url_lifetime
    d365.package_api.url_lifetime = timedelta(seconds=-1)
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    record = only(account, PROCESSING).record
    assert record.state == "claimed"
    assert "sig=" not in record.reason
    d365.package_api.url_lifetime = lifetime
    try_on(bridge, later, timedelta(minutes=5), timedelta(minutes=1))
    assert len(contents(account, SUCCEEDED)) == 1
    assert d365.count("write_url") >= 2


def test_a_url_that_expires_before_d365_reads_the_package_is_asked_for_anew(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    azurite: Azurite,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D365 could not read it, as its storage says too: nothing was imported, and nothing is lost."""
    d365_storage = Storage(azurite.connection_string_of(D365_STORAGE), None, None, None)
    written = connect(d365_storage).blobs.get_container_client("dmf")
    urls = list[str]()
    call = transport.Transport.call

    def expire(self: transport.Transport, operation: str, *rest: Any) -> Any:
        if operation == "ImportFromPackage":
            urls.append(json.loads(rest[2])["packageUrl"])
            if len(urls) == 1:  # as good as expired: nobody reads it any more
                written.delete_blob(BlobClient.from_blob_url(urls[0]).blob_name)
        return call(self, operation, *rest)

    monkeypatch.setattr(transport.Transport, "call", expire)
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    record = only(account, PROCESSING).record
    assert (record.state, "has expired" in record.reason) == ("claimed", True)
    try_on(bridge, later, timedelta(minutes=5), timedelta(minutes=1))
    assert len(contents(account, SUCCEEDED)) == len(d365.received) == 1
    assert len(set(urls)) == 2


def test_an_address_that_is_not_https_gets_no_package(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """The report says what may be wrong, and holds no signature."""
    d365.package_api.url_form = "ftp://elsewhere/x?sig=S3cret"
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    error_report = report(account)
    assert "only a signed address over https" in error_report["error"]
    assert "See what stands between the app and D365" in error_report["error"]
    assert "S3cret" not in json.dumps(error_report)
    assert d365.count("import_package") == 0


def test_a_template_that_is_missing_is_waited_for(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """For a day, in which a person can upload it; D365 is asked for nothing meanwhile."""
    bridge = make_bridge_of("projects", d365, account, template="nowhere.zip")
    intake.import_file(bridge, drop(account, "projects/may.csv", b"1;2;3"))
    record = only(account, PROCESSING).record
    assert (record.state, "nowhere.zip" in record.reason) == ("claimed", True)
    assert d365.count("write_url") == 0
    account.blobs.get_blob_client(TEMPLATES, "nowhere.zip").upload_blob(package())
    try_on(bridge, later, timedelta(minutes=30), timedelta(minutes=5))
    assert len(contents(account, SUCCEEDED)) == 1


def test_no_package_is_sent_while_d365_may_still_unpack_that_of_another_job(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """The answer was lost, and D365 goes on when its client has left. It is not waited for without an end."""
    d365.package_api.hidden_seconds = d365.package_api.hidden_details_seconds = 100_000
    d365.add_fault("import_package", "reset-after")
    d365.largest_body = 10
    other = make_bridge_of("packages", d365, account, dataProject="Others in", company="USMF")
    intake.import_file(bridge, drop(account, "projects/a.zip", package(1)))
    intake.import_file(other, drop(account, "packages/b.zip", package(2)))
    try_on(other, later, timedelta(minutes=4), timedelta(minutes=1))
    assert d365.count("import_package") == 1
    try_on(other, later, timedelta(minutes=20), timedelta(minutes=1))
    assert [each.project for each in d365.executions] == ["Vendors in", "Others in"]


def test_one_package_is_sent_to_an_environment_at_a_time(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Over all instances: who finds the lease taken comes again."""
    d365.package_api.import_seconds = 0.3
    other = make_bridge_of("packages", d365, account, dataProject="Others in", company="USMF")
    d365.largest_body = 10
    drop(account, "projects/a.zip", package(1))
    drop(account, "packages/b.zip", package(2))
    threads = [
        threading.Thread(target=intake.import_file, args=args)
        for args in ((bridge, "projects/a.zip"), (other, "packages/b.zip"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try_on(other, later, timedelta(minutes=10), timedelta(minutes=1))
    assert len(contents(account, SUCCEEDED)) == 2
    assert (len(d365.received), d365.most_importing) == (2, 1)


def test_a_lease_that_is_taken_is_waited_for(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Nothing of the file goes to D365 meanwhile."""
    with leases.held(account.blobs.get_blob_client(STATE, "leases/default")):
        intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
        assert only(account, PROCESSING).record.state == "claimed"
        assert d365.count("write_url") == 0
    try_on(bridge, later, timedelta(minutes=5), timedelta(minutes=1))
    assert len(contents(account, SUCCEEDED)) == 1


def test_files_of_a_data_project_go_one_after_the_other(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """A running execution keeps D365 from beginning the project's next one; an end wakes the next file."""
    for number in range(3):
        intake.import_file(bridge, drop(account, f"projects/{number}.zip", package(number + 1)))
    assert len(d365.received) == 1
    work_queue(bridge, rounds=60)
    assert len(contents(account, SUCCEEDED)) == 3
    assert len(d365.received) == 3


def test_a_file_that_waits_keeps_no_other_of_an_unordered_job_waiting(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """One at a time is no order."""
    drop(account, "projects/a.zip", b"")  # its content may be on its way
    intake.import_file(bridge, drop(account, "projects/b.zip", package()))
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.source == "projects/b.zip"
    assert list(contents(account, IMPORTS)) == ["projects/a.zip"]


def test_a_project_that_a_dead_execution_blocks_is_said_in_d365s_words(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """A person deletes it in the job history, and sends the file again."""
    d365.package_api.blocked_projects.add("Vendors in")
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    error_report = report(account)
    assert error_report["reason"] == "rejected"
    assert "Delete it from the job history" in error_report["error"]


def test_a_package_too_large_for_enqueue_goes_by_the_package_api(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """By itself; and the next one of that size at once, without being refused first."""
    bridge = make_bridge_of("packages", d365, account, dataProject="Packages in", company="USMF")
    d365.largest_body = len(package(2)) - 1
    for number in (2, 3, 1):
        intake.import_file(bridge, drop(account, f"packages/{number}.zip", package(number)))
        work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 3
    assert [received.message_id == "" for received in d365.received] == [True, True, False]
    assert d365.count("enqueue") == 2


def test_a_crash_after_d365_found_a_package_too_large_leaves_no_doubt(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That it did not take the package is written down before anything else is done."""
    bridge = make_bridge_of("packages", d365, account, dataProject="Packages in", company="USMF")
    d365.largest_body = 10

    def crash(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(execution, "_why_not_now", crash)
        with pytest.raises(KeyboardInterrupt):
            intake.import_file(bridge, drop(account, "packages/a.zip", package()))
    assert only(account, PROCESSING).record.state == "claimed"
    later(HOUR)
    reconciliation.reconcile(bridge)
    try_on(bridge, later, timedelta(minutes=5), timedelta(minutes=1))
    assert (len(contents(account, SUCCEEDED)), len(d365.received)) == (1, 1)


def test_packages_that_fall_back_go_one_after_the_other(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """Their job sends files side by side, but the data project runs one import at a time."""
    bridge = make_bridge_of("packages", d365, account, dataProject="Packages in", company="USMF")
    d365.largest_body = 10
    for number in (1, 2, 3):
        intake.import_file(bridge, drop(account, f"packages/{number}.zip", package(number)))
    assert len(d365.received) == 1
    try_on(bridge, later, timedelta(hours=2), timedelta(minutes=5))
    assert len(contents(account, SUCCEEDED)) == 3
    assert len(d365.received) == 3


@pytest.mark.parametrize(
    ("changes", "name"),
    [({}, "packages/a.zip"), ({"dataProject": "Packages in"}, "packages/a.zip")],
    ids=["no data project", "no company"],
)
def test_a_package_too_large_with_no_other_way_is_refused(
    bridge: Bridge, d365: Simulator, account: DataAccount, changes: dict[str, object], name: str
) -> None:
    """The report says what is missing for the other way."""
    bridge = make_bridge_of("packages", d365, account, **changes)
    d365.largest_body = 10
    intake.import_file(bridge, drop(account, name, package()))
    error_report = report(account)
    assert (error_report["reason"], error_report["status"]) == ("rejected", "")
    assert "413" in error_report["error"]
    assert d365.count("import_package") == 0


def test_a_call_that_is_given_up_is_no_failure(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D365 goes on when its client has left, and is asked for the execution."""
    monkeypatch.setattr(transport, "FILE_TIMEOUT", 0.2)
    d365.package_api.import_seconds = 1.0
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    assert only(account, PROCESSING).record.state == "sending"
    while not d365.executions:
        pass
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1
    assert len(d365.received) == 1


def test_an_unknown_status_is_reported_and_waited_for(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """S1."""
    d365.package_api.statuses = ("Odd", "Succeeded")
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    work_queue(bridge)
    assert events("status.unknown")[0]["status"] == "Odd"
    assert len(contents(account, SUCCEEDED)) == 1


def test_no_way_leads_from_an_import_that_d365_has_to_a_second_one(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """An event that is repeated, and a message that comes twice, change nothing."""
    name = drop(account, "projects/vendors.zip", package())
    intake.import_file(bridge, name)
    intake.import_file(bridge, name)
    file = only(account, PROCESSING)
    for _ in range(3):
        advance.check_status(bridge, {"file": file.name, "etag": file.etag})
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1
    assert len(d365.received) == 1


def test_the_time_without_an_execution_follows_from_the_time_out(bridge: Bridge) -> None:
    """An hour at the default time-out; a call that is under way is never taken for lost."""
    assert bridge.hidden_for == HOUR
    assert not contents(bridge.account, FAILED)


def vanished(bridge: Bridge, d365: Simulator, later: Later) -> File:
    """A file that is held, since D365 has lost what it had accepted."""
    d365.package_api.hidden_seconds = d365.package_api.hidden_details_seconds = 100_000
    intake.import_file(bridge, drop(bridge.account, "projects/vendors.zip", package()))
    try_on(bridge, later, timedelta(minutes=90), timedelta(minutes=5))
    return only(bridge.account, FAILED)


def test_a_person_has_d365_asked_again_after_what_vanished(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """It came through after all: nothing is sent, and no id need be typed in."""
    file = vanished(bridge, d365, later)
    assert actions.possible(file) == ["resend", "ask", "dismiss"]
    assert "Job history" in actions.risk(file)
    action = Action(file.name, file.etag, "Ada", "it is in the job history")
    with pytest.raises(NotDone, match="ask D365 again"):
        actions.receive(bridge, action)
    d365.executions[0].visible_at = 0
    actions.ask(bridge, action)
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.resolution == "asked"
    assert d365.count("import_package") == 1


def test_what_a_person_has_asked_after_is_asked_for_as_long_as_the_first_time(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """D365 may hide the execution for a while again: the first answer does not end it."""
    file = vanished(bridge, d365, later)
    actions.ask(bridge, Action(file.name, file.etag, "Ada", "it is in the job history"))
    work_queue(bridge)
    assert only(account, PROCESSING).record.reason == "D365 does not know the execution"
    try_on(bridge, later, timedelta(minutes=90), timedelta(minutes=5))
    assert only(account, FAILED).record.reason == "vanished"


def test_a_person_resends_what_vanished(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """As a file of its own, with an id of its own: D365 would turn the old one down."""
    file = vanished(bridge, d365, later)
    d365.executions.clear()
    d365.package_api.hidden_seconds = 0
    action = Action(file.name, file.etag, "Ada", "it is not in the job history")
    intake.import_file(bridge, actions.resend(bridge, action))
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.messageid != file.record.externalid


def test_the_page_of_an_execution_is_that_of_its_id(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """D365 is not asked which it is."""
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    work_queue(bridge)
    job = bridge.settings.jobs.import_job("projects")
    detail = views.detail(bridge, SUCCEEDED, only(account, SUCCEEDED).name)
    assert job
    assert detail
    assert views.summary_url(bridge, job, detail).endswith(detail.file.record.messageid)
    assert d365.count("execution_id") == 0


def test_a_failed_imports_error_keys_are_kept(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Of the entities that the execution's details name."""
    bridge = make_bridge_of("projects", d365, account, errorKeys=True)
    d365.reject_text, d365.imported = b"<EntityName>", 5
    intake.import_file(bridge, drop(account, "projects/vendors.zip", package()))
    work_queue(bridge)
    names = list(contents(account, FAILED))
    assert any(name.endswith(".error.keys/General journal.txt") for name in names), names


def test_a_failed_file_stops_its_ordered_job(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """And those behind it go when a person has dealt with it."""
    bridge = make_bridge_of("projects", d365, account, ordered=True, onFailure="stop")
    d365.reject_text = b"Vendors 1"
    for number in (1, 2):
        drop(account, f"projects/{number}.zip", package(number))
    intake.import_file(bridge, "projects/1.zip")
    work_queue(bridge)
    assert len(d365.received) == 1
    failed = only(account, FAILED)
    actions.dismiss(bridge, Action(failed.name, failed.etag, "Ada", "seen"))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.source == "projects/2.zip"


def test_a_held_file_is_notified_with_its_execution(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """The identifier to look for is the execution's id."""
    file = vanished(bridge, d365, later)
    (message,) = account.queue(NOTIFICATIONS_QUEUE).receive_messages()
    data = json.loads(message.content)["data"]
    assert (data["reason"], data["externalIdentifier"]) == ("vanished", file.record.externalid)


@pytest.fixture
def by_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package is large enough that storage is asked to carry it; nothing was refused before."""
    monkeypatch.setattr(execution, "BY_STORAGE", 1)
    monkeypatch.setattr(block_copy, "_refused", {})


@pytest.mark.usefixtures("by_storage")
def test_a_large_package_goes_from_storage_to_storage(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte of it comes through the app, and the record says so."""
    monkeypatch.delattr("shared.imports.attempt.Content.read")
    data = package()
    intake.import_file(bridge, drop(account, "projects/vendors.zip", data))
    record = only(account, PROCESSING).record
    assert (record.state, record.moved, record.sha256) == ("sent", "storage", "")
    assert d365.received[0].sha256 == hashlib.sha256(data).hexdigest()
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1


@pytest.mark.usefixtures("by_storage")
def test_a_package_that_storage_may_not_fetch_is_carried_by_the_app(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    monkeypatch: pytest.MonkeyPatch,
    events: Events,
) -> None:
    """As where our account is closed to D365's network: at the first refusal, and the log says why."""
    read_url = signed.read_url
    monkeypatch.setattr(signed, "read_url", lambda *of: read_url(*of).replace("sig=", "sig=x"))
    data = package()
    intake.import_file(bridge, drop(account, "projects/vendors.zip", data))
    record = only(account, PROCESSING).record
    assert (record.state, record.moved) == ("sent", "app")
    assert record.sha256 == d365.received[0].sha256 == hashlib.sha256(data).hexdigest()
    assert "403" in events("execution.carried")[0]["reason"]
