"""`dev.py d365 COMMAND`: do in the simulator of a running demo what a person does in D365.

messages      list the files that D365 received, with their message ids, as its form Manage messages does
mend          correct the data that made D365 reject files: from now on it accepts them
lose-answer   lose D365's answer to the next file: D365 receives the file, and the bridge holds it
"""

import argparse
import sys
from typing import Any

import requests

from local.registry import choose_demo


def main() -> int:
    """Run one of these commands on a running demo."""
    parser = argparse.ArgumentParser(
        "dev.py d365", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("messages", "mend", "lose-answer"))
    parser.add_argument(
        "--demo", type=int, metavar="PID", help="the process id of the demo, if several are running"
    )
    arguments = parser.parse_args()
    demo = choose_demo(arguments.demo)

    def control(method: str, **fields: Any) -> Any:
        response = requests.post(f"{demo.d365}/control/{method}", json=fields, timeout=10)
        response.raise_for_status()
        return response.json()

    match arguments.command:
        case "mend":
            control("settings", reject_text=[])
            print("D365 accepts all files from now on.")
        case "lose-answer":
            control("fault", operation="enqueue", do="reset-after")
            print("D365 will accept the next file, but its answer will be lost.")
        case _:
            for file in control("state")["received"]:
                print(f"{file['message_id']}  {file['status']:<20} {file['external_id']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
