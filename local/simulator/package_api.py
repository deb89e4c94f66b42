"""The data management package REST API: OData actions on executions whose ids the client chooses.

`docs/d365-api.md` says what is known of each action, with the source. Where nobody knows how D365 behaves,
`PackageSettings` has a setting.
"""

import asyncio
import hashlib
import io
import json
import time
import zipfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Final
from uuid import uuid4

import requests
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.samples import VENDORS, Part, package
from local.simulator.context import D365Request
from local.simulator.executions import Execution
from local.simulator.faults import after_serving
from local.simulator.odata import ACTIONS, answer, arguments, rejection
from local.simulator.records import CHUNK, RECORDS, Json, Received
from local.simulator.state import Simulator

LARGE: Final = 64 << 20
"""A package of more bytes than this is kept on disk, not in memory."""

type Action = Callable[[Simulator, Json, D365Request], Awaitable[Response]]


class _Rejection(Exception):
    """D365 rejects a request, with status 400 unless another one is given."""

    def __init__(self, text: str, status: int = 400) -> None:
        self.text, self.status = text, status
        super().__init__(text)


async def write_url(d365: Simulator, arguments: Json, request: D365Request) -> Response:
    """GetAzureWriteUrl: an address to write a package to."""
    name = str(arguments["uniqueFileName"])
    if any(character in name for character in "/\\?#"):
        raise _Rejection(f"The name {name} can't be a file's.")
    url = d365.package_url(name, "rw")
    value = json.dumps({"BlobId": f"{{{uuid4()}}}".upper(), "BlobUrl": url})
    return after_serving(request, answer(d365, value))


async def import_package(d365: Simulator, arguments: Json, request: D365Request) -> Response:
    """ImportFromPackage: answers when the package is unpacked, and continues if the client disconnects."""
    settings = d365.package_api
    url, project = str(arguments["packageUrl"]), str(arguments["definitionGroupId"])
    execution_id, company = str(arguments["executionId"]), str(arguments["legalEntityId"])
    execute, overwrite = arguments["execute"], arguments["overwrite"]
    began = time.time()
    _check_import(d365, project, company, overwrite)
    async with _alone(d365, project):
        file = await asyncio.to_thread(_read, url, d365.reject_text)
        if settings.import_seconds:
            await asyncio.sleep(settings.import_seconds)
        execution_id = _check_id(d365, execution_id)
        received = Received(
            message_id="",
            activity_id=project,
            entity=None,
            company=company,
            into=company,
            external_id=execution_id,
            sha256=file.sha256,
            length=file.length,
            headers=request.state["record"].headers,
            statuses=deque(),
            errors=[],
            began=began,
            taken=time.time(),
            execution_id=execution_id,
        )
        if _vanishes(d365, project):
            return after_serving(request, answer(d365, execution_id))
        d365.received.append(received)
        d365.executions.append(_execution(d365, received, file, execute=bool(execute)))
        d365.projects.setdefault(project, "plain")
    return after_serving(request, answer(d365, execution_id))


def _check_import(d365: Simulator, project: str, company: str, overwrite: object) -> None:
    if not company or company.upper() not in d365.package_api.companies:
        raise _Rejection(f"The legal entity {company} does not exist.")
    kind = d365.projects.get(project)
    if kind == "plain" and overwrite is not True:
        raise _Rejection(
            f"The definition group {project} exists and overwrite has not been specified."
        )
    if kind is None and overwrite is not True:
        raise _Rejection(f"The definition group {project} does not exist.")
    if kind == "composite" and overwrite is True:
        raise _Rejection("A composite data project can't be overwritten.")
    _check_blocked(d365, project)


def _check_blocked(d365: Simulator, project: str) -> None:
    blocking = next((e for e in d365.executions if e.project == project and e.is_running), None)
    if blocking or project in d365.package_api.blocked_projects:
        raise _Rejection(
            f"The data project {project} has an execution that is running. Delete it from the job history."
        )


@dataclass(frozen=True)
class _PackageFile:
    """A package that was imported."""

    sha256: str
    length: int
    content: bytes
    """Empty if the package is large."""
    rejected: bool
    """Whether it contains the text for which D365 rejects a file."""


def _read(url: str, reject_text: bytes) -> _PackageFile:
    """Read a package from the URL that the client gives, which may have expired. Raises `_Rejection`.

    A large package is not searched for `reject_text`.
    """
    response = requests.get(url, timeout=60, stream=True)
    if response.status_code != 200:
        raise _Rejection(f"The package file could not be read: {response.status_code}.")
    with SpooledTemporaryFile(LARGE) as file:
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
        length = file.tell()
        _check_package(file)
        file.seek(0)
        content = file.read() if length <= LARGE else b""
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    rejected = bool(content and reject_text and reject_text in _plain(content))
    return _PackageFile(digest.hexdigest(), length, content, rejected)


def _check_package(file: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.lower() for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise _Rejection("The package file could not be read.") from error
    if "manifest.xml" not in names:
        raise _Rejection("The package has no manifest.")


def _check_id(d365: Simulator, execution_id: str) -> str:
    """The id of a new execution: the client's, or a new one if the client gives none. Raises `_Rejection`.

    Nobody knows what D365 does with an id that was used before: `used_id` says it.
    """
    if not execution_id:
        return str(uuid4())  # so a repeated request starts a second execution
    if len(execution_id) > 60 or not execution_id.isascii() or "'" in execution_id:
        raise _Rejection("The execution id is not valid.")
    used = any(each.execution_id == execution_id for each in d365.executions)
    if used and d365.package_api.used_id == "rejected":
        raise _Rejection(f"An execution with the id {execution_id} exists already.")
    return execution_id


def _vanishes(d365: Simulator, project: str) -> bool:
    """Whether an execution that was accepted leaves no trace."""
    if d365.vanished[project] >= d365.package_api.vanishing:
        return False
    d365.vanished[project] += 1
    return True


@asynccontextmanager
async def _alone(d365: Simulator, project: str) -> AsyncIterator[None]:
    """Reject an import while another one of the same project is in progress. Counts those of all projects."""
    d365.importing.append(project)
    d365.most_importing = max(d365.most_importing, len(d365.importing))
    try:
        if d365.importing.count(project) > 1:
            raise _Rejection(
                "Cannot edit a record in Definition group. Deadlock, where one or more users have "
                "simultaneously locked the whole table or part of it.",
                500,
            )
        yield
    finally:
        d365.importing.remove(project)


def _execution(
    d365: Simulator, received: Received, file: _PackageFile, *, execute: bool
) -> Execution:
    statuses = list(d365.package_api.statuses)
    if not execute:
        statuses = ["NotRun"]
    elif file.rejected:
        received.errors = list(d365.reject_errors)
        received.imported = d365.imported
        statuses[-1] = "PartiallySucceeded" if d365.imported else "Failed"
    return Execution(
        received.execution_id,
        received.activity_id,
        deque(statuses),
        visible_at=time.time() + d365.package_api.hidden_seconds,
        details_at=time.time() + d365.package_api.hidden_details_seconds,
        received=received,
        content=file.content,
    )


def _plain(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return b"\n".join(archive.read(each) for each in archive.infolist())


async def export_package(d365: Simulator, arguments: Json, request: D365Request) -> Response:
    """ExportToPackage: answers at once; the execution goes on."""
    settings = d365.package_api
    project, name = str(arguments["definitionGroupId"]), str(arguments["packageName"])
    execution_id, company = str(arguments["executionId"]), str(arguments["legalEntityId"])
    if not isinstance(arguments["reExecute"], bool) or not name:
        raise _Rejection("Model state is invalid.")
    if company and company.upper() not in settings.companies:
        raise _Rejection(f"The legal entity {company} does not exist.")
    if project not in d365.projects:
        raise _Rejection(f"The definition group {project} does not exist.")
    execution_id = _check_id(d365, execution_id)
    _check_blocked(d365, project)
    if _vanishes(d365, project):
        return after_serving(request, answer(d365, execution_id))
    blob = settings.export_blobs.get(project, "")
    content: bytes | Path = b""
    if not blob:
        blob = f"{execution_id}.zip"
        content = settings.exports.get(project) or package(execution_id, [Part(VENDORS, 5)])
        await asyncio.to_thread(d365.store, blob, content)
    succeeds = settings.statuses[-1] == "Succeeded"
    execution = Execution(
        execution_id,
        project,
        deque(settings.statuses),
        visible_at=time.time() + settings.hidden_seconds,
        details_at=time.time() + settings.hidden_details_seconds,
        content=content,
        blob=blob,
        errors=[] if succeeds else list(settings.export_errors),
        empty_urls=settings.empty_urls,
    )
    d365.executions.append(execution)
    return after_serving(request, answer(d365, execution_id))


async def exported_url(d365: Simulator, arguments: Json, request: D365Request) -> Response:
    """GetExportedPackageUrl: a URL to read the package from; empty at first, and while there is no package."""
    execution = d365.execution(str(arguments["executionId"]))
    if execution is None or execution.received:
        raise _Rejection(
            f"Execution details were not found for execution id: {arguments['executionId']}"
        )
    if execution.status not in ("Succeeded", "PartiallySucceeded") or execution.empty_urls:
        execution.empty_urls = max(0, execution.empty_urls - 1)
        return after_serving(request, answer(d365, ""))
    execution.fetched += 1
    return after_serving(request, answer(d365, d365.package_url(execution.blob, "r")))


async def execution_status(d365: Simulator, arguments: Json, request: D365Request) -> Response:
    """GetExecutionSummaryStatus: each request takes the execution to its next status."""
    execution = _known(d365, str(arguments["executionId"]))
    execution.polls += 1
    execution.status = execution.statuses[0]
    if len(execution.statuses) > 1:
        execution.statuses.popleft()
    elif execution.received and not execution.is_running:
        execution.received.ended = execution.received.ended or time.time()
    return after_serving(request, answer(d365, execution.status))


def _known(d365: Simulator, execution_id: str) -> Execution:
    execution = d365.execution(execution_id)
    if execution is None or execution.visible_at > time.time():
        raise _Rejection(f"Execution details were not found for execution id: {execution_id}")
    return execution


async def execution_details(request: D365Request) -> Response:
    """DataManagementExecutionJobDetails: an OData entity, the other proof that an execution exists."""
    d365, condition = request.state["d365"], request.query_params.get("$filter", "")
    field, _, literal = condition.partition(" eq ")
    id_ = literal.removeprefix("'").removesuffix("'").replace("''", "'")
    executions = [
        each
        for each in d365.executions
        if each.details_at <= time.time()
        and id_ == {"JobId": each.execution_id, "DefinitionGroupId": each.project}.get(field)
    ]
    value = [_details(each) for each in executions]
    return JSONResponse({"@odata.context": f"{d365.base_url}/data/$metadata", "value": value})


def _details(execution: Execution) -> Json:
    received = execution.received
    imported = RECORDS
    if received and (received.imported is not None or received.errors):
        imported = received.imported or 0
    done = execution.status in ("Succeeded", "PartiallySucceeded", "Failed")
    return {
        "JobId": execution.execution_id,
        "DefinitionGroupId": execution.project,
        "EntityName": "General journal",
        "StagingStatus": "Succeeded" if done else execution.status,
        "TargetStatus": execution.status,
        "StagingRecordsCreatedCount": RECORDS,
        "TargetRecordsCreatedCount": imported if done else 0,
        "TargetRecordsUpdatedCount": 0,
    }


def _action(name: str, do: Action, operation: str) -> Route:
    async def act(request: D365Request) -> Response:
        try:
            return await do(request.state["d365"], arguments(await request.body()), request)
        except KeyError:
            return rejection(400, "Model state is invalid.")
        except (ValueError, SyntaxError):
            return rejection(400, "The request body is not valid JSON.")
        except _Rejection as error:
            return rejection(error.status, error.text)

    return Route(ACTIONS + name, act, methods=["POST"], name=operation)


ROUTES: Final = (
    _action("GetAzureWriteUrl", write_url, "write_url"),
    _action("ImportFromPackage", import_package, "import_package"),
    _action("ExportToPackage", export_package, "export_package"),
    _action("GetExportedPackageUrl", exported_url, "exported_url"),
    _action("GetExecutionSummaryStatus", execution_status, "execution_status"),
    Route("/data/DataManagementExecutionJobDetails", execution_details, name="execution_details"),
)
"""Each route has the name of its operation. They precede those of `odata`, where one matches any action."""
