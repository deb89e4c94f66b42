"""What an error of storage means and what to do about it: the only place that says so."""

from typing import Final

from azure.core.exceptions import (
    HttpResponseError,
)


class Leased(RuntimeError):
    """Somebody holds a lease on a blob that we must delete. We do nothing with it until the lease ends."""


class Conflict(Exception):
    """Another worker has changed or moved the file since we read it, so that worker continues with it."""


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


class StorageDenied(PermissionError):
    """Storage does not let us do something. The message says what, and what to grant."""


def explained(error: Exception) -> str:
    """An error in a line, for an operator; of storage: the request, its answer, and what to do.

    The codes are those of Microsoft Learn, "Common REST API error codes" and "Blob Storage error codes".
    """
    if not isinstance(error, HttpResponseError):
        return str(error) or type(error).__name__
    request = getattr(error.response, "request", None)
    where = f" {request.method} {request.url.split('?')[0]} with" if request else ""
    return f"storage answered{where} {error.status_code} ({error_code(error)}): {_meaning(error)}"


def _meaning(error: HttpResponseError) -> str:
    match error_code(error):
        case "ContainerNotFound" | "QueueNotFound":
            return "it is missing: deploy infra/ again, or make it by hand"
        case "AuthenticationFailed":
            return "it does not accept the sign-in: see whether the account is in the identity's tenant"
        case "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions":
            return f"the identity lacks a role on the data account. {_ROLES}"
        case "AuthorizationFailure":
            return f"the account's firewall does not admit the app, or a role is missing. {_ROLES}"
    if error.status_code == 403:
        return f"the app may not do that. {_ROLES}"
    return str(error).splitlines()[0].rstrip(".")


_ROLES: Final = (
    "It needs Storage Blob Data Contributor for containers and Storage Queue Data Contributor for queues; "
    "a new role takes some minutes to count"
)
