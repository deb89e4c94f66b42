"""A D365 environment on loopback, as far as `docs/d365-api.md` says what one does, with its identity endpoint.

It keeps to the contract and, on request, breaks it: faults make it answer wrongly, late, in part or not at
all. Everything that it was asked and everything that it took is recorded, so that a test can compare both.

`python -m local.simulator` serves it alone; `/control/...` then stands for `Simulator`'s methods.
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
