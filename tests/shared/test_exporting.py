"""Export: stored and whole, then acknowledged; never lost, never twice."""

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import IO, Any
from uuid import UUID

import pytest
from azure.storage.blob import BlobClient

from local import samples
from local.simulator import Package, Simulator
from shared import blobs, clock, exporting, jobs
from shared.blobs import DataAccount
from shared.bridge import Bridge
from shared.d365 import DequeuedMessage, Download
from shared.exporting import Totals
from shared.packages import Entry, entries
from shared.settings import EXPORT_PARALLELISM
from shared.transfer import BLOCK
from tests.conftest import EXPORT_ID, contents

type Events = Callable[[str], list[dict[str, Any]]]

SMALL = samples.package("small", [samples.Part(samples.VENDORS, 5)])
OTHER = samples.package("other", [samples.Part(samples.VENDORS, 6)])


@pytest.fixture(scope="module")
def large() -> bytes:
    """A package of several blocks."""
    buffer = io.BytesIO(SMALL)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("Large.csv", random.Random(1).randbytes(2 * BLOCK + 99))
    return buffer.getvalue()


def exported(account: DataAccount) -> dict[str, bytes]:
    return contents(account, blobs.EXPORTS)


def test_every_package_of_the_queue_is_stored_and_acknowledged(
    bridge: Bridge, d365: Simulator, large: bytes
) -> None:
    """Until the queue is empty; the acknowledgement is the answer as it came (E5)."""
    packages = [d365.add_package(EXPORT_ID, content) for content in (SMALL, large, OTHER)]
    assert exporting.export_packages(bridge) == Totals(3, 0)
    assert exported(bridge.account) == {
        f"vendors/{package.correlation_id}.zip": package.content for package in packages
    }
    for package in packages:
        assert package.acknowledgements == [{"asItCame": True, "receipt": package.pop_receipt}]


def test_an_empty_queue_costs_one_request(bridge: Bridge, d365: Simulator) -> None:
    """Most runs find nothing."""
    assert exporting.export_packages(bridge) == Totals()
    assert [request.operation for request in d365.requests if request.operation != "token"] == [
        "dequeue"
    ]


@pytest.mark.parametrize(
    "body",
    ["", "{}", "null", '""', "[]", '{"DownloadLocation": null}', '{"CorrelationId": "x"}'],
)
def test_an_answer_without_a_location_is_an_empty_queue(
    bridge: Bridge, d365: Simulator, body: str
) -> None:
    """How D365 says so is not documented, so every sane way is taken."""
    d365.add_fault("dequeue", "answer", status=200, body=body)
    assert exporting.export_packages(bridge) == Totals()


@pytest.mark.parametrize("why", ["Deadlock.", None])
def test_a_message_without_a_package_is_told_and_the_others_go_on(
    bridge: Bridge, d365: Simulator, events: Events, why: str | None
) -> None:
    """D365 could make no file: that is no empty queue."""
    offer = {"CorrelationId": "x", "PopReceipt": "p", "DownloadLocation": ""}
    body = json.dumps({**offer, "FileDownLoadErrorMessage": why})
    d365.add_fault("dequeue", "answer", status=200, body=body)
    d365.add_package(EXPORT_ID, SMALL)
    assert exporting.export_packages(bridge) == Totals(1, 1)
    (told,) = events("package.failed")
    assert told["correlationId"] == "x"
    assert "without a package" in told["error"]
    assert (why or "does not say why") in told["error"]


def test_a_message_offered_again_after_a_lost_acknowledgement_gives_one_blob(
    bridge: Bridge, d365: Simulator
) -> None:
    """E2: stored once, acknowledged at last."""
    package = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("acknowledge", "answer", status=500, times=-1)
    assert exporting.export_packages(bridge) == Totals(0, 1)
    assert len(exported(bridge.account)) == 1
    assert package.acknowledged == 0
    d365.faults.clear()
    d365.reoffer_seconds = 0
    assert exporting.export_packages(bridge) == Totals(1, 0)
    assert len(exported(bridge.account)) == 1
    assert package.acknowledged == 1


def test_an_acknowledgement_whose_answer_is_lost_is_sent_again(
    bridge: Bridge, d365: Simulator
) -> None:
    """Microsoft recommends it, and it does no harm."""
    package = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("acknowledge", "reset")
    assert exporting.export_packages(bridge) == Totals(1, 0)
    assert package.acknowledged == 1


def test_the_same_id_with_other_bytes_is_a_second_blob(bridge: Bridge, d365: Simulator) -> None:
    """E2: never an overwrite; and offered again, the second one is found too."""
    package = d365.add_package(EXPORT_ID, SMALL)
    exporting.export_packages(bridge)
    for _ in range(2):
        package.content, package.acknowledged, package.offered = OTHER, 0, 0
        assert exporting.export_packages(bridge) == Totals(1, 0)
    found = exported(bridge.account)
    assert sorted(found.values()) == sorted([SMALL, OTHER])
    assert found[f"vendors/{package.correlation_id}.zip"] == SMALL


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
    assert exporting.export_packages(bridge) == Totals(1, 0)
    assert exported(bridge.account) == {f"vendors/{package.correlation_id}.zip": SMALL}


@pytest.mark.parametrize(
    ("do", "options", "says"),
    [
        ("truncate", {"bytes": 100}, "broke off"),
        ("truncate-silently", {"bytes": 100}, "package"),
        ("corrupt", {"bytes": 200}, "package"),
        ("longer", {}, "broke off"),
        ("answer", {"status": 404}, "404"),
        ("answer", {"status": 200, "body": "<html>Sign in</html>"}, "zip"),
        ("answer", {"status": 200, "body": ""}, "empty"),
    ],
)
def test_a_package_that_is_not_whole_is_never_acknowledged(
    bridge: Bridge,
    d365: Simulator,
    events: Events,
    do: str,
    options: dict[str, Any],
    says: str,
) -> None:
    """E1, E3: nothing is stored, the failure is told, the next package is served all the same."""
    bad = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", do, times=3, path=bad.correlation_id, **options)
    good = d365.add_package(EXPORT_ID, OTHER)
    if do == "answer" and options["status"] == 404:
        d365.faults[0].times = 1  # not tried again
    assert exporting.export_packages(bridge) == Totals(1, 1)
    assert exported(bridge.account) == {f"vendors/{good.correlation_id}.zip": OTHER}
    assert (bad.acknowledged, good.acknowledged) == (0, 1)
    (failed,) = events("package.failed")
    assert failed["correlationId"] == bad.correlation_id
    assert says in failed["error"]
    assert "not acknowledged" in failed["error"]


def test_a_package_that_fails_keeps_none_of_its_queue_waiting(
    bridge: Bridge, d365: Simulator
) -> None:
    """E3: however many stand behind it."""
    bad = d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", "answer", status=404, path=bad.correlation_id)
    good = [d365.add_package(EXPORT_ID, OTHER) for _ in range(3 * EXPORT_PARALLELISM)]
    d365.latency["download"] = 0.05
    assert exporting.export_packages(bridge) == Totals(len(good), 1)
    assert [package.acknowledged for package in (bad, *good)] == [0] + [1] * len(good)


def test_a_package_of_another_length_than_announced_is_never_acknowledged(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E1, even if the HTTP library let it pass: a whole zip, and yet not what D365 said."""
    offered = d365.add_package(EXPORT_ID, SMALL)
    monkeypatch.setattr("shared.d365.client.announced_length", lambda _: len(SMALL) + 1)
    assert exporting.export_packages(bridge) == Totals(0, 1)
    assert (exported(bridge.account), offered.acknowledged) == ({}, 0)


@pytest.mark.parametrize("do", ["gzip", "chunked"])
def test_other_transfer_forms_are_taken(bridge: Bridge, d365: Simulator, do: str) -> None:
    """A compressed answer is decoded; one without a length is checked by its zip."""
    d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", do)
    assert exporting.export_packages(bridge) == Totals(1, 0)
    assert list(exported(bridge.account).values()) == [SMALL]


def test_a_location_on_plain_http_is_asked_at_d365s_own_address(
    bridge: Bridge, d365: Simulator
) -> None:
    """Behind a load balancer D365 gives http and another port."""
    location = "http://127.0.0.1:1/api/connector/download/{activity}/{correlation}"
    d365.add_package(EXPORT_ID, SMALL, location=location)
    assert exporting.export_packages(bridge) == Totals(1, 0)


def test_a_relative_location_is_d365s_own(bridge: Bridge, d365: Simulator) -> None:
    """Sane, though never seen."""
    location = "/api/connector/download/{activity}/{correlation}"
    d365.add_package(EXPORT_ID, SMALL, location=location)
    assert exporting.export_packages(bridge) == Totals(1, 0)


@pytest.mark.parametrize("location", ["http://other.example/p", "ftp://127.0.0.1/p", "https://[x/"])
def test_a_location_that_may_not_be_fetched_is_told(
    bridge: Bridge, d365: Simulator, events: Events, location: str
) -> None:
    """Only https elsewhere."""
    d365.add_package(EXPORT_ID, SMALL, location=location)
    assert exporting.export_packages(bridge) == Totals(0, 1)
    assert "download location" in events("package.failed")[0]["error"]


def test_an_unknown_activity_id_is_told_and_other_jobs_go_on(
    d365: Simulator, bridge: Bridge, events: Events
) -> None:
    """404: the message says where the id comes from."""
    d365.export_jobs.clear()
    assert exporting.export_packages(bridge) == Totals(0, 1)
    (failed,) = events("export.failed")
    assert "404" in failed["error"]
    assert "activity id" in failed["error"]


def test_an_unregistered_application_is_told_what_to_do(
    d365: Simulator, bridge: Bridge, events: Events
) -> None:
    """403: the step to take, in D365's own words."""
    d365.registered = False
    assert exporting.export_packages(bridge) == Totals(0, 1)
    assert "Microsoft Entra applications" in events("export.failed")[0]["error"]
    assert events("d365.denied")


def test_a_revoked_token_is_renewed_once(d365: Simulator, bridge: Bridge) -> None:
    """A2: a 401 costs one more token, not the run."""
    exporting.export_packages(bridge)
    d365.revoke_tokens()
    d365.add_package(EXPORT_ID, SMALL)
    assert exporting.export_packages(bridge) == Totals(1, 0)
    assert d365.count("token") == 2


def test_a_message_that_fails_and_comes_again_at_once_does_not_turn_in_a_circle(
    d365: Simulator, bridge: Bridge
) -> None:
    """Once a run."""
    d365.reoffer_seconds = 0
    d365.add_package(EXPORT_ID, b"not a zip")
    assert exporting.export_packages(bridge) == Totals(0, 1)
    assert d365.count("download") == exporting.DOWNLOADS


def test_two_runs_at_once_give_one_blob_each(bridge: Bridge, d365: Simulator, large: bytes) -> None:
    """The same message to both: one blob; the acknowledgement that comes late is D365's to refuse."""
    d365.reoffer_seconds = 0
    d365.strict_receipts = False
    d365.latency["download"] = 0.2
    package = d365.add_package(EXPORT_ID, large)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: exporting.export_packages(bridge), range(2)))
    assert exported(bridge.account) == {f"vendors/{package.correlation_id}.zip": large}
    assert package.acknowledged >= 1


def test_no_message_is_taken_when_the_time_is_up(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E6: what is left waits for the next run, unhidden."""
    packages = [d365.add_package(EXPORT_ID, SMALL) for _ in range(3)]
    elapsed = iter(range(0, 100_000, 400))
    monkeypatch.setattr(clock, "monotonic", lambda: float(next(elapsed)))
    exporting.export_packages(bridge)
    assert sum(package.offered for package in packages) < 3


def test_a_download_that_outlasts_the_run_is_given_up(
    bridge: Bridge, d365: Simulator, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host would end the run; we end it first, in good order."""
    package = d365.add_package(EXPORT_ID, large)
    monotonic, download = clock.monotonic, bridge.d365.download

    def slow(message: DequeuedMessage) -> AbstractContextManager[Download]:
        monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + 29 * 60)
        return download(message)

    monkeypatch.setattr(bridge.d365, "download", slow)
    assert exporting.export_packages(bridge) == Totals(0, 1)
    assert package.acknowledged == 0
    assert exported(bridge.account) == {}


def test_a_download_that_drips_is_given_up(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E6: no read waits for a whole block of it; the time is looked at after each piece."""
    monkeypatch.setattr(exporting, "PIECE", 1024)
    package = d365.add_package(EXPORT_ID, SMALL)
    now, download = clock.monotonic, bridge.d365.download
    asked: list[int] = []

    @contextmanager
    def dripping(message: DequeuedMessage) -> Iterator[Download]:
        with download(message) as found:

            def read(size: int) -> bytes:
                asked.append(size)
                passed = 300.0 * len(asked)
                monkeypatch.setattr(clock, "monotonic", lambda: now() + passed)
                return found.read(size)[:1]  # and the rest is lost; it is never missed

            yield Download(read, found.length)

    monkeypatch.setattr(bridge.d365, "download", dripping)
    assert exporting.export_packages(bridge) == Totals(0, 1)
    assert (package.acknowledged, exported(bridge.account)) == (0, {})
    assert max(asked) <= 1024
    assert len(asked) < 8


def test_unzip_writes_the_files_beside_the_package(
    d365: Simulator, account: DataAccount, bridge: Bridge
) -> None:
    """And only then is the package acknowledged; again gives the same."""
    raw = {"exports": [{"name": "vendors", "activityId": EXPORT_ID, "unzip": True}]}
    settings = bridge.settings
    object.__setattr__(settings, "jobs", jobs.parse(json.dumps(raw).encode()))
    package = d365.add_package(EXPORT_ID, SMALL)
    assert exporting.export_packages(bridge) == Totals(1, 0)
    folder = f"vendors/{package.correlation_id}"
    first = exported(account)
    assert {f"{folder}.zip", f"{folder}/Manifest.xml", f"{folder}/PackageHeader.xml"} < set(first)
    package.acknowledged = package.offered = 0
    assert exporting.export_packages(bridge) == Totals(1, 0)
    assert exported(account) == first


@pytest.fixture
def unzipping(bridge: Bridge) -> Bridge:
    """A bridge whose job unzips, one package after the other."""
    raw = {"exports": [{"name": "vendors", "activityId": EXPORT_ID, "unzip": True}]}
    whole = replace(
        bridge.settings, jobs=jobs.parse(json.dumps(raw).encode()), export_parallelism=1
    )
    return replace(bridge, settings=whole)


def a_file_of(bridge: Bridge, package: Package) -> BlobClient:
    name = f"vendors/{package.correlation_id}/Manifest.xml"
    return bridge.account.blobs.get_blob_client(blobs.EXPORTS, name)


def test_who_takes_a_file_may_mark_it(unzipping: Bridge, d365: Simulator) -> None:
    """With metadata in the place of ours; it is the same file when the package comes again."""
    package = d365.add_package(EXPORT_ID, SMALL)
    exporting.export_packages(unzipping)
    stored = unzipping.account.blobs.get_blob_client(
        blobs.EXPORTS, f"vendors/{package.correlation_id}.zip"
    )
    for blob in (a_file_of(unzipping, package), stored):
        blob.set_blob_metadata({"taken": "yes"})
    package.acknowledged = package.offered = 0
    before = set(exported(unzipping.account))
    assert exporting.export_packages(unzipping) == Totals(1, 0)
    assert set(exported(unzipping.account)) == before


def test_a_changed_file_is_kept_and_told_and_the_queue_goes_on(
    unzipping: Bridge, d365: Simulator, events: Events
) -> None:
    """It is somebody else's now."""
    package = d365.add_package(EXPORT_ID, SMALL)
    exporting.export_packages(unzipping)
    a_file_of(unzipping, package).upload_blob(b"changed", overwrite=True)
    package.acknowledged = package.offered = 0
    d365.add_package(EXPORT_ID, OTHER)
    assert exporting.export_packages(unzipping) == Totals(1, 1)
    assert "with other content" in events("package.failed")[0]["error"]
    assert a_file_of(unzipping, package).download_blob().readall() == b"changed"


def test_unzipping_that_outlasts_the_run_is_given_up(
    unzipping: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is stored, and comes again."""
    package = d365.add_package(EXPORT_ID, SMALL)
    monotonic = clock.monotonic

    def slow(file: IO[bytes]) -> Iterator[Entry]:
        monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + 29 * 60)
        return entries(file)

    monkeypatch.setattr("shared.exporting.entries", slow)
    assert exporting.export_packages(unzipping) == Totals(0, 1)
    assert package.acknowledged == 0
    assert set(exported(unzipping.account)) == {f"vendors/{package.correlation_id}.zip"}


def test_a_download_waits_as_long_as_d365_asks(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A2: and a longer wait than a run has is left to the next one."""
    slept: list[float] = []
    monkeypatch.setattr(clock, "sleep", slept.append)
    d365.add_package(EXPORT_ID, SMALL)
    d365.add_fault("download", "answer", status=429, headers={"Retry-After": "20"})
    assert exporting.export_packages(bridge) == Totals(1, 0)
    assert slept[0] == 20
    slept.clear()
    d365.add_package(EXPORT_ID, OTHER)
    d365.add_fault("download", "answer", status=429, headers={"Retry-After": "600"}, times=-1)
    before = d365.count("download")
    assert exporting.export_packages(bridge) == Totals(0, 1)
    assert d365.count("download") == before + 1


def test_each_line_of_a_queue_names_its_job(
    bridge: Bridge, d365: Simulator, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing but asking it failed."""
    monkeypatch.setattr(clock, "sleep", lambda _: None)
    d365.add_fault("dequeue", "answer", status=429)
    exporting.export_packages(bridge)
    assert [line["job"] for line in events("d365.retry")] == ["vendors"]


def test_a_paused_job_is_not_asked(d365: Simulator, bridge: Bridge) -> None:
    """`enabled: false`."""
    raw = {"exports": [{"name": "vendors", "activityId": EXPORT_ID, "enabled": False}]}
    object.__setattr__(bridge.settings, "jobs", jobs.parse(json.dumps(raw).encode()))
    d365.add_package(EXPORT_ID, SMALL)
    assert exporting.export_packages(bridge) == Totals()
    assert d365.count("dequeue") == 0


@pytest.mark.parametrize("at_once", [1, 8])
def test_a_long_queue_uses_all_turns_and_keeps_no_job_waiting(
    d365: Simulator, bridge: Bridge, at_once: int
) -> None:
    """Twelve packages of one job and one of another, three requests each, and the end of each queue seen."""
    other = str(UUID(int=5))
    raw = {
        "exports": [
            {"name": "many", "activityId": EXPORT_ID},
            {"name": "one", "activityId": other},
        ]
    }
    object.__setattr__(bridge.settings, "jobs", jobs.parse(json.dumps(raw).encode()))
    object.__setattr__(bridge.settings, "export_parallelism", at_once)
    d365.latency["*"] = 0.02
    packages = [d365.add_package(EXPORT_ID, SMALL) for _ in range(12)]
    last = d365.add_package(other, OTHER)
    assert exporting.export_packages(bridge) == Totals(13, 0)
    assert all(package.acknowledged == 1 for package in [*packages, last])
    if at_once == 1:  # more at once overtake one another as the machine has it
        order = [r.path.rsplit("/", 1)[-1] for r in d365.requests if r.operation == "dequeue"]
        assert order[:4] == [EXPORT_ID, other, EXPORT_ID, other]
    empty = d365.count("dequeue") - 13
    assert 2 <= empty <= 2 + at_once


def test_what_nobody_expected_ends_the_job_and_not_the_run(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    """A mistake of ours is reported like any other failure."""
    d365.add_package(EXPORT_ID, SMALL)
    monkeypatch.setattr(exporting, "_store", lambda *_: 1 / 0)
    assert exporting.export_packages(bridge) == Totals(0, 1)
    assert events("export.failed")[0]["error"] == "division by zero"


def test_what_is_reported_belongs_to_its_invocation(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker knows by the context which invocation a log line is of: the run's threads carry it."""
    invocation: ContextVar[str] = ContextVar("invocation")
    invocation.set("this one")
    seen: list[str | None] = []
    monkeypatch.setattr(exporting, "report", lambda *_, **__: seen.append(invocation.get(None)))
    for _ in range(3):
        d365.add_package(EXPORT_ID, SMALL)
    exporting.export_packages(bridge)
    assert len(seen) == 7
    assert set(seen) == {"this one"}
