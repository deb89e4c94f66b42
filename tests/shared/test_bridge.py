"""What an invocation may use: its time, and its slots among those of the other environments."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from local.simulator import Simulator
from shared import bridge as bridges
from shared import deadline
from shared.bridge import MOST_HANGING, Bridge

ROOT = Path(__file__).resolve().parents[2]


def test_an_invocation_has_somewhat_less_than_its_time_out(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the host kills can't say what became of it."""
    left: list[float] = []
    monkeypatch.setattr(bridges, "bridge", lambda: bridge)
    bridges.run(lambda _: left.append(deadline.left()))
    limit = bridge.settings.function_timeout
    assert limit / 2 < timedelta(seconds=left[0]) < limit


def test_the_host_takes_up_more_while_so_many_hang() -> None:
    """It takes no message up while more are under way than its threshold."""
    extensions = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))["extensions"]
    assert extensions["queues"]["newBatchThreshold"] == MOST_HANGING
    assert extensions["blobs"]["maxDegreeOfParallelism"] // 2 == MOST_HANGING


def test_an_only_environment_has_all_invocations(bridge: Bridge, d365: Simulator) -> None:
    """There is none that it could hold up."""
    with ThreadPoolExecutor(10) as pool:
        entered = [pool.submit(bridge.slot("files", "default").__enter__) for _ in range(10)]
        assert all(each.result() for each in entered)
