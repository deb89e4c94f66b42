"""Leases: one holder at a time, renewed as long as it works, free soon after it is gone."""

from threading import Event

import pytest
from azure.storage.blob import BlobLeaseClient

from shared.storage import leases
from shared.storage.account import DELIVERED, DataAccount
from shared.threads import Pool


def test_one_worker_holds_a_lease_at_a_time(account: DataAccount) -> None:
    """The next one has it as soon as it is given back; the blob is made where there is none."""
    blob = account.blobs.get_blob_client(DELIVERED, "lock")
    with leases.held(blob) as lease_id:
        with pytest.raises(leases.Taken), leases.held(blob):
            pass
        blob.set_blob_metadata({"by": "me"}, lease=lease_id)
    with leases.held(blob):
        pass


def test_a_lease_is_renewed_while_its_holder_works(
    account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a renewal it would end before a long call does."""
    renewed = Event()
    renew = BlobLeaseClient.renew

    def note(lease: BlobLeaseClient) -> None:
        renew(lease)
        renewed.set()

    monkeypatch.setattr(BlobLeaseClient, "renew", note)
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    with leases.held(account.blobs.get_blob_client(DELIVERED, "lock")):
        assert renewed.wait(30)


def test_a_lease_is_given_back_when_its_holder_fails(account: DataAccount) -> None:
    """An error is no crash: nobody waits for the lease to end."""
    blob = account.blobs.get_blob_client(DELIVERED, "lock")
    with pytest.raises(RuntimeError), leases.held(blob):
        raise RuntimeError
    with leases.held(blob):
        pass


def test_of_workers_that_begin_at_once_one_gets_it(account: DataAccount) -> None:
    """Also where the blob is made by then."""
    blob = account.blobs.get_blob_client(DELIVERED, "lock")
    done = Event()

    def hold() -> bool:
        try:
            with leases.held(blob):
                done.wait(30)
                return True
        except leases.Taken:
            return False

    with Pool(4) as pool:
        futures = [pool.submit(hold) for _ in range(4)]
        while sum(future.done() for future in futures) < 3:
            pass
        done.set()
        assert sum(future.result() for future in futures) == 1
