"""The check: what the tests of the page (tests/e2e/test_operate.py) can't see."""

from collections.abc import Callable
from datetime import timedelta

from shared import blobs, checking
from shared.blobs import DataAccount
from shared.bridge import Bridge
from tests.conftest import contents, drop


def test_a_check_leaves_the_probe_of_another_alone(
    bridge: Bridge, account: DataAccount, later: Callable[[timedelta], None]
) -> None:
    """Only one that a check has left behind goes; and no file that somebody gave such a name."""
    other, file = drop(account, blobs.new_probe()), drop(account, ".check-list.csv")

    def check() -> set[str]:
        (line,) = (line for line in checking.check(bridge, 0) if line.what.startswith("event"))
        assert line.verdict == "wrong"
        return set(contents(account, blobs.IMPORTS))

    assert check() == {other, file}
    later(timedelta(minutes=11))
    assert check() == {file}
