"""D365's own storage, an account of Azurite: the package API gives signed URLs of the blobs in it.

The signatures are real: Azurite itself refuses an expired one. Three signed URLs of a real D365 were valid for
30 minutes, named one blob (`sr=b`) and had the old form. A URL with a user delegation key has more than 500
characters.
"""

import base64
import hashlib
import hmac
import io
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    LinearRetry,
    generate_blob_sas,
)

CONTAINER: Final = "dmf"

_OLD_VERSION: Final = "2015-04-05"
"""The oldest version with the old form that Azurite can check. URLs of a real D365 say 2014-02-14."""


class Storage:
    """A storage account. Several threads may use it at once."""

    def __init__(self, connection_string: str) -> None:
        # One retry, without a pause: Azurite may just have closed a connection that was idle.
        retry = LinearRetry(backoff=0, retry_total=1, random_jitter_range=0)
        self._service = BlobServiceClient.from_connection_string(
            connection_string, retry_policy=retry
        )
        parts = dict(part.split("=", 1) for part in connection_string.split(";") if part)
        self._account, self._key = parts["AccountName"], parts["AccountKey"]
        with suppress(ResourceExistsError):
            self._service.create_container(CONTAINER)

    def url(self, name: str, permissions: str, lifetime: timedelta, *, old: bool = False) -> str:
        """A signed URL of a blob, valid since a minute ago. `permissions`: for example `rw`."""
        blob = self._service.get_blob_client(CONTAINER, name)
        now = datetime.now(UTC)
        if old:
            return f"{blob.url}?{self._old_query(name, permissions, now + lifetime)}"
        query = generate_blob_sas(
            self._account,
            CONTAINER,
            name,
            account_key=self._key,
            permission=BlobSasPermissions.from_string(permissions),
            start=now - timedelta(minutes=1),
            expiry=now + lifetime,
            # It is signed too, and makes the URL as long as one with a user delegation key.
            content_disposition=f"attachment; filename={'x' * 300}.zip",
        )
        return f"{blob.url}?{query}"

    def _old_query(self, name: str, permissions: str, expiry: datetime) -> str:
        """The query of a URL of the old form (Microsoft Learn, "Create a service SAS", the section on version
        2015-04-05 of the string to sign)."""
        until = f"{expiry:%Y-%m-%dT%H:%M:%SZ}"
        resource = f"/blob/{self._account}/{CONTAINER}/{name}"
        lines = [permissions, "", until, resource, "", "", "", _OLD_VERSION, *[""] * 5]
        digest = hmac.new(base64.b64decode(self._key), "\n".join(lines).encode(), hashlib.sha256)
        signature = base64.b64encode(digest.digest()).decode()
        return urlencode(
            {"sv": _OLD_VERSION, "sr": "b", "sig": signature, "se": until, "sp": permissions}
        )

    def write(self, name: str, data: bytes | Path) -> None:
        """Write a blob. An existing one gets the new content."""
        with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as content:
            self._service.get_blob_client(CONTAINER, name).upload_blob(content, overwrite=True)
