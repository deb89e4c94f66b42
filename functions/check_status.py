"""Queue: asks D365 for the status of a sent file, sends a file that waits, and moves an ended one."""

import azure.functions as func

from shared.bridge import run
from shared.imports import advance
from shared.storage.account import STATUS_QUEUE

blueprint = func.Blueprint()


@blueprint.function_name("check_status")
@blueprint.queue_trigger(arg_name="message", queue_name=STATUS_QUEUE, connection="DataStorage")
def check_status(message: func.QueueMessage) -> None:
    """Look at the file in processing that the message names."""
    run(advance.check_status, message.get_json())
