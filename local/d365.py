"""`dev.py d365 …`: what a person does in D365, done in the simulator of a running demo.

messages      D365's form Manage messages: the files that it has, with their message ids
mend          correct the data that made D365 reject files: from now on it accepts them
lose-answer   the next file arrives in D365, but its answer is lost on the way: the bridge holds the file
"""

import argparse
import sys
from typing import Any

import requests

from local.registry import running_demos


def main() -> int:
    """Do one of these in the demo that is running."""
    parser = argparse.ArgumentParser(
        "dev.py d365", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("messages", "mend", "lose-answer"))
    parser.add_argument(
        "--demo", type=int, metavar="PID", help="the process id of the demo, if several are running"
    )
    arguments = parser.parse_args()
    demos = [demo for demo in running_demos() if arguments.demo in (None, demo.pid)]
    if len(demos) != 1:
        pids = ", ".join(str(demo.pid) for demo in demos)
        sys.exit(
            f"Several demos are running; say which with --demo, one of: {pids}"
            if demos
            else "No demo is running. Start one with: python3 dev.py demo --keep"
        )

    def control(what: str, **fields: Any) -> Any:
        answer = requests.post(f"{demos[0].d365}/control/{what}", json=fields, timeout=10)
        answer.raise_for_status()
        return answer.json()

    match arguments.what:
        case "mend":
            control("settings", reject_text=[])
            print("D365 accepts all files from now on.")
        case "lose-answer":
            control("fault", operation="enqueue", do="reset-after")
            print("D365 will accept the next file, but its answer will be lost.")
        case _:
            for each in control("state")["received"]:
                print(f"{each['message_id']}  {each['status']:<20} {each['external_id']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
