"""The demo's audit finds what is wrong: it would see a loss, a repeat, a change."""

import hashlib
import json
from collections.abc import Callable, Iterator

import pytest
from azure.storage.blob import BlobServiceClient

from local.audit import Drop, Findings, Package, Received, audit
from local.azurite import running_azurite
from local.containers import provision


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


PACKAGE = Package("out", "c1", _hash(b"zip"), 1, {"a.csv": _hash(b"a")})
PROJECT = Package("list", "list-1", _hash(b"project"), None)
GOOD = Drop("in/good.csv", _hash(b"good"), "Vendors V2", "USMF", "succeeded")
BAD = Drop("in/bad.csv", _hash(b"bad"), None, None, "failed", complaint="not balance")
RECEIVED = [Received(_hash(b"good"), "Vendors V2", "USMF"), Received(_hash(b"bad"), None, None)]


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with running_azurite() as azurite:
        yield azurite.connection_string


@pytest.fixture
def blobs(emulator: str) -> Iterator[BlobServiceClient]:
    """Storage in which all is as it should be."""
    provision(emulator)
    with BlobServiceClient.from_connection_string(emulator) as service:

        def put(container: str, name: str, content: bytes, **metadata: str) -> None:
            client = service.get_blob_client(container, name)
            client.upload_blob(content, overwrite=True, metadata=metadata)

        put("exports", "out/c1.zip", b"zip")
        put("exports", "out/c1/a.csv", b"a")
        put("exports", "list/list-1.zip", b"project")
        put("imports-succeeded", "in/good.1.csv", b"good", state="succeeded", source=GOOD.path)
        put("imports-failed", "in/bad.1.csv", b"bad", state="failed", source=BAD.path)
        report = json.dumps({"errors": ["it does not balance"]}).encode()
        put("imports-failed", "in/bad.1.csv.error.json", report)
        yield service
        for container in service.list_containers():
            client = service.get_container_client(container.name)
            for blob in client.list_blob_names():
                client.delete_blob(blob)


def _audit(emulator: str) -> Findings:
    return audit(emulator, [PACKAGE, PROJECT], [GOOD, BAD], RECEIVED)


def test_all_as_it_should_be(emulator: str, blobs: BlobServiceClient) -> None:
    """Nothing to complain of, and every hash was compared."""
    findings = _audit(emulator)

    assert findings.problems == []
    assert (findings.exported, findings.acknowledged, findings.projects) == (1, 1, 1)
    assert (findings.succeeded, findings.failed) == (1, 1)
    assert (findings.compared, findings.equal) == (7, 7)
    assert (findings.lost, findings.twice) == (0, 0)


type Damage = Callable[[BlobServiceClient], object]

DAMAGES: dict[str, tuple[Damage, str]] = {
    "package lost": (
        lambda b: b.get_blob_client("exports", "out/c1.zip").delete_blob(),
        "exports/out/c1.zip: missing",
    ),
    "package of a data project lost": (
        lambda b: b.get_blob_client("exports", "list/list-1.zip").delete_blob(),
        "exports/list/list-1.zip: missing",
    ),
    "package stored twice": (
        lambda b: b.get_blob_client("exports", "out/c1-2.zip").upload_blob(b"zip"),
        "exports/out/c1-2.zip: no package of that name was offered",
    ),
    "package changed": (
        lambda b: b.get_blob_client("exports", "out/c1.zip").upload_blob(b"zap", overwrite=True),
        "exports/out/c1.zip: SHA-256 is",
    ),
    "file lost": (
        lambda b: b.get_blob_client("imports-succeeded", "in/good.1.csv").delete_blob(),
        "file in/good.csv: missing",
    ),
    "file twice": (
        lambda b: b.get_blob_client("imports-processing", "in/good.1.csv").upload_blob(
            b"good", metadata={"state": "sent", "source": GOOD.path}
        ),
        "file in/good.csv: there 2 times",
    ),
    "file changed": (
        lambda b: b.get_blob_client("imports-succeeded", "in/good.1.csv").upload_blob(
            b"gold", overwrite=True, metadata={"state": "succeeded", "source": GOOD.path}
        ),
        "imports-succeeded/in/good.1.csv: SHA-256 is",
    ),
    "file in the wrong container": (
        lambda b: b.get_blob_client("imports-failed", "in/good.2.csv").upload_blob(
            b"good", metadata={"state": "failed", "source": GOOD.path}
        ),
        "in/good.csv: is in imports-failed as failed, and should be in imports-succeeded",
    ),
    "file left where it was dropped": (
        lambda b: b.get_blob_client("imports", "in/other.csv").upload_blob(b"other"),
        "imports/in/other.csv: still where it was dropped",
    ),
    "report missing": (
        lambda b: b.get_blob_client("imports-failed", "in/bad.1.csv.error.json").delete_blob(),
        "imports-failed/in/bad.1.csv: has no .error.json beside it",
    ),
    "report without D365's errors": (
        lambda b: b.get_blob_client("imports-failed", "in/bad.1.csv.error.json").upload_blob(
            b"{}", overwrite=True
        ),
        "does not say 'not balance'",
    ),
    "report beside no file": (
        lambda b: b.get_blob_client("imports-failed", "in/x.csv.error.json").upload_blob(b"{}"),
        "imports-failed/in/x.csv.error.json: stands beside no file",
    ),
}


@pytest.mark.parametrize(("damage", "complaint"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_in_storage_is_found(
    emulator: str, blobs: BlobServiceClient, damage: Damage, complaint: str
) -> None:
    """Each damage to storage gives a sentence that names the blob."""
    damage(blobs)

    assert complaint in "\n".join(_audit(emulator).problems)


@pytest.mark.parametrize(
    ("received", "complaint"),
    [
        (RECEIVED[1:], "in/good.csv at D365: missing"),
        ([*RECEIVED, RECEIVED[0]], "in/good.csv at D365: there 2 times"),
        ([*RECEIVED, Received(_hash(b"?"), None, None)], "which nobody dropped"),
        (
            [Received(_hash(b"good"), "Vendors V2", "DEMF"), RECEIVED[1]],
            "D365 got it as ('Vendors V2', 'DEMF'), not as ('Vendors V2', 'USMF')",
        ),
    ],
    ids=["lost", "sent twice", "from nowhere", "wrong company"],
)
def test_what_d365_received_is_checked(
    emulator: str, blobs: BlobServiceClient, received: list[Received], complaint: str
) -> None:
    """D365 got each file once, as the entity and for the company that the job says."""
    findings = audit(emulator, [PACKAGE, PROJECT], [GOOD, BAD], received)

    assert complaint in "\n".join(findings.problems)


def test_a_package_acknowledged_twice_or_never_is_found(
    emulator: str, blobs: BlobServiceClient
) -> None:
    """Both are told with their number."""
    for times in (0, 2):
        package = Package("out", "c1", PACKAGE.sha256, times, PACKAGE.members)
        problems = audit(emulator, [package, PROJECT], [GOOD, BAD], RECEIVED).problems
        assert problems == [f"package c1 of out: acknowledged {times} times"]
