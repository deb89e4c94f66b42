"""`python -m local.simulator [--port N] [--cert FILE --key FILE]`: a simulator in a process of its own."""

import argparse
import contextlib
import json
import time

from local.simulator import identity_settings, running_simulator


def main() -> None:
    """Serve a simulator until interrupted. The first line on stdout has its URL."""
    parser = argparse.ArgumentParser(
        "python -m local.simulator", description="A D365 environment on loopback."
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert", metavar="FILE", help="serve over TLS with this certificate")
    parser.add_argument("--key", metavar="FILE", help="its key, if it is not in the same file")
    options = parser.parse_args()
    with running_simulator(options.port, cert=options.cert, key=options.key) as simulator:
        print(json.dumps({"url": simulator.base_url, **identity_settings(simulator)}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
