"""Export: what D365 offers on a job's queue becomes a blob in `exports`, and only then is acknowledged."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mimetypes import guess_type
from typing import Final
from urllib.parse import quote

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient

from shared import blobs, clock, transfer
from shared.bridge import Bridge
from shared.d365 import D365, DequeuedMessage
from shared.errors import D365Error, Unavailable, Uncertain
from shared.jobs import ExportJob
from shared.packages import InvalidPackage, PackageCheck, entries
from shared.telemetry import report

JOBS_AT_ONCE: Final = 4
DOWNLOADS: Final = 3
"""Tries for one package: D365 has been seen to answer 500 to the first and then to give it."""


@dataclass(frozen=True)
class Times:
    """When a run must do what, as `clock.monotonic` times (E6)."""

    take_until: float
    """No message is taken after this."""
    end: float
    """A download still running then is given up; the host would end the run soon after."""


@dataclass(frozen=True)
class Totals:
    """What one run did."""

    packages: int = 0
    failed: int = 0


def export_packages(bridge: Bridge) -> Totals:
    """Serve every enabled job until its queue is empty or the run's time is up. A job that fails does not
    keep the others from running (E3)."""
    begun, limit = clock.monotonic(), bridge.settings.function_timeout.total_seconds()
    times = Times(begun + 0.6 * limit, begun + 0.9 * limit)
    enabled = [job for job in bridge.settings.jobs.exports if job.enabled]
    with ThreadPoolExecutor(JOBS_AT_ONCE, thread_name_prefix="export") as pool:
        each = list(
            pool.map(lambda job: export_job(bridge.d365, bridge.account, job, times), enabled)
        )
    return Totals(sum(t.packages for t in each), sum(t.failed for t in each))


def export_job(d365: D365, account: blobs.DataAccount, job: ExportJob, times: Times) -> Totals:
    """Serve one job's queue: dequeue, store, acknowledge, one message after the other."""
    started, packages, failed = clock.monotonic(), 0, set[str]()
    try:
        while clock.monotonic() < times.take_until:
            message = d365.dequeue(job.activity_id)
            if message is None:
                break
            if message.correlation_id in failed:
                break  # offered again at once: trying on would only turn in a circle
            if _serve(d365, account, job, message, times):
                packages += 1
            else:
                failed.add(message.correlation_id)
    except D365Error as error:
        report("export.failed", logging.ERROR, job=job.name, error=str(error))
        return Totals(packages, len(failed) + 1)
    seconds = round(clock.monotonic() - started, 1)
    report("export.finished", job=job.name, packages=packages, failed=len(failed), seconds=seconds)
    return Totals(packages, len(failed))


def _serve(
    d365: D365,
    account: blobs.DataAccount,
    job: ExportJob,
    message: DequeuedMessage,
    times: Times,
) -> bool:
    """Store one package, then acknowledge it. A failure leaves the message to be offered again (E3)."""
    try:
        blob = _store(d365, account, job, message, times)
        if job.unzip:
            _unzip(account, blob)
        # E1: only now, when all of it is committed.
        d365.acknowledge(job.activity_id, message)
    except (D365Error, AzureError, InvalidPackage) as error:
        text = (
            f"{error}. The message was not acknowledged: D365 offers it again in about 30 minutes, "
            "and deletes the package seven days after the export"
        )
        report(
            "package.failed",
            logging.ERROR,
            job=job.name,
            correlationId=message.correlation_id,
            error=text,
        )
        return False
    report(
        "package.acknowledged",
        job=job.name,
        correlationId=message.correlation_id,
        blob=blob.blob_name,
    )
    return True


def _store(
    d365: D365,
    account: blobs.DataAccount,
    job: ExportJob,
    message: DequeuedMessage,
    times: Times,
) -> BlobClient:
    """The package as a blob: the one it is already, or a new one. Raises as `_fetch` does."""
    started = clock.monotonic()
    name = blobs.package_name(job.name, message.correlation_id)
    blob = account.blobs.get_blob_client(blobs.EXPORTS, name)
    try:
        stored = _fetch(d365, message, blob, job.name, times)
    except transfer.OtherContent as error:
        # E2: the same id with other bytes is a second blob, whose name follows from these.
        name = blobs.package_name(job.name, message.correlation_id, error.sha256)
        blob = account.blobs.get_blob_client(blobs.EXPORTS, name)
        stored = _fetch(d365, message, blob, job.name, times)
    report(
        "package.stored",
        job=job.name,
        correlationId=message.correlation_id,
        blob=blob.blob_name,
        bytes=stored.bytes,
        sha256=stored.sha256,
        seconds=round(clock.monotonic() - started, 2),
        again=not stored.created,
    )
    return blob


def _fetch(
    d365: D365, message: DequeuedMessage, blob: BlobClient, job: str, times: Times
) -> transfer.Stored:
    """Download a package into a blob; a download that breaks off or comes broken is made again.

    Raises `D365Error`, `InvalidPackage`, `transfer.OtherContent` and the storage's errors.
    """
    attempt = 1
    while True:
        try:
            return _download(d365, message, blob, job, times)
        except (Unavailable, Uncertain, InvalidPackage) as error:
            if attempt == DOWNLOADS or clock.monotonic() > times.end:
                raise
            report(
                "d365.retry",
                logging.WARNING,
                operation="download",
                error=str(error),
                attempt=attempt,
                waitSeconds=attempt,
            )
            clock.sleep(attempt)
            attempt += 1


def _download(
    d365: D365, message: DequeuedMessage, blob: BlobClient, job: str, times: Times
) -> transfer.Stored:
    check = PackageCheck()
    with d365.download(message) as download:

        def read(size: int) -> bytes:
            if clock.monotonic() > times.end:
                raise Unavailable("download", "the run's time was up before the package's end")
            return download.read(size)

        def verify(length: int) -> None:
            # E1: the length that D365 announced, and readable to its end.
            if download.length not in (None, length):
                said = f"{length} bytes came of {download.length} that D365 announced"
                raise Unavailable("download", said)
            check.finish()

        return transfer.store(
            read,
            blob,
            watch=check.feed,
            verify=verify,
            metadata={
                "job": job,
                "correlationid": _header(message.correlation_id),
                "stored": clock.now().isoformat(timespec="seconds"),
            },
            content_type="application/zip",
        )


def _unzip(account: blobs.DataAccount, package: BlobClient) -> None:
    """Write the package's files beside it, under its name without `.zip`. Raises `InvalidPackage`."""
    folder = package.blob_name.removesuffix(".zip")
    with transfer.reader(package) as file:
        for entry in entries(file):
            blob = account.blobs.get_blob_client(blobs.EXPORTS, f"{folder}/{entry.name}")
            with entry.open() as content:
                transfer.store(
                    content.read,
                    blob,
                    verify=lambda _: None,  # reading to the end has checked length and CRC
                    metadata={"package": _header(package.blob_name)},
                    content_type=guess_type(entry.name)[0] or "application/octet-stream",
                )


def _header(text: str) -> str:
    return quote(text, safe=" /{}()+,=@~:")
