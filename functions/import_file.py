"""Blob: sends each file dropped into `imports` to D365."""

import azure.functions as func
import azurefunctions.extensions.bindings.blob as sdk

from shared.bridge import run
from shared.imports import intake
from shared.observability.events import emit
from shared.storage.account import IMPORTS

blueprint = func.Blueprint()


@blueprint.function_name("import_file")
@blueprint.blob_trigger(
    arg_name="blob",
    path=f"{IMPORTS}/{{name}}",
    connection="DataStorage",
    source=func.BlobSource.EVENT_GRID,
)
def import_file(blob: sdk.BlobClient) -> None:
    """Import a file. An SDK-type binding, so that the worker never holds the file in memory."""
    if blob.container_name != IMPORTS:  # the host compares no event with the path above
        why = (
            f"it is an event of the container {blob.container_name}: mend the subscription's filter"
        )
        emit("message.ignored", file=blob.blob_name, reason=why)
        return
    run(intake.import_file, blob.blob_name)
