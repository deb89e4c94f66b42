"""The main job through the real worker library: each trigger, and what a person must be told."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)

from local.azurite import Azurite
from local.host_process import HostFailed, RunningHost
from local.samples import VENDORS, Part, package
from local.simulator import Simulator
from shared.storage.account import (
    EXPORT_JOBS_QUEUE,
    EXPORTS,
    FAILED,
    IMPORTS,
    PROCESSING,
    STATUS_QUEUE,
    SUCCEEDED,
    DataAccount,
)
from tests.e2e.helpers import Start
from tests.helpers import EXPORT_ID, IMPORT_ID, contents, drop, wait_for


def test_the_worker_finds_every_function(app: RunningHost) -> None:
    """Indexed by the worker library, with the triggers of the design."""
    functions = {"export_packages", "export_job", "import_file", "check_status", "reconcile"}
    assert set(app.status()["functions"]) >= functions


def test_the_timer_brings_a_package(
    app: RunningHost, d365: Simulator, account: DataAccount
) -> None:
    """Dequeued, stored as D365 sent it, acknowledged once with the answer as it came."""
    offered = d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 20)]))
    assert app.invoke("export_packages")["status"] == "success"
    assert contents(account, EXPORTS) == {
        f"vendors/{offered.correlation_id}.zip": b"".join(offered.chunks())
    }
    assert [acknowledgement["asItCame"] for acknowledgement in offered.acknowledgements] == [True]


def test_a_job_that_was_handed_on_is_gone_on_with(
    app: RunningHost, d365: Simulator, account: DataAccount
) -> None:
    """A queue message, as a run leaves it that has no time for a job."""
    offered = d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 20)]))
    queue = account.queue(EXPORT_JOBS_QUEUE)
    queue.send_message(json.dumps({"job": "vendors"}))
    wait_for(lambda: offered.acknowledged, app.output)
    assert list(contents(account, EXPORTS).values()) == [b"".join(offered.chunks())]
    wait_for(lambda: queue.get_queue_properties().approximate_message_count == 0, app.output)


def test_a_dropped_file_is_sent_tracked_and_filed(
    app: RunningHost, d365: Simulator, account: DataAccount
) -> None:
    """Blob trigger, queue message, queue trigger: under succeeded in the end, with nothing left elsewhere."""
    name, data = "journals/USMF/50% #1 + ä 日本.csv", VENDORS.csv(5)
    drop(account, name, data)
    done = wait_for(lambda: contents(account, SUCCEEDED), app.output)
    assert list(done.values()) == [data]
    received = d365.received[0]
    assert (len(d365.received), received.entity, received.company) == (1, "General journal", "USMF")
    assert not contents(account, IMPORTS)
    wait_for(lambda: not contents(account, PROCESSING), app.output)
    queue = account.queue(STATUS_QUEUE)
    wait_for(lambda: queue.get_queue_properties().approximate_message_count == 0, app.output)
    failures = {name: each["failed"] for name, each in app.status()["invocations"].items()}
    assert not any(failures.values()), app.output()


def test_reconcile_takes_up_a_file_without_an_event(
    start: Start, d365: Simulator, account: DataAccount
) -> None:
    """The event is lost; the timer finds the file."""
    with start(AzureFunctionsJobHost__functionTimeout="00:00:06") as app:
        app.deliver_events(False)
        drop(account, "journals/USMF/may.csv")
        wait_for(lambda: app.invoke("reconcile") and contents(account, SUCCEEDED), app.output)
    assert len(d365.received) == 1


def test_a_package_offered_again_after_a_lost_acknowledgement_stays_one_blob(
    app: RunningHost, d365: Simulator, account: DataAccount
) -> None:
    """The first run can't acknowledge; the second finds the blob and does."""
    d365.reoffer_seconds = 0
    offered = d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 20)]))
    d365.add_fault("acknowledge", "answer", status=400)
    app.invoke("export_packages")
    assert (offered.acknowledged, len(contents(account, EXPORTS))) == (0, 1)
    assert "was not acknowledged: D365 offers it again" in app.output()
    app.invoke("export_packages")
    assert (offered.acknowledged, len(contents(account, EXPORTS))) == (1, 1)


def test_a_repeated_event_sends_a_file_once(
    app: RunningHost, d365: Simulator, account: DataAccount
) -> None:
    """Four events at once, and one that comes late, besides the one that the drop itself brings."""
    d365.latency["enqueue"] = 0.5
    drop(account, "journals/USMF/may.csv")
    with ThreadPoolExecutor(4) as pool:
        events = ["imports/journals/USMF/may.csv"] * 4
        answers = list(pool.map(lambda event: app.invoke("import_file", event), events))
    assert {answer["status"] for answer in answers} == {"success"}
    wait_for(lambda: contents(account, SUCCEEDED), app.output)
    assert app.invoke("import_file", "imports/journals/USMF/may.csv")["status"] == "success"
    assert len(d365.received) == 1


def test_an_event_of_another_container_ends_quietly(
    app: RunningHost, d365: Simulator, account: DataAccount
) -> None:
    """The host calls the function with whatever an event names; a file of the same name in `imports` is not
    meant."""
    app.deliver_events(False)
    name = drop(account, "journals/USMF/may.csv")
    other = account.blobs.get_blob_client(EXPORTS, name)
    other.upload_blob(b"4;5;6")
    response = requests.post(
        f"{app.url}/runtime/webhooks/blobs",
        params={"functionName": "Host.Functions.import_file", "code": app.webhook_key},
        json=[{"eventType": "Microsoft.Storage.BlobCreated", "data": {"url": other.url}}],
        headers={"aeg-event-type": "Notification"},
        timeout=60,
    )
    assert response.status_code == 202
    wait_for(lambda: app.status()["invocations"]["import_file"]["succeeded"], app.output)
    assert not d365.received
    assert list(contents(account, IMPORTS)) == [name]
    assert "an event of the container exports" in app.output()


def test_a_rejected_file_ends_with_the_errors_of_d365(
    app: RunningHost, d365: Simulator, account: DataAccount
) -> None:
    """What an accountant needs lies beside the file: errors, log, counts, ids."""
    drop(account, "journals/USMF/may.csv", b"1;2;REJECT")
    wait_for(lambda: len(contents(account, FAILED)) == 2, app.output)
    failed = contents(account, FAILED)
    report = json.loads(next(v for k, v in failed.items() if k.endswith(".error.json")))
    d365_account = report["d365"]
    assert d365.reject_errors[0] in json.dumps(d365_account["errors"])
    assert d365.reject_errors[0] in report["error"]
    assert (d365_account["executionId"], report["messageId"]) == (
        d365.received[0].execution_id,
        d365.received[0].message_id,
    )
    assert d365_account["entities"]
    assert d365_account["log"]
    assert report["status"] == "ProcessedWithErrors"


def test_a_file_without_a_job_is_explained(
    app: RunningHost, d365: Simulator, account: DataAccount
) -> None:
    """The report names the jobs that there are."""
    drop(account, "jornals/may.csv")
    wait_for(lambda: len(contents(account, FAILED)) == 2, app.output)
    failed = contents(account, FAILED)
    report = json.loads(next(v for k, v in failed.items() if k.endswith(".error.json")))
    assert report["reason"] == "no-such-job"
    assert "journals" in report["error"]
    assert not d365.received


def test_a_wrong_jobs_file_stops_the_app_with_every_mistake(start: Start) -> None:
    """The text that an operator finds in the log when no function is there."""
    wrong = {
        "exports": [{"name": "vendors", "activityId": "123"}],
        "imports": [{"name": "a/b", "activityId": IMPORT_ID, "entty": "x"}],
    }
    with pytest.raises(HostFailed) as failed, start(wrong):
        pass
    for place in ("exports[0].activityId", "imports[0].name", "imports[0].entty"):
        assert place in str(failed.value)


def test_broken_json_and_missing_settings_stop_the_app(start: Start) -> None:
    """Each names what to mend."""
    with pytest.raises(HostFailed, match=r"not valid JSON.*line 1 column 3"), start("{ ,"):
        pass
    with (
        pytest.raises(HostFailed, match=r"(?s)D365_URL: missing.*DataStorage__queueServiceUri"),
        start(D365_URL="", DataStorage="", DataStorage__blobServiceUri="https://x.example"),
    ):
        pass


def test_an_application_that_d365_does_not_know_is_told_to_register(
    app: RunningHost, d365: Simulator, account: DataAccount
) -> None:
    """403: the file waits in processing, and what to do stands in the log and in the file's metadata."""
    d365.registered = False
    drop(account, "journals/USMF/may.csv")
    wait_for(lambda: "file.waiting" in app.output(), app.output)
    app.invoke("export_packages")
    assert "System administration > Setup > Microsoft Entra applications" in app.output()
    client = account.blobs.get_container_client(PROCESSING)
    (waiting,) = client.list_blobs(include=["metadata"])
    assert "403" in waiting.metadata["reason"]
    assert not d365.received
    assert not contents(account, FAILED)


def test_storage_that_refuses_names_the_role_to_grant(
    start: Start, azurite: Azurite, d365: Simulator, account: DataAccount
) -> None:
    """403 from storage: nothing is acknowledged, and the log names the role."""
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    from datetime import UTC, datetime, timedelta

    sas = generate_account_sas(
        str(service.account_name),
        account_key=str(service.credential.account_key),
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions(read=True, list=True, process=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    parts = dict(part.split("=", 1) for part in azurite.connection_string.split(";") if part)
    read_only = ";".join(
        [
            f"BlobEndpoint={parts['BlobEndpoint']}",
            f"QueueEndpoint={parts['QueueEndpoint']}",
            f"SharedAccessSignature={sas}",
        ]
    )
    offered = d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 20)]))
    with start(DataStorage=read_only) as app:
        app.deliver_events(False)
        drop(account, "journals/may.csv")
        app.invoke("export_packages")
        answer = app.invoke("import_file", "imports/journals/may.csv")
        log = app.output()
    assert answer["status"] == "failure"
    assert "Storage Blob Data Contributor" in answer["error"]
    assert "Storage Blob Data Contributor" in log
    assert not offered.acknowledged
    assert list(contents(account, IMPORTS)) == ["journals/may.csv"]
    assert sas.split("sig=")[1][:20] not in log
