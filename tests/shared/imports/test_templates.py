"""Templates: a bare file arrives in D365 as a data package, its bytes as they were, once."""

import contextlib
import hashlib
import io
import random
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import samples
from local.samples import Part
from local.simulator import Simulator
from shared.bridge import Bridge
from shared.imports import intake, reconciliation, templates
from shared.imports.templates import InvalidTemplate
from shared.operations import health
from shared.packages import PackageCheck
from shared.storage.account import PROCESSING, SUCCEEDED, TEMPLATES, DataAccount
from tests.helpers import (
    Events,
    Later,
    client_of,
    contents,
    drop,
    make_bridge,
    only,
    report,
    try_on,
    work_queue,
)

NAME = "vendors.zip"
VENDORS = Part(samples.VENDORS, 3)
TEMPLATE = samples.package("Vendors", [VENDORS])
"""As D365 gives it, the sample of the entity's file included."""
TWO = samples.package("Both", [VENDORS, Part(samples.RELEASED_PRODUCTS, 2, "xml")])


def put(account: DataAccount, data: bytes = TEMPLATE, name: str = NAME) -> None:
    """Put a template where a job finds it."""
    account.blobs.get_blob_client(TEMPLATES, name).upload_blob(data, overwrite=True)


@pytest.fixture
def sent(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every body that was given to be sent, whole."""
    bodies: list[bytes] = []
    enqueue = type(client_of(bridge)).enqueue

    def spy(
        self: Any, activity_id: str, body: Callable[[], Iterator[bytes]], *a: Any, **k: Any
    ) -> Any:
        bodies.append(b"".join(body()))
        return enqueue(self, activity_id, body, *a, **k)

    monkeypatch.setattr(type(client_of(bridge)), "enqueue", spy)
    return bodies


def unpacked(package: bytes) -> dict[str, bytes]:
    """The files of a package, which is whole."""
    check = PackageCheck()
    check.feed(package)
    check.finish()
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bare_file_is_sent_in_a_package(
    bridge: Bridge, d365: Simulator, account: DataAccount, sent: list[bytes]
) -> None:
    """It takes the sample's place; the rest is the template's; no entity is named; it ends as any file does."""
    bridge = make_bridge(d365, account, template=NAME, entity=None)
    put(account)
    data = samples.VENDORS.csv(50)
    intake.import_file(bridge, drop(account, "journals/USMF/new.csv", data))
    (package,) = sent
    template = unpacked(TEMPLATE)
    assert unpacked(package) == {**template, VENDORS.file_name: data}
    (received,) = d365.received
    assert (received.entity, received.company) == (None, "USMF")
    assert received.sha256 == hashlib.sha256(package).hexdigest()
    assert received.headers["Content-Length"] == str(len(package))
    work_queue(bridge)
    file = only(account, SUCCEEDED)
    assert contents(account, SUCCEEDED)[file.name] == data
    assert file.record.sha256 == hashlib.sha256(data).hexdigest()


def test_a_package_is_sent_as_it_is(
    bridge: Bridge, d365: Simulator, account: DataAccount, sent: list[bytes]
) -> None:
    """Also where the job has a template, and where there is none in the container."""
    bridge = make_bridge(d365, account, template=NAME)
    intake.import_file(bridge, drop(account, "journals/new.zip", TEMPLATE))
    assert sent == [TEMPLATE]
    assert d365.received[0].entity is None


def test_the_jobs_entity_says_whose_place_it_is(
    bridge: Bridge, d365: Simulator, account: DataAccount, sent: list[bytes]
) -> None:
    """Where the template has several; the others' files stay."""
    bridge = make_bridge(d365, account, template=NAME, entity=samples.RELEASED_PRODUCTS.name)
    put(account, TWO)
    intake.import_file(bridge, drop(account, "journals/new.xml", b"<Document/>"))
    assert unpacked(sent[0]) == {**unpacked(TWO), "Released products V2.xml": b"<Document/>"}
    assert d365.received[0].entity is None


def test_a_large_file_is_sent_again_from_its_first_byte(
    bridge: Bridge, d365: Simulator, account: DataAccount, sent: list[bytes]
) -> None:
    """Larger than what is kept in memory, and D365 wants it twice: both times the same package."""
    bridge = make_bridge(d365, account, template=NAME, entity=None)
    put(account)
    data = random.Random(1).randbytes(9 * 1024 * 1024)
    d365.add_fault("enqueue", "answer", status=429, headers={"Retry-After": "1"})
    intake.import_file(bridge, drop(account, "journals/large.csv", data))
    work_queue(bridge)
    (received,) = d365.received
    assert d365.count("enqueue") == 2
    assert sent[0] == sent[1]
    assert received.sha256 == hashlib.sha256(sent[0]).hexdigest()
    assert unpacked(sent[0])[VENDORS.file_name] == data


@pytest.mark.parametrize("first", [None, b"no zip"], ids=["missing", "broken"])
def test_a_file_waits_for_its_template(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    later: Later,
    events: Events,
    first: bytes | None,
) -> None:
    """It is the set-up's fault: once mended, the file goes by itself. In between nothing was sent."""
    bridge = make_bridge(d365, account, template=NAME, entity=None)
    if first:
        put(account, first)
    intake.import_file(bridge, drop(account, "journals/new.csv"))
    waiting = only(account, PROCESSING)
    assert waiting.record.state == "claimed"
    assert waiting.record.attempts == 1
    assert NAME in events("file.waiting")[0]["reason"]
    assert not d365.count("enqueue")
    put(account)
    later(timedelta(hours=1))
    reconciliation.reconcile(bridge)
    work_queue(bridge)
    assert len(d365.received) == 1
    assert len(contents(account, SUCCEEDED)) == 1


@pytest.mark.parametrize(
    ("data", "verdict", "text"),
    [
        (None, "wrong", f"there is no {NAME}"),
        (b"no zip", "wrong", "is no zip"),
        (TEMPLATE, "ok", VENDORS.file_name),
    ],
    ids=["missing", "broken", "sound"],
)
def test_the_check_reads_a_template_before_the_first_file_does(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    data: bytes | None,
    verdict: str,
    text: str,
) -> None:
    """A set-up's mistake is seen before a file waits for it."""
    bridge = make_bridge(d365, account, template=NAME, entity=None)
    if data:
        put(account, data)
    lines = {line.what: line for line in health.check(bridge, event_seconds=0)}
    line = lines["template of journals"]
    assert line.verdict == verdict
    assert text in line.text


def test_waiting_for_a_template_has_an_end(
    bridge: Bridge, d365: Simulator, account: DataAccount, later: Later
) -> None:
    """After a day the file has failed, and its report says what is missing where."""
    bridge = make_bridge(d365, account, template=NAME, entity=None)
    intake.import_file(bridge, drop(account, "journals/new.csv"))
    try_on(bridge, later, timedelta(hours=28), timedelta(minutes=20))
    error_report = report(account)
    assert error_report["reason"] == "no-template"
    assert f"there is no {NAME} in the container templates" in error_report["error"]


def test_an_answer_that_is_lost_holds_the_file(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """A package is no safer to send twice than a file."""
    bridge = make_bridge(d365, account, template=NAME, entity=None)
    put(account)
    d365.add_fault("enqueue", "reset-after")
    intake.import_file(bridge, drop(account, "journals/new.csv"))
    work_queue(bridge)
    assert report(account)["outcome"] == "held"
    assert len(d365.received) == 1


def test_a_file_too_large_to_wrap_is_refused_at_once(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary disk is not without end."""
    monkeypatch.setattr(templates, "LARGEST_FILE", 4)
    bridge = make_bridge(d365, account, template=NAME, entity=None)
    intake.import_file(bridge, drop(account, "journals/new.csv", b"12345"))
    assert report(account)["reason"] == "too-large"


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip of these files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


HEADER = {"PackageHeader.xml": b"<x/>"}


def manifest(path: str) -> bytes:
    """A manifest with one entity."""
    return f"<m><e><EntityName>A</EntityName><InputFilePath>{path}</InputFilePath></e></m>".encode()


@pytest.mark.parametrize(
    ("data", "entity", "says"),
    [
        (b"", None, "no zip"),
        (TEMPLATE[:-9], None, "no zip"),
        (zipped(HEADER), None, "no manifest.xml"),
        (zipped({"Manifest.xml": manifest("a.csv")}), None, "no packageheader.xml"),
        (zipped({**HEADER, "Manifest.xml": b"<a"}), None, "not XML"),
        (zipped({**HEADER, "Manifest.xml": b"<!DOCTYPE a><a/>"}), None, "document type"),
        (zipped({**HEADER, "Manifest.xml": b"<a/>"}), None, "none; give the job its entity"),
        (zipped({**HEADER, "Manifest.xml": manifest("../a.csv")}), None, "in a folder"),
        (zipped({**HEADER, "Manifest.xml": manifest("C:\\a.csv")}), None, "in a folder"),
        (TWO, None, "Vendors V2, Released products V2; give the job its entity"),
        (TWO, "Customers", "the job's entity is Customers"),
        (TEMPLATE, "Customers", "the job's entity is Customers"),
        (
            zipped({**HEADER, "Manifest.xml": manifest("a"), "b": bytes(templates.LARGEST)}),
            None,
            "more",
        ),
    ],
)
def test_a_wrong_template_says_what_is_wrong(data: bytes, entity: str | None, says: str) -> None:
    """In words that name it."""
    with pytest.raises(InvalidTemplate, match=says) as failed:
        templates.read(NAME, data, entity)
    assert NAME in str(failed.value)


def test_the_names_of_a_template_are_found_in_any_case() -> None:
    """D365 runs on Windows; and a large sample does no harm, for it is left out."""
    files = {"MANIFEST.XML": manifest("a.csv"), "packageheader.xml": b"<x/>"}
    data = zipped({**files, "A.CSV": bytes(templates.LARGEST + 1)})
    assert templates.read(NAME, data, None) == templates.Template("a.csv", tuple(files.items()))


@given(st.lists(st.binary(max_size=4000), max_size=5))
def test_any_bytes_come_through_and_give_one_package(chunks: list[bytes]) -> None:
    """The same file and template give the same bytes, however the file is read."""
    template = templates.read(NAME, TEMPLATE, None)
    data = b"".join(chunks)
    packages = []
    for parts in (chunks, [data]):
        package = io.BytesIO()
        templates.wrap(template, parts, len(data), package)
        packages.append(package.getvalue())
    assert unpacked(packages[0])[VENDORS.file_name] == data
    assert unpacked(packages[1]) == unpacked(packages[0])
    again = io.BytesIO()
    templates.wrap(template, chunks, len(data), again)
    assert again.getvalue() == packages[0]


@given(st.binary(max_size=400) | st.integers(0, len(TEMPLATE)).map(lambda cut: TEMPLATE[:cut]))
def test_any_bytes_are_a_template_or_none(data: bytes) -> None:
    """Whatever was put there, the answer is a sentence."""
    for each in (data, zipped({**HEADER, "Manifest.xml": data})):
        with contextlib.suppress(InvalidTemplate):
            assert templates.read(NAME, each, None).path
