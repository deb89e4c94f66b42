"""Puts a message on the queue `export-jobs`, with which an invocation of `export_job` continues an export
job."""

import json

from shared.bridge import Bridge
from shared.config.jobs import ExportJob
from shared.storage.account import EXPORT_JOBS_QUEUE


def enqueue(bridge: Bridge, job: ExportJob, seconds: int) -> None:
    """Let an invocation go on with a job, in so many seconds."""
    message = json.dumps({"job": job.name})
    bridge.account.queue(EXPORT_JOBS_QUEUE).send_message(message, visibility_timeout=seconds)
