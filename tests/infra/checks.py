"""The checks of `infra/`, each a function from the folder to what is wrong: nothing, when all is well.

They look at what the files *deploy* (`variants.py`) and compare it with Azure's types, and with what the code
*does*: the settings that it reads as it starts, the triggers that it registers, the calls that it makes.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.infra import check_app, check_files, check_queries, check_safety, check_wiring
from tests.infra.bicep import Mistake
from tests.infra.variants import INFRA

CHECKS: Final[Mapping[str, Callable[[Path], Iterator[str]]]] = {
    check.__name__: check
    for check in (
        check_files.files,
        check_files.deploys,
        check_files.parameter_file,
        check_files.types,
        check_files.azd,
        check_files.documented,
        check_app.app_settings,
        check_app.identity_settings,
        check_app.threads,
        check_app.containers_and_queues,
        check_app.connections,
        check_app.events,
        check_safety.permissions,
        check_safety.safety,
        check_safety.private_network,
        check_safety.next_steps,
        check_wiring.wiring,
        check_wiring.outputs,
        check_queries.queries,
        check_queries.workbook,
        check_queries.alerts,
    )
}


def run(name: str, infra: Path = INFRA) -> list[str]:
    """What a check finds; also that a file can't be evaluated, or lacks what the check reads in it."""
    found: dict[str, None] = {}
    try:
        found |= dict.fromkeys(CHECKS[name](infra))
    except Mistake as mistake:
        found[str(mistake)] = None
    except KeyError as error:
        found[f"{error} is missing"] = None
    return list(found)
