"""D365's own account of a failed import: execution, log, counts for each entity, errors, failed records' keys.

Whatever can't be had is left out with the reason, since the failure itself must be filed all the same.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from azure.core.exceptions import AzureError

from shared.bridge import Bridge
from shared.config.jobs import ImportJob
from shared.d365 import Download, MessageId
from shared.d365.errors import D365Error, Unavailable
from shared.d365.statuses import JobStatus
from shared.storage import names, transfer
from shared.storage.account import FAILED
from shared.storage.records import File

MOST_ENTITIES: Final = 20
"""Of one failed file, whose error keys are fetched: each may take half a minute."""


def what_d365_says(
    bridge: Bridge, job: ImportJob | None, file: File
) -> tuple[JobStatus, dict[str, Any]]:
    """The job status, empty where it can't be had, and the account for the file's report. With the job's
    `errorKeys`, their files are beside the file then."""
    record = file.record
    status, account = JobStatus(), dict[str, Any]()
    if job:
        try:
            status = job_status(bridge, job, file)
            account |= {"jobState": status.state, "log": status.log}
            account["entities"] = [asdict(each) for each in status.entities]
        except D365Error as error:
            account["jobStatusUnavailable"] = str(error)
    execution_id = status.execution_id
    try:
        execution_id = execution_id or _execution_id(bridge, file)
    except D365Error as error:
        account["executionIdUnavailable"] = str(error)
    account["executionId"] = execution_id
    # The Scheduler passes the message id where it knows no execution id.
    execution_id = execution_id or record.messageid
    try:
        account["errors"] = bridge.d365_of(file).execution_errors(execution_id)
    except D365Error as error:
        account["errorsUnavailable"] = str(error)
    if job and job.error_keys:
        account["errorKeys"] = []
        try:
            for entity in _failed_entities(job, status):
                account["errorKeys"] += _keep_keys(bridge, file, execution_id, entity)
        except (D365Error, AzureError) as error:
            account["errorKeysUnavailable"] = str(error)
    return status, account


def job_status(bridge: Bridge, job: ImportJob, file: File) -> JobStatus:
    """How a file fared in D365, with the counts of its records. Raises `D365Error`."""
    d365, id_ = bridge.d365_of(file), file.record.messageid
    if file.record.api:
        return d365.packages.execution_details(id_) or JobStatus()
    return d365.job_status(job.activity_id, MessageId(id_))


def _execution_id(bridge: Bridge, file: File) -> str:
    if file.record.api:
        return file.record.messageid
    return bridge.d365_of(file).execution_id(MessageId(file.record.messageid))


def _failed_entities(job: ImportJob, status: JobStatus) -> list[str]:
    """The entities with failed records; the job's own entity if D365 gives no counts."""
    if not status.entities and job.entity:
        return [job.entity]
    failed = (each.entity for each in status.entities if each.imported != each.records)
    return list(filter(None, failed))[:MOST_ENTITIES]


def _keep_keys(bridge: Bridge, file: File, execution_id: str, entity: str) -> list[str]:
    """Store an entity's error keys beside the failed file; the blob's name, if there are any."""
    with bridge.d365_of(file).error_keys(execution_id, entity) as download:
        if download is None:
            return []
        name = names.error_keys_name(file.name, entity)
        blob = bridge.account.blobs.get_blob_client(FAILED, name)
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


def first_error(account: Mapping[str, Any]) -> str:
    """The first of D365's errors, to stand in one line; of what failed before staging, the log has the reason
    alone. "" where D365 says nothing."""
    errors = account.get("errors") or []
    text = str(errors[0]) if errors else " ".join(str(account.get("log") or "").split())
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f": {text[:_LINE]}{more}" if text else ""


def reason(status: str, job_status: JobStatus, account: Mapping[str, Any]) -> str:
    """Why the file failed, which D365 ended as `status`: a key of `outcome.TODO`."""
    in_part = job_status.imported is None and status == "PartiallySucceeded"
    if job_status.imported or in_part:
        return "partly-imported"
    errors = account.get("errors") or [str(account.get("log"))]
    return "conflict" if all(map(_CONFLICT.search, errors)) else "not-imported"


_LINE: Final = 500

_CONFLICT: Final = re.compile(r"\bDMF-?0*(?:1996|2025|42|2048|2039)\b")
"""Errors of imports that ran at the same time: update conflicts, deadlocks, and of Excel files one at a time
(Microsoft Learn, "Data management error descriptions")."""
