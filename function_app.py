"""The app: reads the settings and registers the functions. Nothing else."""

import logging

import azure.functions as func

from functions import check_status, export_job, export_packages, import_file, operate, reconcile
from shared import allocator
from shared.bridge import bridge
from shared.observability import tracing
from shared.observability.events import listeners
from shared.operations import journal

allocator.keep_freed_blocks()

# The SDKs' own lines, one a request, would drown ours and cost their keep in Application Insights.
logging.getLogger("azure").setLevel(logging.WARNING)

# A wrong setting or jobs file stops the app at start, with every mistake listed.
journal.keep(bridge().account, bridge().settings.jobs)
listeners.append(tracing.measure)
if bridge().settings.exports_telemetry:
    tracing.export()

app = func.FunctionApp()
for module in (export_packages, export_job, import_file, check_status, reconcile, operate):
    app.register_functions(module.blueprint)
