"""The recurring integrations API: `/api/connector/...`."""

import hashlib
import json
import time
from collections import deque
from typing import Final
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.simulator.context import D365Request, rejection
from local.simulator.downloads import download
from local.simulator.faults import after_serving
from local.simulator.records import RECORDS, Package, Received
from local.simulator.state import Simulator

KEPT: Final = 1024 * 1024
"""Only the beginning of a file, up to this many bytes, is searched for `reject_text`."""


async def dequeue(request: D365Request) -> Response:
    """Offer the next package of a job's queue; answer 204 if there is none to offer."""
    d365, activity_id = request.state["d365"], request.state["activity_id"]
    if activity_id not in d365.export_jobs:
        return rejection(404, f"The data job {activity_id} does not exist.")
    now = time.monotonic()
    for package in d365.packages:
        if package.activity_id != activity_id or package.acknowledged:
            continue
        if package.offered and now - package.offered_at < d365.reoffer_seconds:
            continue
        again = package.offered > 0
        new = {"same": package.correlation_id, "new": str(uuid4()), "none": ""}[d365.reoffered_as]
        package.offered_as = new if again else package.correlation_id
        package.offered += 1
        package.offered_at = now
        package.pop_receipt = uuid4().hex
        package.answer = _message(d365, package)
        return Response(package.answer, media_type="application/json")
    return Response(status_code=204)


def _message(d365: Simulator, package: Package) -> bytes:
    location = package.location and package.location.format(
        base=d365.base_url,
        host=d365.base_url.split("//")[1].rsplit(":", 1)[0],
        activity=package.activity_id,
        correlation=package.offered_as,
        blob=package.blob,
    )
    return json.dumps(
        {
            "CorrelationId": package.offered_as or None,
            "PopReceipt": package.pop_receipt,
            "DownloadLocation": location,
            "IsDownLoadFileExist": package.file_exists,
            # D365 gives null or an empty text for a field without a value; both were seen.
            "FileDownLoadErrorMessage": package.problem or d365.blank,
            "LastDequeueDateTime": d365.blank if package.offered == 1 else "2026-11-23T00:00:00",
        },
        # D365's spacing is not known. With this one, a test sees a client that encodes the message anew.
        indent=1,
    ).encode()


async def fetch(request: D365Request) -> Response:
    """Download a package, which its blob id names, or else its correlation id."""
    blob = request.query_params.get("blob")
    correlation_id = request.path_params.get("correlation_id", "")
    for package in reversed(request.state["d365"].packages):
        known = package.blob == blob if blob else package.correlation_id == correlation_id
        if known and package.file_exists:
            return download(package, request)
    return rejection(404, "The package does not exist or has expired.")


async def acknowledge(request: D365Request) -> Response:
    """Remove a package from its queue."""
    d365, raw = request.state["d365"], await request.body()
    request.state["record"].length = len(raw)
    try:
        fields = json.loads(raw)
        correlation_id, receipt = fields.get("CorrelationId") or "", fields["PopReceipt"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return rejection(400, "The acknowledgement is not a dequeue response.")
    message = (request.state["activity_id"], correlation_id)
    waiting = [
        package
        for package in d365.packages
        if package.offered and not package.acknowledged
        if (package.activity_id, package.offered_as) == message
    ]
    if not waiting:  # it never existed, or it was acknowledged before
        return rejection(404, "The message does not exist.")
    package = next((p for p in waiting if p.pop_receipt == receipt), waiting[0])
    if d365.strict_receipts and receipt != package.pop_receipt:
        return rejection(400, "The pop receipt is not valid any more.")
    acknowledgement = {"asItCame": raw == package.answer, "receipt": receipt}
    package.acknowledgements.append(acknowledgement)
    package.acknowledged += 1
    return after_serving(request, Response())


async def enqueue(request: D365Request) -> Response:
    """Receive a file."""
    d365, record = request.state["d365"], request.state["record"]
    activity_id = request.state["activity_id"]
    if activity_id not in d365.import_jobs:
        return rejection(404, f"The data job {activity_id} does not exist.")
    if "json" in request.headers.get("content-type", ""):
        # No client that is known to work sends this content type.
        return rejection(415, "A file is not JSON.")
    began = time.time()
    digest, length, kept = hashlib.sha256(), 0, bytearray()
    try:
        async for chunk in request.stream():
            digest.update(chunk)
            length += len(chunk)
            if length <= KEPT:
                kept += chunk
    except ClientDisconnect:
        d365.aborted += 1
        raise
    if length > d365.largest_body:
        return Response("<html>Request Entity Too Large</html>", 413)
    record.length = length
    rejected = bool(d365.reject_text) and d365.reject_text in kept
    ends = (*d365.statuses[:-1], "ProcessedWithErrors") if rejected else d365.statuses
    company = request.query_params.get("company") or None
    received = Received(
        message_id=str(uuid4()),
        activity_id=activity_id,
        entity=request.query_params.get("entity") or None,
        company=company,
        into=(company if d365.company_from_message else None) or d365.company,
        external_id=request.headers.get("x-ms-dyn-externalidentifier", ""),
        sha256=digest.hexdigest(),
        length=length,
        headers=record.headers,
        statuses=deque(ends),
        errors=list(d365.reject_errors) if rejected else [],
        imported=d365.imported if rejected else None,
        began=began,
        taken=time.time(),
    )
    d365.received.append(received)
    message_id = d365.message_id_form.format(received.message_id)
    return after_serving(request, Response(message_id, media_type="application/json"))


async def job_status(request: D365Request) -> Response:
    """The state of a file's import, with the numbers of its records."""
    key = (request.query_params.get("jobId", ""), request.state["activity_id"])
    received = request.state["d365"].taken(lambda r: (r.message_id, r.activity_id) == key)
    if received is None:
        return rejection(404, "The message does not exist.")
    imported = received.imported
    if imported is None:
        imported = 0 if received.errors else RECORDS
    return JSONResponse(
        {
            "DataJobStatus": {
                "DataProject": "Recurring import",
                "DataJobIdentifier": received.message_id,
                "ExternalIdentifier": received.external_id,
                "ExecutionIdentifier": received.execution_id,
                "DataJobStartedDateTime": "2026-11-23T12:00:00",
                "DataJobCompletedDateTime": "2026-11-23T12:00:30",
                "DataJobState": received.status,
            },
            "ExecutionLog": "\n".join(map(str, received.errors)) or "The import has ended.",
            "ExecutionDetail": [
                {
                    "EntityName": received.entity or "Data package",
                    "Company": received.into,
                    "StagingRecords": RECORDS,
                    "StagingStatus": "Finished",
                    "StagingErrorCount": 0,
                    "TargetRecords": imported,
                    "TargetStatus": "Finished" if imported == RECORDS else "Error",
                    "TargetErrorCount": RECORDS - imported,
                }
            ],
        }
    )


_AT: Final = "/api/connector"
_JOB: Final = "{activity_id}"

ROUTES: Final = (
    Route(f"{_AT}/dequeue/{_JOB}", dequeue),
    Route(f"{_AT}/download/{_JOB}", fetch, name="download"),
    Route(f"{_AT}/download/{_JOB}/{{correlation_id}}", fetch, name="download"),
    Route(f"{_AT}/ack/{_JOB}", acknowledge, methods=["POST"]),
    Route(f"{_AT}/enqueue/{_JOB}", enqueue, methods=["POST"]),
    Route(f"{_AT}/jobstatus/{_JOB}", job_status),
)
"""Each route has the name of its operation: `Fault` and `Recorded` use it."""
