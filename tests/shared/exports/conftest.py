"""What the tests of exports share."""

import json
from dataclasses import replace

import pytest

from shared.bridge import Bridge
from shared.config import jobs
from tests.helpers import EXPORT_ID


@pytest.fixture
def unzipping(bridge: Bridge) -> Bridge:
    """A bridge whose job unzips, one package after the other."""
    raw = {"exports": [{"name": "vendors", "activityId": EXPORT_ID, "unzip": True}]}
    whole = replace(
        bridge.settings, jobs=jobs.parse(json.dumps(raw).encode()), export_parallelism=1
    )
    return replace(bridge, settings=whole)
