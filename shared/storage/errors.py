"""What an error of storage means."""

from typing import Final

from azure.core.exceptions import (
    HttpResponseError,
)


class Leased(RuntimeError):
    """Somebody holds a lease on a blob that must go: nothing is done with it until the lease ends."""


class Conflict(Exception):
    """Another worker has changed or moved the file since it was read; it goes on with it, not we."""


def is_denied(error: HttpResponseError) -> bool:
    """Whether an identity lacks a role."""
    return error.status_code == 403


def is_gone_or_changed(error: HttpResponseError) -> bool:
    """Whether a conditional request found that the blob is gone, or another version."""
    return is_gone(error) or (error.status_code == 412 and not is_leased(error))


def is_gone(error: HttpResponseError) -> bool:
    """Whether there is no such blob. Another 404 is none of that: a container or an account is missing, which
    a person must see to (Microsoft Learn, "Blob Storage error codes"). A copy has a code of its own for it."""
    return error.status_code == 404 and error_code(error) in _GONE


_GONE: Final = ("BlobNotFound", "CannotVerifyCopySource")


def is_leased(error: HttpResponseError) -> bool:
    return error_code(error).startswith("Lease")


def error_code(error: HttpResponseError) -> str:
    """Storage's own code for an error, such as `ContainerNotFound`; else what the status line says."""
    code = getattr(error, "error_code", None) or error.reason
    return str(getattr(code, "value", code))  # the SDK's enum would show its own name of it
