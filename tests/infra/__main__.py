"""`python3 dev.py infra`: every check with its answer, and whether they find each row of infra.toml."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.infra import compiler
from tests.infra.checks import CHECKS
from tests.infra.mutations import finding
from tests.infra.variants import INFRA, Missing
from tests.mutations.table import INFRA as MUTATIONS
from tests.mutations.table import Mutation


def main() -> int:
    """Print every check; 1 if anything is wrong, 0 also where there is no compiler and `CI` is not set."""
    if compiler.find_compiler() is None:
        print(compiler.HOW_TO_GET)
        return 1 if os.environ.get("CI") else 0
    # Two also where there are more cores: each thread has a compiler of its own, which takes seconds to warm.
    with ThreadPoolExecutor(2) as pool:
        failed = 0
        for (name, check), wrong in zip(CHECKS.items(), pool.map(answer, CHECKS), strict=True):
            says = " ".join((check.__doc__ or "").split())
            print(f"{'ok   ' if not wrong else 'wrong'}  {name}: {says}")
            for each in wrong:
                print(f"         {each}")
            failed += bool(wrong)
        print(f"{len(CHECKS)} checks, {failed} with something wrong")
        unseen = [text for text in pool.map(unfound, MUTATIONS) if text]
    print(f"{len(MUTATIONS)} changes of infra/, {len(unseen)} not found by their check")
    for each in unseen:
        print(f"         {each}")
    return 1 if failed or unseen else 0


def answer(name: str) -> list[str]:
    """What a check finds; also that a file can't be compiled, or lacks what the check looks at."""
    try:
        return list(CHECKS[name](INFRA))
    except (compiler.NotCompiled, Missing) as error:
        return [str(error)]


def unfound(mutation: Mutation) -> str:
    """The change, if its check does not find it, with the reason."""
    with TemporaryDirectory() as folder:
        try:
            return "" if finding(mutation, Path(folder)) else str(mutation)
        except (compiler.NotCompiled, ValueError) as error:
            return f"{mutation}: {error}"


sys.exit(main())
