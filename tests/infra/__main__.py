"""`python3 dev.py infra`: every check with its answer."""

import sys

from tests.infra.checks import CHECKS, run


def main() -> int:
    """Print every check; 1 if anything is wrong."""
    failed = 0
    for name, check in CHECKS.items():
        wrong = run(name)
        says = " ".join((check.__doc__ or "").split())
        print(f"{'ok   ' if not wrong else 'wrong'}  {name}: {says}")
        for each in wrong:
            print(f"         {each}")
        failed += bool(wrong)
    print(f"{len(CHECKS)} checks, {failed} with something wrong")
    return 1 if failed else 0


sys.exit(main())
