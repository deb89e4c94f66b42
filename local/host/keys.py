"""The keys of HTTP triggers, of `/admin/…` and of webhooks (Microsoft Learn, "Work with access keys in Azure
Functions")."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from local.protocol import Function

HEADER = "x-functions-key"


def _new() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Keys:
    """New keys at each start; the real host keeps its keys in storage."""

    function: str = field(default_factory=_new)
    """The host's key `default`: opens every function of level FUNCTION."""
    master: str = field(default_factory=_new)
    """Opens everything, `/admin/…` too."""
    blobs_extension: str = field(default_factory=_new)
    """The system key of the blob trigger's webhook."""

    def open_function(
        self, function: Function, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> bool:
        """Whether a request with this query and these headers may call an HTTP trigger."""
        level = str(function.trigger.get("authLevel", "function")).lower()
        if level == "anonymous":
            return True
        valid = [self.master] if level == "admin" else [self.function, self.master]
        return _key(query, headers) in valid

    def open_admin(self, query: Mapping[str, str], headers: Mapping[str, str]) -> bool:
        """Whether a request with this query and these headers may use `/admin/…`."""
        return _key(query, headers) == self.master

    def open_webhook(self, query: Mapping[str, str], headers: Mapping[str, str]) -> bool:
        """Whether a request with this query and these headers may post events."""
        return _key(query, headers) in (self.blobs_extension, self.master)


def _key(query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    return headers.get(HEADER) or query.get("code", "")
