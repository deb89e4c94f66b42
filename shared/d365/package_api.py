"""D365's data management package REST API: OData actions on executions whose ids the client chooses.

The names, order and types of the parameters, all of them always sent, are those of Microsoft's Recurring
Integrations Scheduler. What the answers mean is from Microsoft Learn, "Data management package REST API", and
where that is silent from the sources that `docs/d365-api.md` names.
"""

import secrets
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlsplit

from shared.d365 import actions
from shared.d365.errors import Rejected, Unavailable, Uncertain
from shared.d365.responses import (
    Response,
    error_text,
    fields_of,
    json_value,
    parse,
    text_value,
)
from shared.d365.statuses import EntityCounts, JobStatus, execution_id_of, status_of
from shared.d365.transport import Transport

_NOT_FOUND: Final = "execution details were not found"


def new_execution_id(job: str, at: datetime) -> str:
    """An id for an execution, which is written down before D365 is asked to begin it: at most 60 characters of
    ASCII, by which a person knows the job and the time."""
    return f"{job[:30]}-{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(6)}"


class PackageApi:
    """The actions of one environment. Safe for use by several threads."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._action = partial(actions.call, transport)

    def write_url(self, name: str) -> str:
        """A fresh URL to which a package can be written, good for 30 minutes; `name` is unique.

        Raises `D365Error`.
        """
        answer = self._action("GetAzureWriteUrl", {"uniqueFileName": name})
        try:
            address = fields_of(parse(text_value(answer)))["bloburl"]
        except (ValueError, KeyError) as error:
            text = "D365 gave no address to write the package to"
            raise Unavailable("GetAzureWriteUrl", text) from error
        return self._signed_url("GetAzureWriteUrl", str(address))

    def import_package(
        self,
        url: str,
        project: str,
        execution_id: str,
        *,
        execute: bool,
        overwrite: bool,
        company: str,
    ) -> str:
        """Import the package that was written to a URL, into a company; the execution's id, as D365 has it. It
        is sent once, and answered when D365 has unpacked the package, which can take many minutes.

        Raises `NotAccepted` (D365 has not taken it, unless it had under this id before) or `Uncertain`.
        """
        arguments: dict[str, str | bool] = {
            "packageUrl": url,
            "definitionGroupId": project,
            "executionId": execution_id,
            "execute": execute,
            "overwrite": overwrite,
            "legalEntityId": company,
        }
        return _begun("ImportFromPackage", self._action("ImportFromPackage", arguments))

    def export_package(
        self, project: str, execution_id: str, *, re_execute: bool, company: str
    ) -> str:
        """Begin an export of a data project; the execution's id, as D365 has it. It is sent once. The package's
        name is the execution's id, as the Scheduler has it; `company` may be empty for the user's own.

        Raises `NotAccepted` (D365 has not begun it, unless it had under this id before) or `Uncertain`.
        """
        arguments: dict[str, str | bool] = {
            "definitionGroupId": project,
            "packageName": execution_id,
            "executionId": execution_id,
            "reExecute": re_execute,
            "legalEntityId": company,
        }
        return _begun("ExportToPackage", self._action("ExportToPackage", arguments))

    def exported_url(self, execution_id: str) -> str:
        """A fresh URL of the package that an execution has made; "" while D365 has none. Raises `D365Error`."""
        answer = self._action("GetExportedPackageUrl", {"executionId": execution_id})
        url = text_value(answer).strip()
        return self._signed_url("GetExportedPackageUrl", url) if url not in ("", "null") else ""

    def execution_status(self, execution_id: str) -> str | None:
        """The status of an execution, by D365's name for it. None where D365 knows no such execution, which it
        says for a while also of one that it has just begun. Raises `D365Error`."""
        try:
            answer = self._action("GetExecutionSummaryStatus", {"executionId": execution_id})
        except Rejected as error:
            if error.status == 400 and _NOT_FOUND in str(error).lower():
                return None
            raise
        return status_of(answer)

    def execution_details(self, execution_id: str) -> JobStatus | None:
        """What D365's entity of executions has of one, the second witness: counts of each entity. None where it
        has nothing. Raises `D365Error`."""
        condition = quote(f"JobId eq '{execution_id}'", safe="'")
        path = f"/data/DataManagementExecutionJobDetails?$filter={condition}"
        answer = self._transport.call("execution details", "GET", path)
        rows = fields_of(json_value(answer, "execution details")).get("value")
        executions = [fields_of(row) for row in rows] if isinstance(rows, list) else []
        if not executions:
            return None
        return JobStatus(
            execution_id=execution_id,
            entities=tuple(map(_counts, executions)),
        )

    def _signed_url(self, operation: str, url: str) -> str:
        """A URL in D365's storage, which must be https as D365 itself is. Raises `Rejected`."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise Rejected(operation, "D365 gave an address that is no URL") from error
        allowed = {"https", urlsplit(self._transport.url).scheme}  # http is on one machine alone
        if parts.scheme not in allowed or not parts.hostname or not parts.query:
            raise Rejected(
                operation,
                f"D365 gave an address on {parts.scheme}://{parts.hostname}; only a signed address over https "
                "is used. See what stands between the app and D365",
            )
        return url


def _begun(operation: str, answer: Response) -> str:
    """The id of an execution that D365 has begun. Raises `Uncertain` where it does not say so."""
    try:
        execution_id = execution_id_of(text_value(answer))
    except Rejected:  # no JSON, so it is not D365 that answers
        execution_id = ""
    if not execution_id:
        answer_text = error_text(answer.body) or "nothing"
        raise Uncertain(operation, f"D365 gave no execution id: {answer_text}")
    return execution_id


def _counts(row: Mapping[str, Any]) -> EntityCounts:
    """The records of one entity. Created and updated ones are in."""
    imported = [
        int(row[name])
        for name in ("targetrecordscreatedcount", "targetrecordsupdatedcount")
        if str(row.get(name)).isdecimal()
    ]
    staging = str(row.get("stagingrecordscreatedcount"))
    return EntityCounts(
        str(row.get("entityname") or ""),
        "",
        int(staging) if staging.isdecimal() else None,
        sum(imported) if imported else None,
    )
