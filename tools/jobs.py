"""`d365-blob-bridge jobs [FILE]`: check a jobs file; print every mistake with its place.

The deployment workflow runs it first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.config import jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how many jobs the file has. If it is wrong, exit with 1 and print the mistakes."""
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
        loaded = jobs.load(path)
    except jobs.InvalidJobs as error:
        sys.exit(str(error))
    print(f"{path}: {len(loaded.imports)} import jobs, {len(loaded.exports)} export jobs")
    return 0
