"""`dev.py drop FILE JOB`: drops a file into a job's folder of a running demo, as a person would."""

import argparse
import sys
from pathlib import Path

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient

from local.registry import choose_demo
from shared.storage.account import IMPORTS


def main() -> None:
    parser = argparse.ArgumentParser(
        "dev.py drop", description="Drop a file into a demo that was started with --keep."
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("job", help="JOB, or JOB/COMPANY")
    parser.add_argument(
        "--demo", type=int, metavar="PID", help="the process id of the demo, if several are running"
    )
    arguments = parser.parse_args()
    demo = choose_demo(arguments.demo)
    job = arguments.job.strip("/")
    if job.split("/")[0] not in demo.jobs:
        print(
            f"(The demo has no such import job, so the file will fail. Its jobs: {', '.join(demo.jobs)})"
        )
    name = f"{job}/{arguments.file.name}"
    with (
        BlobServiceClient.from_connection_string(demo.connection_string) as service,
        arguments.file.open("rb") as content,
    ):
        try:
            service.get_blob_client(IMPORTS, name).upload_blob(content)
        except ResourceExistsError:
            sys.exit(f"{IMPORTS}/{name} is still waiting to be imported; try again later.")
    print(f"Dropped {IMPORTS}/{name}")


if __name__ == "__main__":
    main()
