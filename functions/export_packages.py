"""Timer: fetches the packages from every export job's queue, and starts the exports of data projects that
are due."""

import azure.functions as func

from shared.bridge import run
from shared.config import settings
from shared.exports import run as exports

blueprint = func.Blueprint()


@blueprint.function_name("export_packages")
@blueprint.timer_trigger(
    arg_name="timer",
    schedule=settings.schedule("EXPORT_SCHEDULE", settings.EXPORT_SCHEDULE),
    use_monitor=True,
)
def export_packages(timer: func.TimerRequest) -> None:
    """Bring what D365 has exported into `exports`."""
    run(exports.export_packages)
