"""`dev.py jobs [FILE]`: whether a jobs file is right; if not, every mistake with its place.

It needs nothing but what is deployed, so the workflow asks it before a deployment.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from shared.config import jobs


def main(arguments: Sequence[str]) -> int:
    """Print what the file names; exits with 1 and the mistakes where it is wrong."""
    path = Path(*arguments or ["jobs.json"])
    try:
        served = jobs.load(path)
    except jobs.InvalidJobs as error:
        sys.exit(str(error))
    print(f"{path}: {len(served.imports)} import jobs, {len(served.exports)} export jobs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
