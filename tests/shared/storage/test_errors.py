"""What an error of storage means: the request, the answer, and what to do."""

from datetime import UTC, datetime, timedelta

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)

from shared.storage.account import DataAccount
from shared.storage.errors import explained


def test_a_container_that_is_missing_is_named(account: DataAccount) -> None:
    """With what makes it."""
    with pytest.raises(HttpResponseError) as failed:
        account.blobs.get_container_client("nowhere").get_container_properties()
    text = explained(failed.value)
    assert "nowhere with 404 (ContainerNotFound): it is missing: deploy infra/" in text


def test_who_may_not_write_is_told_what_to_grant(account: DataAccount) -> None:
    """And the URL loses its signature."""
    sas = generate_account_sas(
        str(account.blobs.account_name),
        account_key=str(account.blobs.credential.account_key),
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=AccountSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    reader = BlobServiceClient(str(account.blobs.url), credential=sas)
    with pytest.raises(HttpResponseError) as failed:
        reader.get_blob_client("exports", "x").upload_blob(b"")
    text = explained(failed.value)
    assert "Storage Blob Data Contributor" in text
    assert "sig=" not in text
