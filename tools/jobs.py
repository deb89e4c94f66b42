"""`d365-blob-bridge jobs [FILE]`: whether a jobs file is right; if not, every mistake with its place.

The workflow asks it before a deployment.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.config import jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the file names; exits with 1 and the mistakes where it is wrong."""
    parser = argparse.ArgumentParser("d365-blob-bridge jobs", description="Check a jobs file.")
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=Path("jobs.json"),
        help="default: jobs.json",
        metavar="FILE",
    )
    path: Path = parser.parse_args(arguments).file
    try:
        served = jobs.load(path)
    except jobs.InvalidJobs as error:
        sys.exit(str(error))
    print(f"{path}: {len(served.imports)} import jobs, {len(served.exports)} export jobs")
    return 0
