"""Subscribe the deployed app to the events of dropped files: wake it, then deploy events.bicep.

    python3 infra/subscribe.py GROUP APP DATA_ACCOUNT TOPIC
    python3 infra/subscribe.py --check

The names are outputs of main.bicep; `--check` only says whether this can run here, before a deployment.

Event Grid asks the app for a confirmation, which an app that is just starting does not give in time: so there
are five tries. azd runs this after it has deployed the code (azure.yaml). It uses the Azure CLI's sign-in, and
the subscription AZURE_SUBSCRIPTION_ID where that is set. Standard library only, for any Python from 3.9.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

TEMPLATE = Path(__file__).resolve().with_name("events.bicep")
WAITS = (0, 15, 30, 60, 120)
"""Seconds before each try: an app may take half a minute to start, a new role some minutes to arrive."""
WAKING = 120
"""Seconds that a start may take."""


class Failed(Exception):
    """What went wrong, and what to do."""


def az(*arguments: str) -> str:
    """What the Azure CLI prints. It says its errors itself, on stderr; raises `Failed` after them."""
    command = shutil.which("az")
    if not command:
        raise Failed("The Azure CLI (az) is needed: install it (https://aka.ms/azure-cli).")
    subscription = os.environ.get("AZURE_SUBSCRIPTION_ID")
    chosen = ["--subscription", subscription] if subscription else []
    process = subprocess.run(
        [command, *arguments, *chosen], stdout=subprocess.PIPE, encoding="utf-8", check=False
    )
    if process.returncode:
        raise Failed(f"az {' '.join(arguments[:2])} failed.")
    return process.stdout.strip()


def check() -> None:
    """Raises `Failed` where `az` is missing or not signed in."""
    try:
        az("account", "show", "--output", "none")
    except Failed as error:
        raise Failed(f"{error} Then sign in to the subscription: az login") from None


def wake(host: str) -> None:
    """Call the app, so that it starts. An error is an answer too: without a key the app says 401."""
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"https://{host}/runtime/webhooks/blobs", timeout=WAKING)


def subscribe(group: str, app: str, data_account: str, topic: str) -> None:
    """Deploy events.bicep until it succeeds. Raises `Failed` after the last try."""
    site = ["--name", app, "--resource-type", "Microsoft.Web/sites"]
    name = ["--query", "properties.defaultHostName", "--output", "tsv"]
    host = az("resource", "show", "--resource-group", group, *site, *name)
    deployment = ["--resource-group", group, "--name", "bridge-events", "--output", "none"]
    deployment += ["--template-file", str(TEMPLATE), "--parameters", f"functionAppName={app}"]
    deployment += [f"dataAccountName={data_account}", f"topicName={topic}"]
    for failed, wait in enumerate(WAITS):
        if failed:
            print(f"Try {failed} of {len(WAITS)} failed; again in {wait} seconds.", flush=True)
            time.sleep(wait)
        wake(host)
        with contextlib.suppress(Failed):
            az("deployment", "group", "create", *deployment)
            print("The app is subscribed to the events of dropped files.")
            return
    raise Failed(
        "The app is deployed, but not subscribed to the events of dropped files. Until it is, the timer"
        " finds them, within ten minutes. See docs/deploy.md, step 4, whether the app runs; then run this"
        " again (azd deploy does)."
    )


def main() -> int:
    """0, or 1 with what went wrong on stderr."""
    try:
        if sys.argv[1:] == ["--check"]:
            check()
        elif len(sys.argv) == 5:
            subscribe(*sys.argv[1:])
        else:
            raise Failed(__doc__ or "")
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
