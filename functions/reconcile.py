"""Timer: finds the files whose event or queue message was lost."""

import azure.functions as func

from shared.bridge import run
from shared.config import settings
from shared.imports import reconciliation

blueprint = func.Blueprint()


@blueprint.function_name("reconcile")
@blueprint.timer_trigger(
    arg_name="timer",
    schedule=settings.schedule("RECONCILE_SCHEDULE", settings.RECONCILE_SCHEDULE),
    use_monitor=True,
)
def reconcile(timer: func.TimerRequest) -> None:
    """Take up what was left."""
    run(reconciliation.reconcile)
