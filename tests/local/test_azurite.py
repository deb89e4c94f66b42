"""The emulator that everything else is tested against."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from azure.core.exceptions import ServiceRequestError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local.azurite import AzuriteFailed, running_azurite
from local.containers import provision
from shared.storage.account import CONTAINERS, QUEUES
from tests.helpers import wait_for

ROOT = Path(__file__).resolve().parents[2]


def test_provision_makes_all_containers_and_queues_and_may_run_again() -> None:
    """The containers and queues are there, and a second run finds them."""
    with running_azurite() as azurite:
        provision(azurite.connection_string)
        provision(azurite.connection_string)

        with BlobServiceClient.from_connection_string(azurite.connection_string) as blobs:
            assert {c.name for c in blobs.list_containers()} == set(CONTAINERS)
        with QueueServiceClient.from_connection_string(azurite.connection_string) as queues:
            assert {q.name for q in queues.list_queues()} == set(QUEUES)


def test_two_emulators_side_by_side_share_nothing() -> None:
    """Each has its own ports, data and, if asked for, account."""
    with running_azurite() as one, running_azurite(account_name="other") as two:
        provision(one.connection_string)

        assert one.blob_endpoint != two.blob_endpoint
        with BlobServiceClient.from_connection_string(two.connection_string) as blobs:
            assert list(blobs.list_containers()) == []


def test_an_outage_ends_with_the_same_data_at_the_same_place() -> None:
    """After stop and start, clients go on with the addresses that they had."""
    with running_azurite() as azurite:
        provision(azurite.connection_string)
        client = BlobServiceClient.from_connection_string(azurite.connection_string, retry_total=0)
        with client as blobs:
            blobs.get_blob_client("exports", "a").upload_blob(b"kept")

            azurite.stop()
            with pytest.raises(ServiceRequestError):
                blobs.get_service_properties()
            with pytest.raises(AzuriteFailed, match="not running"):
                _ = azurite.pid

            azurite.start()
            assert blobs.get_blob_client("exports", "a").download_blob().readall() == b"kept"


def test_a_start_on_a_port_that_another_program_took_is_an_error(tmp_path: Path) -> None:
    """Another server's answer is not taken for the emulator's."""
    with running_azurite() as one:
        provision(one.connection_string)
        with running_azurite(directory=tmp_path) as two:
            two.stop()
            two._ports = one._ports
            with pytest.raises(AzuriteFailed, match="EADDRINUSE"):
                two.start()


def test_nothing_is_left_behind() -> None:
    """The process and its directory are gone."""
    with running_azurite() as azurite:
        pid, directory = azurite.pid, azurite.directory
        assert psutil.pid_exists(pid)

    assert not psutil.pid_exists(pid)
    assert not directory.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_the_emulator_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    """A killed test run or demo leaves no emulator running."""
    program = (
        "import json, pathlib, sys, time\n"
        "from local.azurite import running_azurite\n"
        "with running_azurite(directory=pathlib.Path(sys.argv[1])) as azurite:\n"
        "    print(json.dumps(azurite.pid), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    ) as starter:
        assert starter.stdout is not None
        emulator = psutil.Process(json.loads(starter.stdout.readline()))
        starter.send_signal(signal.SIGKILL)

    wait_for(lambda: not emulator.is_running())
