"""Queue: continues one export job: the timer's run had no time for it, or a data project is being exported."""

import azure.functions as func

from shared.bridge import run
from shared.exports import run as exports
from shared.storage.account import EXPORT_JOBS_QUEUE

blueprint = func.Blueprint()


@blueprint.function_name("export_job")
@blueprint.queue_trigger(arg_name="message", queue_name=EXPORT_JOBS_QUEUE, connection="DataStorage")
def export_job(message: func.QueueMessage) -> None:
    """Bring what D365 has exported for the job that the message names into `exports`."""
    run(exports.export_job, message.get_json())
