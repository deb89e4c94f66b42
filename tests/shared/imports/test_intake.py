"""What is taken from `imports`, and when: data that is whole, and nothing else."""

import http.client
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import ClientAuthenticationError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, generate_container_sas

from local.simulator import Simulator
from shared import clock
from shared.bridge import Bridge
from shared.connections import SdkTransport
from shared.imports import advance, intake, reconciliation
from shared.operations import actions, views
from shared.storage import files
from shared.storage.account import FAILED, IMPORTS, PROCESSING, STATUS_QUEUE, SUCCEEDED, DataAccount
from shared.storage.records import File
from tests.helpers import Events, Later, contents, drop, make_bridge, only, report, work_queue


def dropped_names(account: DataAccount) -> list[str]:
    """What lies in `imports`, whatever it is."""
    return [blob.name for blob in account.blobs.get_container_client(IMPORTS).list_blobs()]


def commit(account: DataAccount, name: str, *parts: bytes) -> None:
    """Write a block blob as programs do that write in steps: the blocks so far, then all of them."""
    blob = account.blobs.get_blob_client(IMPORTS, name)
    ids = [BlobBlock(f"{number:04}") for number in range(len(parts))]
    for block, part in zip(ids, parts, strict=True):
        blob.stage_block(block.id, part)
    blob.commit_block_list(ids)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_job_can_wait_until_nothing_changes_a_file(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, ordered: bool
) -> None:
    """settleSeconds: a writer that commits twice keeps its file, and D365 gets the whole of it, once."""
    bridge = make_bridge(d365, account, settleSeconds=60, ordered=ordered)
    for parts in ((), (b"1;2\n",), (b"1;2\n", b"3;4\n")):
        commit(account, "journals/may.csv", *parts)
        intake.import_file(bridge, "journals/may.csv")
        reconciliation.reconcile(bridge)
        assert dropped_names(account) == ["journals/may.csv"]
    later(timedelta(seconds=55))  # storage says times to the second
    intake.import_file(bridge, "journals/may.csv")
    assert not d365.received
    later(timedelta(seconds=10))
    messages = list(account.queue(STATUS_QUEUE).peek_messages())
    assert messages == []  # they come when the time is over, and not before
    advance.check_status(bridge, {"dropped": "journals/may.csv"})
    assert [received.length for received in d365.received] == [8]


def test_a_file_that_settles_is_looked_at_when_its_time_is_over(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """By a message of its own: nobody has to wait for reconcile."""
    bridge = make_bridge(d365, account, settleSeconds=1)
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    assert not d365.received
    later(timedelta(seconds=2))
    for _ in range(100):
        if d365.received:
            break
        work_queue(bridge)
    assert len(d365.received) == 1


NEVER = [
    "may.csv.filepart",
    "may.CSV.part",
    "may.csv.crdownload",
    "~may.tmp",
    "may.csv._COPYING_",
    "may.csv.azDownload-1a2b",
    "_SUCCESS",
    "_started_123",
    "_committed_123",
    "_temporary/0/part-0000.csv",
    "USMF_$folder$",
    "~$may.xlsx",
    ".~lock.may.csv#",
    ".may.csv.swp",
    ".DS_Store",
    "USMF/Thumbs.db",
    "desktop.ini",
]


@pytest.mark.parametrize("ordered", [False, True])
def test_what_is_never_data_is_left_alone_and_counted(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, ordered: bool
) -> None:
    """Whatever the job, with a pattern or without; and it keeps nobody of an ordered job waiting."""
    bridge = make_bridge(d365, account, ordered=ordered)
    for name in NEVER:
        intake.import_file(bridge, drop(account, f"journals/{name}"))
    drop(account, "journals/USMF", b"")  # folders, as some programs mark them
    drop(account, "journals/empty/", b"")
    intake.import_file(bridge, drop(account, "journals/zzz.csv"))
    later(timedelta(hours=2))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(d365.received) == 1
    assert len(dropped_names(account)) == len(NEVER) + 2
    assert not contents(account, FAILED)
    counted = {job.name: (job.waiting, job.no_data) for job in views.overview(bridge).jobs}
    assert counted["journals"] == (0, len(NEVER) + 2)
    rows = views.listing(bridge, views.Filter(state="waiting")).rows
    assert {row.error for row in rows} == {"its name says that it is no data: it is left alone"}


def test_a_pattern_can_ask_for_such_names(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """But one that only lets them through does not."""
    bridge = make_bridge(d365, account, pattern="*.tmp")
    intake.import_file(bridge, drop(account, "journals/may.tmp"))
    bridge = make_bridge(d365, account, pattern="GJ*")
    intake.import_file(bridge, drop(account, "journals/GJ.csv.tmp"))
    assert len(d365.received) == 1


def test_an_empty_file_of_a_page_says_why_it_waits(bridge: Bridge, account: DataAccount) -> None:
    """On the page, for as long as it does."""
    intake.import_file(bridge, drop(account, "journals/may.csv", b""))
    (row,) = views.listing(bridge, views.Filter(state="waiting")).rows
    assert row.error == "it is empty: its content may be on its way"


@pytest.mark.parametrize("name", ["journals/a.bin", "steps/a.bin"])
def test_a_page_blob_is_sent_when_nothing_changes_it(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, name: str
) -> None:
    """It has its whole length from the first moment on, full of zeros; its writer must find it there."""
    blob = account.blobs.get_blob_client(IMPORTS, name)
    blob.create_page_blob(512)
    intake.import_file(bridge, name)
    reconciliation.reconcile(bridge)
    blob.upload_page(b"x" * 512, 0, 512)
    assert not d365.received
    later(timedelta(minutes=6))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    (received,) = d365.received
    assert received.length == 512
    assert list(contents(account, SUCCEEDED).values()) == [b"x" * 512]


@pytest.mark.parametrize("job", ["journals", "steps"])
def test_an_archived_file_is_taken_once_it_is_rehydrated(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, events: Events, job: str
) -> None:
    """It can't be read: no error of ours, and nothing to file. Log and page say what it is and what to do."""
    name = drop(account, f"{job}/may.csv")
    blob = account.blobs.get_blob_client(IMPORTS, name)
    blob.set_standard_blob_tier("Archive")
    intake.import_file(bridge, name)
    later(timedelta(hours=2))
    reconciliation.reconcile(bridge)
    assert not events("reconcile.failed")
    assert "rehydrate it" in events("message.ignored")[0]["reason"]
    (row,) = views.listing(bridge, views.Filter(state="waiting")).rows
    assert "archive tier" in row.error
    assert dropped_names(account) == [name]
    blob.set_standard_blob_tier("Hot")
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(d365.received) == 1


def test_an_archived_file_is_not_sent_again(bridge: Bridge, account: DataAccount) -> None:
    """A lifecycle rule has put it away: the person is told what to do first, and nothing is changed."""
    intake.import_file(bridge, drop(account, "nobody/may.csv"))
    failed = only(account, FAILED)
    blob = account.blobs.get_blob_client(FAILED, failed.name)
    blob.set_standard_blob_tier("Archive")
    archived = only(account, FAILED)
    action = actions.Action(archived.name, archived.etag, "me", "mended")
    with pytest.raises(actions.NotDone, match="rehydrate it first"):
        actions.resend(bridge, action)
    assert only(account, FAILED) == archived


@pytest.mark.parametrize("path", ["journals/../x.csv", "journals/..%5Cx.csv", "journals/./x.csv"])
def test_a_name_that_no_request_reaches_is_told(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, events: Events, path: str
) -> None:
    """A raw client can make it. It is neither sent nor filed, but not without a word; and others go on."""
    put_raw(account, path)
    try:
        drop(account, "journals/zzz.csv")
        later(timedelta(minutes=6))
        reconciliation.reconcile(bridge)
    finally:  # nor can it be deleted by the library that the tests use
        account.blobs.delete_container(IMPORTS)
        account.blobs.create_container(IMPORTS)
    work_queue(bridge)
    assert len(d365.received) == 1
    (event,) = events("reconcile.failed")
    assert "can't be imported" in event["error"]


def put_raw(account: DataAccount, path: str) -> None:
    """Put a blob by a request whose path no library has touched."""
    container = account.blobs.get_container_client(IMPORTS)
    token = generate_container_sas(
        str(account.blobs.account_name),
        IMPORTS,
        account_key=account.blobs.credential.account_key,
        permission="cw",
        expiry=clock.now() + timedelta(hours=1),
    )
    url = urlsplit(container.url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port)
    headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-08-06"}
    connection.request("PUT", f"{url.path}/{path}?{token}", b"1;2", headers)
    assert connection.getresponse().status == 201
    connection.close()


def with_copy_status(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """Let a dropped file be a copy that has come so far (Azurite copies at once)."""
    real = files._file

    def copied(container: str, name: str, properties: Any) -> File:
        file = real(container, name, properties)
        return replace(file, copy_status=status) if container == IMPORTS else file

    monkeypatch.setattr(files, "_file", copied)


@pytest.mark.parametrize("name", ["journals/may.csv", "steps/may.csv"])
def test_a_file_that_is_being_copied_there_is_not_whole(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """A copy from another account takes its time, and the blob is there from its beginning on."""
    drop(account, name)
    with monkeypatch.context() as patch:
        with_copy_status(patch, "pending")
        intake.import_file(bridge, name)
        later(timedelta(hours=2))
        reconciliation.reconcile(bridge)
        assert dropped_names(account) == [name]
    intake.import_file(bridge, name)
    work_queue(bridge)
    assert len(d365.received) == 1


@pytest.mark.parametrize("status", ["aborted", "failed"])
def test_a_copy_that_came_to_nothing_is_told(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
) -> None:
    """It is not sent, and not looked at for ever."""
    name = drop(account, "journals/may.csv")
    with_copy_status(monkeypatch, status)
    intake.import_file(bridge, name)
    error_report = report(account)
    assert (error_report["reason"], status in error_report["error"]) == ("not-whole", True)
    assert not dropped_names(account)
    assert not d365.received


@pytest.mark.parametrize("suffix", [".csv", ""])
def test_a_name_that_fills_its_part_of_a_path_is_filed(
    bridge: Bridge, account: DataAccount, suffix: str
) -> None:
    """A hierarchical namespace takes 255 characters in each part: there must be room for stamp and report."""
    name = drop(account, f"journals/USMF/{'x' * (255 - len(suffix))}{suffix}")
    intake.import_file(bridge, name)
    work_queue(bridge)
    file = only(account, SUCCEEDED)
    assert file.record.source == name
    assert max(len(part) for part in file.name.split("/")) + len(".error.json") <= 255
    intake.import_file(bridge, drop(account, f"nobody/{'日' * 255}"))
    assert all(len(part) <= 255 for name in contents(account, FAILED) for part in name.split("/"))


@pytest.mark.parametrize("missing", [IMPORTS, PROCESSING, SUCCEEDED, FAILED])
def test_a_container_that_is_missing_is_no_file_that_is_gone(
    bridge: Bridge, d365: Simulator, account: DataAccount, missing: str
) -> None:
    """It raises, so that the host tries again and tells: a person must make it."""
    container = FAILED if missing == FAILED else SUCCEEDED
    name = drop(account, "journals/may.csv", b"REJECT" if container == FAILED else b"1")
    account.blobs.delete_container(missing)

    def import_it() -> None:
        intake.import_file(bridge, name)
        work_queue(bridge)

    try:
        with pytest.raises(ResourceNotFoundError):
            import_it()
    finally:
        account.blobs.create_container(missing)
    file = next(files.listed(account, PROCESSING), None)
    if file:  # what was done is not lost
        advance.check_status(bridge, {"file": file.name, "etag": file.etag})
        assert len(d365.received) == 1
        assert only(account, container).record.source == name


@pytest.mark.parametrize("brought_by", ["event", "reconcile"])
def test_index_tags_stay_with_a_file(
    bridge: Bridge, account: DataAccount, later: Later, brought_by: str
) -> None:
    """From `imports` to its end, and back when it is resent: no copy takes them along by itself."""
    tags = {"project": "May 2026", "owner": "ann"}
    dropped = {"journals/may.csv", f"journals/{'日' * 300}.csv", "steps/may.csv"}
    for name in dropped:
        account.blobs.get_blob_client(IMPORTS, name).upload_blob(b"REJECT", tags=tags)
        if brought_by == "event":
            intake.import_file(bridge, name)
    if brought_by == "reconcile":
        later(timedelta(minutes=6))
        reconciliation.reconcile(bridge)
    work_queue(bridge)
    failed = [*files.listed(account, FAILED)]
    assert {file.record.source for file in failed} == dropped
    for file in failed:
        blob = account.blobs.get_blob_client(FAILED, file.name)
        assert blob.get_blob_tags() == tags
        actions.resend(bridge, actions.Action(file.name, file.etag, "Ada", "corrected"))
        assert account.blobs.get_blob_client(IMPORTS, file.record.source).get_blob_tags() == tags


@pytest.mark.parametrize("may", ["read", "not even read"])
def test_a_role_without_tags_stops_no_file(
    bridge: Bridge, account: DataAccount, events: Events, monkeypatch: pytest.MonkeyPatch, may: str
) -> None:
    """They are lost, which is told; the file goes on. Azurite knows no roles: the refusal is ours."""
    denied = ClientAuthenticationError("not authorized")
    denied.status_code = 403
    copy = BlobClient.start_copy_from_url

    def no_writing(self: BlobClient, *args: Any, **kw: Any) -> Any:
        if kw.get("tags"):
            raise denied
        return copy(self, *args, **kw)

    def no_reading(*_: Any, **__: Any) -> Any:
        raise denied

    monkeypatch.setattr(BlobClient, "start_copy_from_url", no_writing)
    if may == "not even read":
        monkeypatch.setattr(BlobClient, "get_blob_tags", no_reading)
    blob = account.blobs.get_blob_client(IMPORTS, "journals/may.csv")
    blob.upload_blob(b"1", tags={"owner": "ann"})
    intake.import_file(bridge, "journals/may.csv")
    work_queue(bridge)
    assert len(contents(account, SUCCEEDED)) == 1
    assert [each["tags"] for each in events("tags.dropped")] == [1]


def test_what_has_room_of_much_metadata_is_kept(
    bridge: Bridge, account: DataAccount, events: Events
) -> None:
    """And what has none is named."""
    blob = account.blobs.get_blob_client(IMPORTS, "journals/may.csv")
    blob.upload_blob(b"1", metadata={"owner": "ann", "large": "x" * 4000, "larger": "y" * 4001})
    intake.import_file(bridge, "journals/may.csv")
    work_queue(bridge)
    assert set(only(account, SUCCEEDED).user_metadata) == {"owner", "large"}
    assert [each["keys"] for each in events("metadata.dropped")] == [["larger"]]


@pytest.mark.parametrize("pattern", [None, "*.csv"])
def test_where_a_file_is_seen_before_it_is_closed_a_stalled_upload_has_an_hour(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str | None,
) -> None:
    """A hierarchical namespace. In a job with a pattern a file without an event was renamed: that is whole.
    (Azurite has no such namespace: the header by which storage shows it is put in on the wire.)"""
    send = SdkTransport.send

    def hierarchical(self: SdkTransport, request: Any, **kw: Any) -> Any:
        response = send(self, request, **kw)
        if request.method == "HEAD":
            response.headers["x-ms-resource-type"] = "file"
        return response

    monkeypatch.setattr(SdkTransport, "send", hierarchical)
    bridge = make_bridge(d365, account, **({"pattern": pattern} if pattern else {}))
    drop(account, "journals/may.csv")
    later(timedelta(minutes=30))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(d365.received) == bool(pattern)
    later(timedelta(minutes=31))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(d365.received) == 1


@pytest.mark.parametrize("name", ["journals/may.csv", "steps/may.csv"])
def test_an_empty_file_may_get_its_content(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, name: str
) -> None:
    """Until an hour is over: what comes by SFTP is there, empty, before its content; and a program may write it
    empty first, which is an event of its own."""
    intake.import_file(bridge, drop(account, name, b""))
    later(timedelta(minutes=30))
    reconciliation.reconcile(bridge)
    assert list(contents(account, IMPORTS)) == [name]
    later(timedelta(hours=2))
    reconciliation.reconcile(bridge)
    assert report(account)["reason"] == "empty-file"
    assert not d365.received


@pytest.mark.parametrize("name", ["journals/log.csv", "steps/log.csv"])
def test_a_file_that_grows_is_sent_when_nothing_more_comes(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later, name: str
) -> None:
    """An append blob is there from its first bytes on; in an ordered job the others wait for it."""
    blob = account.blobs.get_blob_client(IMPORTS, name)
    blob.create_append_blob()
    blob.append_block(b"1;2\n")
    intake.import_file(bridge, name)
    intake.import_file(bridge, drop(account, "steps/next.csv"))
    reconciliation.reconcile(bridge)
    blob.append_block(b"3;4\n")
    assert blob.download_blob().readall() == b"1;2\n3;4\n"
    assert len(d365.received) == (name != "steps/log.csv")
    later(timedelta(hours=1))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert {each.length for each in d365.received} == {5, 8}
    assert not contents(account, IMPORTS)


def test_a_folder_of_a_hierarchical_namespace_is_no_file(
    bridge: Bridge, account: DataAccount
) -> None:
    """Also where an event names it."""
    marker = account.blobs.get_blob_client(IMPORTS, "journals/USMF")
    marker.upload_blob(b"", metadata={"hdi_isfolder": "true"})
    intake.import_file(bridge, "journals/USMF")
    assert list(contents(account, IMPORTS)) == ["journals/USMF"]
    assert not contents(account, FAILED)
