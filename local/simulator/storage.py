"""D365's own storage: the blobs to which its package API gives signed URLs. An account of Azurite plays it.

The signatures are real, so what expired is refused by the service itself. Three real URLs that D365 gave lived
30 minutes, were of one blob (`sr=b`) and of the old form; one of user delegation is longer than 500 characters.
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
"""Of the old form, the oldest that Azurite can check. D365's real ones say 2014-02-14."""


class Storage:
    """An account, by its connection string. Safe for use by several threads."""

    def __init__(self, connection_string: str) -> None:
        # Once more at once: a connection that idled may just have been closed by the other side.
        retry = LinearRetry(backoff=0, retry_total=1, random_jitter_range=0)
        self._service = BlobServiceClient.from_connection_string(
            connection_string, retry_policy=retry
        )
        parts = dict(part.split("=", 1) for part in connection_string.split(";") if part)
        self._account, self._key = parts["AccountName"], parts["AccountKey"]
        with suppress(ResourceExistsError):
            self._service.create_container(CONTAINER)

    def url(self, name: str, permissions: str, lifetime: timedelta, *, old: bool = False) -> str:
        """A signed URL of a blob, from a minute ago on. `permissions` as `rw`."""
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
            # Part of what is signed; it makes the URL as long as one of user delegation.
            content_disposition=f"attachment; filename={'x' * 300}.zip",
        )
        return f"{blob.url}?{query}"

    def _old_query(self, name: str, permissions: str, expiry: datetime) -> str:
        """Microsoft Learn, "Create a service SAS", section on version 2015-04-05 of the string to sign."""
        until = f"{expiry:%Y-%m-%dT%H:%M:%SZ}"
        resource = f"/blob/{self._account}/{CONTAINER}/{name}"
        lines = [permissions, "", until, resource, "", "", "", _OLD_VERSION, *[""] * 5]
        digest = hmac.new(base64.b64decode(self._key), "\n".join(lines).encode(), hashlib.sha256)
        signature = base64.b64encode(digest.digest()).decode()
        return urlencode(
            {"sv": _OLD_VERSION, "sr": "b", "sig": signature, "se": until, "sp": permissions}
        )

    def write(self, name: str, data: bytes | Path) -> None:
        """Put a blob there, or another content in its place."""
        with data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as content:
            self._service.get_blob_client(CONTAINER, name).upload_blob(content, overwrite=True)
