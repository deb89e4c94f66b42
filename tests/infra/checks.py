"""The checks of `infra/`, each a function from the folder to what is wrong: nothing, when all is well.

They read what the Bicep compiler says that the files *deploy* (`compiler.py`, `variants.py`), and compare it
with what the code *does*: the settings that it reads as it starts, the triggers that it registers, the calls
that it makes.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.infra import (
    check_app,
    check_deployment,
    check_files,
    check_queries,
    check_safety,
    check_wiring,
)

CHECKS: Final[Mapping[str, Callable[[Path], Iterator[str]]]] = {
    check.__name__: check
    for check in (
        check_files.compiles,
        check_files.used,
        check_files.deploys,
        check_files.parameter_file,
        check_files.azd,
        check_files.documented,
        check_app.app_settings,
        check_app.identity_settings,
        check_app.threads,
        check_app.containers_and_queues,
        check_app.connections,
        check_app.events,
        check_deployment.flex,
        check_deployment.without_a_url,
        check_deployment.names,
        check_deployment.region,
        check_deployment.options,
        check_deployment.settings_stay,
        check_deployment.next_steps,
        check_deployment.packed,
        check_safety.permissions,
        check_safety.safety,
        check_safety.private_network,
        check_wiring.order,
        check_wiring.outputs,
        check_queries.queries,
        check_queries.alerts,
    )
}
