"""Two environments behind one app, in the host: one hangs, and the other does not know it."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from local.samples import VENDORS, Part, package
from local.simulator import Simulator, running_simulator
from shared.bridge import MOST_HANGING
from shared.storage.account import EXPORTS, FAILED, PROCESSING, SUCCEEDED, DataAccount
from tests.e2e.helpers import Start
from tests.helpers import EXPORT_ID, IMPORT_ID, contents, drop, wait_for


@pytest.fixture(params=[1, 5], ids=["one", "five"])
def hanging(request: pytest.FixtureRequest, d365: Simulator) -> Iterator[list[Simulator]]:
    """Environments that take every request and answer none: one, or as many as an instance has invocations."""
    with ExitStack() as stack:
        simulators = [stack.enter_context(running_simulator()) for _ in range(request.param)]
        for simulator in simulators:
            simulator.issuer = d365
            simulator.add_export_job(EXPORT_ID)
            simulator.add_import_job(IMPORT_ID)
            simulator.add_fault("*", "hang", times=10_000, seconds=3600.0)
        yield simulators


def test_environments_that_hang_hold_up_nothing_of_the_other(
    start: Start, d365: Simulator, hanging: list[Simulator], account: DataAccount
) -> None:
    """More files of theirs than an instance has invocations, and a run that waits for them: what is of the
    other is sent, tracked to its end and exported, each once. Of the hanging ones nothing is lost."""
    urls = {"good": d365.base_url}
    urls |= {f"bad{number}": each.base_url for number, each in enumerate(hanging)}

    def sent() -> int:
        return sum(each.count("enqueue") for each in hanging)

    jobs = {
        "environments": [{"name": name, "url": url} for name, url in urls.items()],
        "exports": [
            {"name": f"vendors-{name}", "activityId": EXPORT_ID, "environment": name}
            for name in urls
        ],
        "imports": [
            {
                "name": f"journals-{name}",
                "activityId": IMPORT_ID,
                "entity": "General journal",
                "environment": name,
            }
            for name in urls
        ],
    }
    packages = [
        d365.add_package(EXPORT_ID, package(f"Vendors {number}", [Part(VENDORS, 9)]))
        for number in range(3)
    ]
    bad = [name for name in urls if name != "good"]
    names = [f"journals-{bad[number % len(bad)]}/{number}.csv" for number in range(12)]
    with start(jobs, D365_URL="", EXPORT_SCHEDULE="* * * * * *") as app:
        for name in names:
            drop(account, name)
        wait_for(lambda: sent() >= MOST_HANGING, app.output)
        for number in range(4):
            drop(account, f"journals-good/{number}.csv")
        wait_for(lambda: len(contents(account, SUCCEEDED)) == 4, app.output)
        wait_for(lambda: all(each.acknowledged for each in packages), app.output)
        later = d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 9)]))
        wait_for(lambda: later.acknowledged, app.output)
    assert len(d365.received) == 4
    assert [each.acknowledged for each in (*packages, later)] == [1, 1, 1, 1]
    assert len(contents(account, EXPORTS)) == 4
    assert contents(account, FAILED) == {}
    assert [each.received for each in hanging] == [[]] * len(hanging)
    processing = contents(account, PROCESSING)
    assert all(name.startswith("journals-bad") for name in processing)
    assert sent() <= 2 * MOST_HANGING  # of either function that sends files
