"""D365's own account of a failed import: execution, log, counts for each entity, errors, failed records' keys.

Whatever can't be had is left out with the reason, since the failure itself must be filed all the same.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from azure.core.exceptions import AzureError

from shared import blobs, transfer
from shared.blobs import File
from shared.bridge import Bridge
from shared.d365 import Download, MessageId
from shared.d365.errors import D365Error, Unavailable
from shared.jobs import ImportJob

MOST_ENTITIES: Final = 20
"""Of one failed file, whose error keys are fetched: each may take half a minute."""


def what_d365_says(bridge: Bridge, job: ImportJob | None, file: File) -> dict[str, Any]:
    """The account, for the file's report. With the job's `errorKeys`, their files are beside the file then."""
    message_id = MessageId(file.record.messageid)
    said: dict[str, Any] = {}
    execution_id = ""
    if job:
        try:
            found = bridge.d365.job_status(job.activity_id, message_id)
            state = found.get("DataJobStatus")
            state = state if isinstance(state, dict) else {}
            execution_id = str(state.get("ExecutionIdentifier") or "")
            said["executionId"] = execution_id
            said["jobState"] = state.get("DataJobState")
            said["log"] = found.get("ExecutionLog")
            said["entities"] = found.get("ExecutionDetail")
        except D365Error as error:
            said["jobStatusUnavailable"] = str(error)
    # The Scheduler passes the message id where it knows no execution id.
    execution_id = execution_id or message_id
    try:
        said["errors"] = bridge.d365.execution_errors(execution_id)
    except D365Error as error:
        said["errorsUnavailable"] = str(error)
    if job and job.error_keys:
        said["errorKeys"] = []
        try:
            for entity in _failed_entities(job, said.get("entities")):
                said["errorKeys"] += _keep_keys(bridge, file, execution_id, entity)
        except (D365Error, AzureError) as error:
            said["errorKeysUnavailable"] = str(error)
    return said


def _failed_entities(job: ImportJob, details: object) -> list[str]:
    """The entities of which some records failed; the job's own where D365 gives no counts."""
    counts = {
        str(each.get("EntityName") or ""): str(each.get("TargetErrorCount") or 0)
        for each in (details if isinstance(details, list) else [])
        if isinstance(each, dict)
    }
    if not counts and job.entity:
        return [job.entity]
    return [name for name, count in counts.items() if name and count != "0"][:MOST_ENTITIES]


def _keep_keys(bridge: Bridge, file: File, execution_id: str, entity: str) -> list[str]:
    """Store an entity's error keys beside the failed file; the blob's name, if there are any."""
    with bridge.d365.error_keys(execution_id, entity) as download:
        if download is None:
            return []
        name = f"{file.name}{blobs.ERROR_KEYS}{re.sub(r'[^\w .()-]', '_', entity)[:80]}.txt"
        blob = bridge.account.blobs.get_blob_client(blobs.FAILED, name)
        blob.upload_blob(_whole(download), overwrite=True)
    return [name]


def _whole(download: Download) -> Iterator[bytes]:
    """All of it; one that breaks off is never committed."""
    length = 0
    while chunk := download.read(transfer.BLOCK):
        length += len(chunk)
        yield chunk
    if download.length not in (None, length):
        raise Unavailable("error keys", f"{length} bytes came of {download.length}")


def first_error(said: Mapping[str, Any]) -> str:
    """The first of D365's errors, to stand in one line."""
    errors = said.get("errors")
    if isinstance(errors, list) and errors:
        return f": {errors[0]}" + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")
    return ""
