"""One message: its package is stored as it is, once, whatever happens, and only then acknowledged."""

import io
import json
import random
import zipfile
from typing import Any

import pytest
from azure.storage.blob import BlobLeaseClient

from local import samples
from local.simulator import GATEWAY_ERRORS, Package, Simulator
from shared import clock
from shared.bridge import Bridge
from shared.exports.run import Totals, export_packages
from shared.storage.account import DELIVERED, EXPORTS
from shared.storage.transfer import BLOCK
from tests.helpers import EXPORT_ID, Events, contents

SMALL = samples.package("small", [samples.Part(samples.VENDORS, 5)])
OTHER = samples.package("other", [samples.Part(samples.VENDORS, 6)])


def with_more(content: bytes, size: int, seed: int = 1) -> bytes:
    """A package with one more file, of random bytes."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("Large.csv", random.Random(seed).randbytes(size))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def large() -> bytes:
    """A package of several blocks."""
    return with_more(SMALL, 2 * BLOCK + 99)


def exported(bridge: Bridge) -> dict[str, bytes]:
    return contents(bridge.account, EXPORTS)


def take_all(bridge: Bridge, *, packages: bool = True) -> None:
    """A reader takes all that was exported, or the unzipped files alone."""
    container = bridge.account.blobs.get_container_client(EXPORTS)
    for name in list(container.list_blob_names()):
        if packages or name.count("/") > 1:
            container.delete_blob(name)


def offer_again(package: Package) -> None:
    """D365 offers a message anew, as after 30 minutes."""
    package.acknowledged = package.offered = 0


def broken(content: bytes) -> bytes:
    """A package with one wrong byte in the data of its first file."""
    return content[:200] + bytes([content[200] ^ 0xFF]) + content[201:]


# -- what a job delivers --------------------------------------------------------------------------


def test_a_large_file_is_stored_whole(bridge: Bridge, d365: Simulator) -> None:
    """Its first block says what it is, and its announced length that it is whole."""
    content = b"1;2\r\n" * (2 * BLOCK // 5)
    package = d365.add_package(EXPORT_ID, content)
    assert export_packages(bridge) == Totals(1, 0)
    assert exported(bridge) == {f"vendors/{package.correlation_id}.csv": content}


def test_a_zip_that_is_no_data_package_is_not_taken_apart(
    unzipping: Bridge, d365: Simulator
) -> None:
    """A data package has Manifest.xml at its root."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("folder/Manifest.xml", "<x/>")
    package = d365.add_package(EXPORT_ID, buffer.getvalue())
    assert export_packages(unzipping) == Totals(1, 0)
    assert list(exported(unzipping)) == [f"vendors/{package.correlation_id}.zip"]


def test_a_file_without_a_length_is_taken_when_two_downloads_agree(
    bridge: Bridge, d365: Simulator
) -> None:
    """Nothing else says where it ends."""
    content = b"1;2\r\n"
    d365.add_package(EXPORT_ID, content)
    d365.add_fault("download", "chunked", times=-1)
    assert export_packages(bridge) == Totals(1, 0)
    assert list(exported(bridge).values()) == [content]
    assert d365.count("download") == 2


# -- messages without a file ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"DownloadLocation": None},
        {"DownloadLocation": "", "FileDownLoadErrorMessage": ""},
        {"DownloadLocation": None, "IsDownLoadFileExist": False},
        {"DownloadLocation": "https://d365/x", "IsDownLoadFileExist": False},
    ],
)
def test_a_message_without_a_file_is_acknowledged(
    bridge: Bridge, d365: Simulator, events: Events, fields: dict[str, Any]
) -> None:
    """An export without records makes it; there is nothing to lose."""
    package = d365.add_package(EXPORT_ID, SMALL)
    message = {"CorrelationId": package.correlation_id, "PopReceipt": "p", **fields}
    d365.strict_receipts = False
    d365.add_fault("dequeue", "answer", status=200, body=json.dumps(message))
    package.offered, package.offered_at = 1, clock.monotonic()
    assert export_packages(bridge) == Totals()
    assert [event["correlationId"] for event in events("package.empty")] == [package.correlation_id]
    assert d365.count("acknowledge") == 1
    assert d365.count("download") == 0
    assert events("package.failed") == []


@pytest.mark.parametrize("location", [None, "https://d365/x"])
def test_what_d365_says_of_a_file_that_it_could_not_make_is_what_the_failure_says(
    bridge: Bridge, d365: Simulator, events: Events, location: str | None
) -> None:
    """It may make it yet, so the message is not acknowledged; the others go on."""
    message = {
        "CorrelationId": "x",
        "PopReceipt": "p",
        "DownloadLocation": location,
        "IsDownLoadFileExist": False,
        "FileDownLoadErrorMessage": "Deadlock.",
    }
    d365.add_fault("dequeue", "answer", status=200, body=json.dumps(message))
    d365.add_package(EXPORT_ID, SMALL)
    assert export_packages(bridge) == Totals(1, 1)
    (failed,) = events("package.failed")
    assert failed["correlationId"] == "x"
    assert "Deadlock." in failed["error"]
    assert "activity id" not in failed["error"]


# -- downloads that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "options"),
    [
        ("truncate", {"bytes": 100}),
        ("truncate-silently", {"bytes": 100}),
        ("corrupt", {"bytes": 200}),
        ("longer", {}),
        ("reset", {}),
        ("reset-during", {"bytes": 100}),
        ("answer", {"status": 500}),
        ("answer", {"status": 503, "headers": {"Retry-After": "1"}}),
        ("answer", {"status": 429, "headers": {"Retry-After": "1"}}),
    ],
)
def test_a_download_that_fails_once_is_made_again(
    bridge: Bridge, d365: Simulator, do: str, options: dict[str, Any]
) -> None:
    """Seen in the field: 500 first, then the package."""
    package = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", do, **options)
    assert export_packages(bridge) == Totals(1, 0)
    assert exported(bridge) == {f"vendors/{package.correlation_id}.zip": SMALL}


@pytest.mark.parametrize(
    ("do", "options", "says"),
    [
        ("truncate", {"bytes": 100}, "broke off"),
        ("truncate-silently", {"bytes": 100}, "package"),
        ("longer", {}, "broke off"),
        ("answer", {"status": 404}, "404"),
        ("answer", {"status": 200, "body": "<!DOCTYPE html><html>Sign in</html>"}, "web page"),
        ("answer", {"status": 200, "body": '{"error": {"code": "503"}}'}, "an error"),
        ("answer", {"status": 200, "body": ""}, "empty"),
    ],
)
def test_a_package_that_is_not_whole_is_never_acknowledged(
    bridge: Bridge, d365: Simulator, events: Events, do: str, options: dict[str, Any], says: str
) -> None:
    """E1, E3: nothing is stored, the failure is told, the next package is served all the same."""
    bad = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", do, times=3, path=bad.correlation_id, **options)
    good = d365.add_package(EXPORT_ID, OTHER)
    if do == "answer" and options["status"] == 404:
        d365.faults[0].times = 1  # not tried again
    assert export_packages(bridge) == Totals(1, 1)
    assert exported(bridge) == {f"vendors/{good.correlation_id}.zip": OTHER}
    assert (bad.acknowledged, good.acknowledged) == (0, 1)
    (failed,) = events("package.failed")
    assert failed["correlationId"] == bad.correlation_id
    assert says in failed["error"]
    assert "not acknowledged" in failed["error"]


def test_a_package_of_another_length_than_announced_is_never_acknowledged(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E1, even if the HTTP library let it pass: a whole zip, and yet not what D365 said."""
    offered = d365.add_package(EXPORT_ID, SMALL)
    monkeypatch.setattr("shared.d365.client.announced_range", lambda _: (len(SMALL) + 1, 0))
    assert export_packages(bridge) == Totals(0, 1)
    assert (exported(bridge), offered.acknowledged) == ({}, 0)


@pytest.mark.parametrize("do", ["gzip", "chunked"])
def test_other_transfer_forms_are_taken(bridge: Bridge, d365: Simulator, do: str) -> None:
    """A compressed answer is decoded; one without a length is checked by its zip."""
    d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", do)
    assert export_packages(bridge) == Totals(1, 0)
    assert list(exported(bridge).values()) == [SMALL]


@pytest.mark.parametrize("location", ["http://other.example/p", "ftp://127.0.0.1/p", "https://[x/"])
def test_a_location_that_may_not_be_fetched_is_told(
    bridge: Bridge, d365: Simulator, events: Events, location: str
) -> None:
    """Only https elsewhere."""
    d365.add_package(EXPORT_ID, SMALL, location=location)
    assert export_packages(bridge) == Totals(0, 1)
    assert "download location" in events("package.failed")[0]["error"]


def test_a_download_waits_as_long_as_d365_asks(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A2: and a longer wait than a run has is left to the next one."""
    slept: list[float] = []
    monkeypatch.setattr(clock, "sleep", slept.append)
    d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", "answer", status=429, headers={"Retry-After": "20"})
    assert export_packages(bridge) == Totals(1, 0)
    assert slept[0] == 20
    slept.clear()
    d365.add_package(EXPORT_ID, OTHER)
    d365.add_fault("download", "answer", status=429, headers={"Retry-After": "600"}, times=-1)
    before = d365.count("download")
    assert export_packages(bridge) == Totals(0, 1)
    assert d365.count("download") == before + 1


# -- what fails our check -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, BLOCK])
def test_what_d365_delivers_whole_and_nobody_can_read_is_stored_as_it_is(
    bridge: Bridge, d365: Simulator, events: Events, size: int
) -> None:
    """Two downloads with the announced length and the same bytes are what D365 has: marked, and told."""
    content = broken(with_more(SMALL, size))
    package = d365.add_package(EXPORT_ID, content)
    assert export_packages(bridge) == Totals(1, 0)
    name = f"vendors/{package.correlation_id}.zip"
    assert exported(bridge) == {name: content}
    assert (package.acknowledged, d365.count("download")) == (1, 2)
    blob = bridge.account.blobs.get_blob_client(EXPORTS, name)
    assert "Manifest" in blob.get_blob_properties().metadata["unreadable"]
    (event,) = events("package.unreadable")
    assert event["blob"] == name
    assert "Manifest" in event["error"]


def test_what_differs_between_two_downloads_is_not_what_d365_has(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was spoilt on its way, each time anew: nothing is stored."""
    package = d365.add_package(EXPORT_ID, SMALL)
    spoilt = (SMALL[:at] + b"\xff\xfe" + SMALL[at + 2 :] for at in (150, 160, 170))
    monkeypatch.setattr(
        type(package),
        "chunks",
        lambda *_: iter([next(spoilt)]),
    )
    assert export_packages(bridge) == Totals(0, 1)
    assert (exported(bridge), package.acknowledged, d365.count("download")) == ({}, 0, 3)


def descriptor_of_nothing() -> bytes:
    """Deflated with a descriptor and 0 bytes, as some writers do with empty files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Manifest.xml", b"<x/>")
        archive.writestr("Empty.csv", b"")
    data = bytearray(buffer.getvalue())
    local, central = data.rindex(b"PK\x03\x04"), data.rindex(b"PK\x01\x02")
    for at in (local + 6, central + 8):
        data[at] |= 8
    return bytes(data)


def prefixed() -> bytes:
    """With bytes before the first record, of which `zipfile` takes account."""
    return b"\x00made by\x00" + SMALL


def stored_with_descriptor(size: int) -> bytes:
    """Entries that are stored and say only afterwards how long they are."""

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation

    buffer = Unseekable()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("Manifest.xml", b"<x/>")
        archive.writestr("Data.csv", random.Random(3).randbytes(size))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [descriptor_of_nothing(), prefixed(), stored_with_descriptor(100)],
    ids=["descriptor", "prefix", "stored"],
)
def test_what_zipfile_reads_whole_passes(
    bridge: Bridge, d365: Simulator, events: Events, content: bytes
) -> None:
    """At once, where all of it is at hand."""
    package = d365.add_package(EXPORT_ID, content)
    assert export_packages(bridge) == Totals(1, 0)
    assert exported(bridge) == {f"vendors/{package.correlation_id}.zip": content}
    assert (events("package.unreadable"), d365.count("download")) == ([], 1)


def test_what_can_not_be_looked_into_on_its_way_is_read_back(
    bridge: Bridge, d365: Simulator, events: Events
) -> None:
    """A large one comes twice, and is then read from its blob: good, it bears no mark."""
    content = stored_with_descriptor(BLOCK)
    package = d365.add_package(EXPORT_ID, content)
    assert export_packages(bridge) == Totals(1, 0)
    name = f"vendors/{package.correlation_id}.zip"
    assert exported(bridge) == {name: content}
    blob = bridge.account.blobs.get_blob_client(EXPORTS, name)
    assert "unreadable" not in blob.get_blob_properties().metadata
    assert events("package.unreadable") == []


@pytest.mark.parametrize("size", [100, BLOCK])
def test_what_nobody_can_look_into_is_told(
    bridge: Bridge, d365: Simulator, events: Events, size: int
) -> None:
    """Its entry is not what its CRC says, and only reading it back shows that."""
    content = bytearray(stored_with_descriptor(size))
    content[150] ^= 0xFF
    package = d365.add_package(EXPORT_ID, bytes(content))
    assert export_packages(bridge) == Totals(1, 0)
    assert package.acknowledged == 1
    assert "CRC" in events("package.unreadable")[0]["error"]


# -- never twice ----------------------------------------------------------------------------------


def test_the_same_id_with_other_bytes_is_a_second_blob(bridge: Bridge, d365: Simulator) -> None:
    """E2: never an overwrite; and offered again, the second one is found too."""
    package = d365.add_package(EXPORT_ID, SMALL)
    export_packages(bridge)
    for _ in range(2):
        package.content = OTHER
        offer_again(package)
        assert export_packages(bridge) == Totals(1, 0)
    blobs = exported(bridge)
    assert sorted(blobs.values()) == sorted([SMALL, OTHER])
    assert blobs[f"vendors/{package.correlation_id}.zip"] == SMALL
    second = f"vendors/{package.correlation_id}.{package.sha256[:12]}.zip"
    assert blobs[second] == OTHER


@pytest.mark.parametrize("size", [0, BLOCK])
@pytest.mark.parametrize("id_", ["", "another id"])
def test_what_a_reader_has_taken_is_not_delivered_again(
    bridge: Bridge, d365: Simulator, size: int, id_: str
) -> None:
    """E7: its acknowledgement was lost; offered again, also under another id, it is only acknowledged."""
    package = d365.add_package(EXPORT_ID, with_more(SMALL, size))
    d365.add_fault("acknowledge", "answer", status=500, times=-1)
    assert export_packages(bridge) == Totals(0, 1)
    take_all(bridge)
    d365.faults.clear()
    offer_again(package)
    package.correlation_id = id_ or package.correlation_id
    assert export_packages(bridge) == Totals(1, 0)
    assert (exported(bridge), package.acknowledged) == ({}, 1)


def test_unzipped_files_that_a_reader_has_taken_are_not_delivered_again(
    unzipping: Bridge, d365: Simulator
) -> None:
    """E7: also where the package itself is still there."""
    package = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("acknowledge", "answer", status=500, times=-1)
    assert export_packages(unzipping) == Totals(0, 1)
    assert len(exported(unzipping)) == 4
    take_all(unzipping, packages=False)
    d365.faults.clear()
    offer_again(package)
    assert export_packages(unzipping) == Totals(1, 0)
    assert len(exported(unzipping)) == 1


def test_a_bare_file_with_the_same_bytes_is_a_file_of_its_own(
    bridge: Bridge, d365: Simulator
) -> None:
    """Two exports of data that has not changed: a zip says when it was made, a CSV does not."""
    for _ in range(2):
        d365.add_package(EXPORT_ID, b"1;2\r\n")
        assert export_packages(bridge) == Totals(1, 0)
    assert len(exported(bridge)) == 2


def test_a_bare_file_that_a_reader_has_taken_is_not_delivered_again_under_another_id(
    bridge: Bridge, d365: Simulator
) -> None:
    """E7: its acknowledgement was lost. The location is the same but for the id, so it is the same file."""
    package = d365.add_package(EXPORT_ID, b"1;2\r\n")
    d365.add_fault("acknowledge", "answer", status=500, times=-1)
    assert export_packages(bridge) == Totals(0, 1)
    take_all(bridge)
    d365.faults.clear()
    offer_again(package)
    package.correlation_id = "another id"
    assert export_packages(bridge) == Totals(1, 0)
    assert (exported(bridge), package.acknowledged) == ({}, 1)


@pytest.mark.parametrize("size", [0, BLOCK])
def test_a_package_that_differs_at_each_download_is_one_blob(
    bridge: Bridge, d365: Simulator, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is offered again."""
    seeds = iter(range(100))
    package = d365.add_package(EXPORT_ID, b"")
    monkeypatch.setattr(
        type(package), "chunks", lambda *_: iter([with_more(SMALL, size + 9, next(seeds))])
    )
    monkeypatch.setattr(type(package), "size", len(with_more(SMALL, size + 9)))
    for _ in range(3):
        offer_again(package)
        assert export_packages(bridge) == Totals(1, 0)
    assert list(exported(bridge)) == [f"vendors/{package.correlation_id}.zip"]


def lease(bridge: Bridge, name: str) -> BlobLeaseClient:
    return bridge.account.blobs.get_blob_client(EXPORTS, name).acquire_lease()


@pytest.mark.parametrize("size", [0, BLOCK])
@pytest.mark.parametrize("noted", [True, False])
def test_a_stored_package_whose_blob_is_leased_is_only_acknowledged(
    bridge: Bridge, d365: Simulator, size: int, noted: bool
) -> None:
    """No block can be staged for it, and none need be."""
    package = d365.add_package(EXPORT_ID, with_more(SMALL, size))
    d365.add_fault("acknowledge", "answer", status=500, times=-1)
    assert export_packages(bridge) == Totals(0, 1)
    if not noted:  # a crash
        container = bridge.account.blobs.get_container_client(DELIVERED)
        for name in container.list_blob_names():
            container.delete_blob(name)
    held = lease(bridge, f"vendors/{package.correlation_id}.zip")
    d365.faults.clear()
    offer_again(package)
    assert export_packages(bridge) == Totals(1, 0)
    assert (len(exported(bridge)), package.acknowledged) == (1, 1)
    held.break_lease(0)


# -- the acknowledgement --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 410])
def test_a_message_that_d365_does_not_have_any_more_needs_no_acknowledgement(
    bridge: Bridge, d365: Simulator, events: Events, status: int
) -> None:
    """It took the one before, whose answer was lost."""
    d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("acknowledge", "reset-after")
    d365.add_fault("acknowledge", "answer", status=status, times=-1)
    assert export_packages(bridge) == Totals(1, 0)
    (event,) = events("package.acknowledged")
    assert event["remark"] == ""


@pytest.mark.parametrize("status", [404, 410])
def test_an_acknowledgement_of_a_message_that_d365_does_not_know_is_told_as_one(
    bridge: Bridge, d365: Simulator, events: Events, status: int
) -> None:
    """Another run was faster, or the pop receipt has expired; offered again, it is only acknowledged."""
    package = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("acknowledge", "answer", status=status)
    assert export_packages(bridge) == Totals(1, 0)
    assert "its pop receipt has expired" in events("package.acknowledged")[0]["remark"]
    offer_again(package)
    assert export_packages(bridge) == Totals(1, 0)
    assert events("package.acknowledged")[1]["remark"] == ""
    assert (len(exported(bridge)), package.acknowledged) == (1, 1)


def test_a_message_offered_again_after_a_lost_acknowledgement_gives_one_blob(
    bridge: Bridge, d365: Simulator
) -> None:
    """E2: stored once, acknowledged at last."""
    package = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("acknowledge", "answer", status=500, times=-1)
    assert export_packages(bridge) == Totals(0, 1)
    assert len(exported(bridge)) == 1
    assert package.acknowledged == 0
    d365.faults.clear()
    d365.reoffer_seconds = 0
    assert export_packages(bridge) == Totals(1, 0)
    assert len(exported(bridge)) == 1
    assert package.acknowledged == 1


@pytest.mark.parametrize("do", ["reset", "reset-after", "answer-after"])
def test_an_acknowledgement_whose_answer_is_lost_is_sent_again(
    bridge: Bridge, d365: Simulator, do: str
) -> None:
    """Microsoft recommends it, and it does no harm: where D365 has taken the first one, the second gets 404."""
    package = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("acknowledge", do, status=504, body=GATEWAY_ERRORS["a page"])
    assert export_packages(bridge) == Totals(1, 0)
    assert (package.acknowledged, d365.count("acknowledge")) == (1, 2)


# -- blocks that a transfer leaves behind ---------------------------------------------------------


def uncommitted(bridge: Bridge, package: Package) -> set[str]:
    """The ids of the blocks."""
    blob = bridge.account.blobs.get_blob_client(EXPORTS, f"vendors/{package.correlation_id}.zip")
    return {block.id for block in blob.get_block_list("uncommitted")[1]}


def test_a_package_that_breaks_off_leaves_nothing_that_grows(
    bridge: Bridge, d365: Simulator, large: bytes
) -> None:
    """However often it is tried; and then it goes through."""
    d365.gives_ranges = False
    package = d365.add_package(EXPORT_ID, large)
    d365.add_fault("download", "truncate", bytes=2 * BLOCK + 5, times=-1)
    left: set[str] = set()
    for _ in range(2):
        offer_again(package)
        assert export_packages(bridge) == Totals(0, 1)
        ids = uncommitted(bridge, package)
        assert ids
        left |= ids
    # Each try has the same two; one that was under way when it broke off may be there or not.
    assert len(left) <= 2
    d365.faults.clear()
    offer_again(package)
    assert export_packages(bridge) == Totals(1, 0)
    assert list(exported(bridge).values()) == [large]


@pytest.mark.parametrize("content", ["zip", "csv"])
def test_a_large_download_goes_on_where_it_broke_off(
    bridge: Bridge, d365: Simulator, large: bytes, content: str
) -> None:
    """If D365 gives parts. A zip says whether they fit; a bare file is fetched again to see it."""
    data = large if content == "zip" else b"1;2\r\n" * (2 * BLOCK // 4)
    package = d365.add_package(EXPORT_ID, data)
    d365.add_fault("download", "truncate", bytes=BLOCK + 5)
    assert export_packages(bridge) == Totals(1, 0)
    assert list(exported(bridge).values()) == [data]
    ranges = [each.headers.get("Range") for each in d365.requests if each.operation == "download"]
    assert ranges == [None, f"bytes={BLOCK}-"] + [None] * (content == "csv")
    assert package.acknowledged == 1


def test_a_server_that_gives_no_parts_is_asked_for_all_of_it_again(
    bridge: Bridge, d365: Simulator, large: bytes
) -> None:
    """Nothing is known of `Range` in D365."""
    d365.gives_ranges = False
    d365.add_package(EXPORT_ID, large)
    d365.add_fault("download", "truncate", bytes=BLOCK + 5)
    assert export_packages(bridge) == Totals(1, 0)
    assert list(exported(bridge).values()) == [large]


@pytest.mark.parametrize("id_", ["short-id-of-22-letters", "x" * 60])
@pytest.mark.parametrize("size", [0, 2 * BLOCK])
def test_blocks_whose_ids_have_another_length_are_in_nobodys_way(
    bridge: Bridge, d365: Simulator, id_: str, size: int
) -> None:
    """Storage keeps what an earlier version left for a week, and takes no other length beside it."""
    package = d365.add_package(EXPORT_ID, with_more(SMALL, size))
    blob = bridge.account.blobs.get_blob_client(EXPORTS, f"vendors/{package.correlation_id}.zip")
    blob.stage_block(id_, b"left")
    assert export_packages(bridge) == Totals(1, 0)
    assert list(exported(bridge).values()) == [package.content]
