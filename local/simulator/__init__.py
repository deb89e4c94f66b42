"""A simulator of a D365 environment and of its identity endpoint, on loopback.

It does what `docs/d365-api.md` says of D365. A `Fault` makes it answer wrongly, late, in part or not at all. It
records every request and every file that it received, so that a test can compare them with what was sent.

`python -m local.simulator` serves it in a process of its own, where `/control/...` calls `Simulator`'s methods.
"""

from local.simulator.application import running_simulator
from local.simulator.identity import identity_settings
from local.simulator.records import GATEWAY_ERRORS, Fault, Package, Received, Recorded
from local.simulator.state import Simulator

__all__ = [
    "GATEWAY_ERRORS",
    "Fault",
    "Package",
    "Received",
    "Recorded",
    "Simulator",
    "identity_settings",
    "running_simulator",
]
