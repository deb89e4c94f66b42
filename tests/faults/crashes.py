"""The crash matrix: the app's process is killed before and after every request that it makes.

A clean run of each flow is recorded first; its requests are the points, so new code is covered by itself.
Then, for each point, a scenario of its own: the process dies there by SIGKILL, another one is started, and when
nothing is left to do the containers are compared with what D365 gave and took.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from local.azurite import Azurite
from local.host_process import RunningHost, running_host
from local.samples import VENDORS, Part, package, write_large_package
from local.simulator import Simulator, running_simulator
from tests.faults import operator
from tests.faults.forkserver import start_host
from tests.faults.scenario import FUNCTION_TIMEOUT, NEVER, OFTEN, Scenario

SETTLE_SECONDS = 120
"""Without a change of `Scenario.state`, after which nothing more is awaited: a slow machine may take longer."""
LOOK_SECONDS = 10
"""Between two looks for a change."""
LONGEST_SECONDS = 900
LATER = 300
"""Seconds, more than a file waits for its next try after some in vain."""
AT_ONCE = 10
HIDDEN_SECONDS = 2.0
"""Less than D365 is asked for an execution that it does not know."""
ALWAYS = ("/enqueue/", "/ack/", "ImportFromPackage", "ExportToPackage")
"""Points that hold one of these are tried even where few are."""


def _nothing(_: RunningHost) -> None:
    return


def _content(_: Scenario, __: RunningHost) -> bool:
    return False


@dataclass(frozen=True)
class Flow:
    """What happens in a scenario until all is done."""

    name: str
    begin: Callable[[Scenario], None]
    """What people and D365 do before the app starts."""
    drive: Callable[[RunningHost], None] = _nothing
    tend: Callable[[Scenario, RunningHost], bool] = _content
    """What people do once the app has done all it can; False when nothing is left for them either."""
    when_uncertain: str = "hold"
    statuses: tuple[str, ...] = ("Processed",)
    events: bool = True
    template: bool = False
    api: Literal["recurring", "package"] = "recurring"
    ordered: bool = False
    project: bool = False
    """Whether a data project is exported."""
    by_storage: int = 0
    """Bytes from which on storage itself moves a package, until the crash; 0: never."""
    too_large: bool = False
    """Whether every file is too large for its recurring data job, and goes by the package API."""
    loses: bool = False
    """Whether D365 loses the first execution of a data project after it has accepted it."""
    used_id: Literal["rejected", "taken"] = "rejected"
    """What D365 does with an execution id that it has already."""
    hidden_seconds: float = 0.0
    """For so long D365 does not know an execution that it has begun."""
    only_after: str = ""
    """Points before the first request that holds this are those of another flow."""
    also: Callable[[Scenario], list[str]] = lambda _: []
    """What must hold at the end besides `Scenario.violations`."""
    function_timeout: str = FUNCTION_TIMEOUT
    twin: bool = False
    """Whether there is another environment, which is down until the crash."""


@dataclass(frozen=True)
class Point:
    """A request of the clean run: the `nth` of its description, the `number`th of all."""

    number: int
    request: str
    nth: int
    when: str


@dataclass(frozen=True)
class Result:
    """What came of one crash."""

    flow: str
    number: int
    request: str
    when: str
    outcome: str
    violations: list[str]


def _packages(scenario: Scenario) -> None:
    scenario.offer(2, package("Vendors", [Part(VENDORS, 30)]))
    scenario.offer(1, scenario.folder.with_name("large.zip"))


def _both(scenario: Scenario) -> None:
    """A package and a file in either environment."""
    for each in scenario.scenarios:
        each.offer(2, package("Vendors", [Part(VENDORS, 30)]))
        each.drop("USMF/may.csv", f"1;2;{scenario.number}{each.suffix}".encode())


def _due(scenario: Scenario) -> None:
    scenario.let_be_due()


def _file(scenario: Scenario) -> None:
    scenario.drop("USMF/may.csv", f"1;2;{scenario.number}".encode())


def _package(scenario: Scenario) -> None:
    scenario.drop("USMF/vendors.zip", package(f"Vendors {scenario.number}", [Part(VENDORS, 30)]))


def _bad_file(scenario: Scenario) -> None:
    scenario.drop("USMF/may.csv", f"1;REJECT;{scenario.number}".encode())


def _files(scenario: Scenario) -> None:
    for name in ("file 3", "file 20", "file 10"):  # their order is the reverse
        scenario.drop(f"USMF/{name}.csv", f"{name};{scenario.number}".encode())


def _export(host: RunningHost) -> None:
    host.invoke("export_packages", wait=False)


def _reconcile(host: RunningHost) -> None:
    time.sleep(2)  # past this the file counts as missed: a sixth of the time-out
    host.invoke("reconcile", wait=False)


EXPORT = Flow(
    "export",
    _packages,
    _export,
    # Six scenarios move 9 MiB each at once, beside other tests: nothing here waits for a time-out.
    function_timeout="00:01:00",
)
FLOWS = (
    EXPORT,
    Flow(
        "export, data project",
        _due,
        _export,
        project=True,
        used_id="taken",
        hidden_seconds=HIDDEN_SECONDS,
    ),
    Flow(
        "export, data project by storage",
        _due,
        _export,
        project=True,
        by_storage=1000,
    ),
    Flow(
        "export, data project that D365 loses",
        _due,
        _export,
        project=True,
        loses=True,
    ),
    Flow("import, hold", _file),
    Flow("import, resend", _file, when_uncertain="resend"),
    Flow("import, template", _file, template=True),
    Flow(
        "import, package API",
        _file,
        template=True,
        api="package",
        used_id="taken",
        hidden_seconds=HIDDEN_SECONDS,
    ),
    Flow("import, package API by storage", _package, api="package", by_storage=1000),
    Flow("import, package API that loses", _package, api="package", loses=True),
    Flow("ordered, package API", _files, template=True, api="package", ordered=True),
    Flow("import, too large, hold", _package, too_large=True),
    Flow("import, too large, resend", _package, too_large=True, when_uncertain="resend"),
    Flow("status", _bad_file, only_after="GetMessageStatus"),
    Flow("reconcile", _file, _reconcile, events=False),
    Flow("ordered", _files, ordered=True),
    Flow("two environments", _both, _export, twin=True),
    Flow("resend", operator.trouble, tend=operator.tend, also=operator.untended),
)


class Matrix:
    """Runs crashes on one Azurite, each in a storage account of its own."""

    def __init__(self, azurite: Azurite, accounts: Iterable[str], folder: Path) -> None:
        self._azurite, self._folder = azurite, folder
        self._accounts = iter(accounts)
        write_large_package(folder / "large.zip", 9 << 20)  # of more than one block

    def requests(self, flow: Flow) -> list[str]:
        """Those of a clean run of a flow."""
        with self._environments(flow) as environments:
            return self._record(flow, environments)

    def run(self, flow: Flow, *, every: int = 1) -> Iterator[Result]:
        """The results of a flow; with `every`, those of each so many points alone."""
        with self._environments(flow) as environments:
            requests = self._record(flow, environments)
            points = crash_points(requests, flow.only_after)
            chosen = [
                point
                for index, point in enumerate(points)
                if index % every == 0 or any(part in point.request for part in ALWAYS)
            ]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                yield from pool.map(lambda point: self._crash(flow, environments, point), chosen)

    @contextmanager
    def _environments(self, flow: Flow) -> Iterator[list[Simulator]]:
        with ExitStack() as stack:
            environments = [
                stack.enter_context(running_simulator()) for _ in range(2 if flow.twin else 1)
            ]
            for d365 in environments:
                d365.use_storage(self._azurite.connection_string)
                d365.package_api.statuses = ("Executing", "Succeeded")
                d365.package_api.vanishing = int(flow.loses)
                d365.package_api.used_id = flow.used_id
                d365.package_api.hidden_seconds = flow.hidden_seconds
                if flow.too_large:
                    d365.largest_body = 10
                d365.reoffer_seconds = 0.0
                d365.statuses = flow.statuses
            yield environments

    def _scenario(self, flow: Flow, environments: Sequence[Simulator]) -> Scenario:
        account = next(self._accounts)
        number = int(account.removeprefix("case"))
        folder = self._folder / account
        connection = self._azurite.connection_string_of(account)
        uncertain, ordered = flow.when_uncertain, flow.ordered
        scenario = Scenario(
            number,
            connection,
            environments[0],
            folder,
            uncertain,
            ordered,
            flow.template,
            flow.api,
            loses=flow.loses,
            project=flow.project,
            too_large=flow.too_large,
        )
        scenario.function_timeout = flow.function_timeout
        scenario.twin_is_down = flow.twin
        for other in environments[1:]:
            scenario.add_twin(other)
        flow.begin(scenario)
        return scenario

    def _record(self, flow: Flow, environments: Sequence[Simulator]) -> list[str]:
        scenario = self._scenario(flow, environments)
        log = scenario.folder / "requests"
        plan = {"record": str(log), "byStorage": flow.by_storage}
        with self._host(scenario, flow, plan) as host:
            flow.drive(host)
            _until_settled(scenario, flow, host)
        if flow.twin:
            self._settle(scenario, flow)
        if wrong := [*scenario.violations(), *flow.also(scenario)]:
            raise RuntimeError(f"the clean run of {flow.name} is not clean: {wrong}")
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    def _crash(self, flow: Flow, environments: Sequence[Simulator], point: Point) -> Result:
        scenario = self._scenario(flow, environments)
        record = str(scenario.folder / "requests")
        plan = {
            "record": record,
            "kill": point.request,
            "nth": point.nth,
            "when": point.when,
            "byStorage": flow.by_storage,
        }
        with self._host(scenario, flow, plan) as host:
            with suppress(OSError):  # it may die before it answers
                flow.drive(host)
            _until_settled(scenario, flow, host)
            died = not host.alive()
        self._settle(scenario, flow)
        outcome = scenario.outcome() + ("" if died else " (that request was not made)")
        violations = [*scenario.violations(), *flow.also(scenario)]
        return Result(flow.name, point.number, point.request, point.when, outcome, violations)

    def _settle(self, scenario: Scenario, flow: Flow) -> None:
        """Let the app do what is left, with the twin there again, later than what waits for it is due."""
        scenario.twin_is_down = False
        scenario.write_jobs()
        plan = {"ahead": LATER if flow.twin else 0}
        with self._host(scenario, flow, plan, timers=OFTEN) as host:
            _until_settled(scenario, flow, host)
            time.sleep(1.5)  # for what should not come, such as a second copy

    @contextmanager
    def _host(
        self, scenario: Scenario, flow: Flow, plan: Mapping[str, object], timers: str = NEVER
    ) -> Iterator[RunningHost]:
        options = () if flow.events else ("--no-events",)
        environment = {"BRIDGE_FAULTS": json.dumps(plan)}
        settings = scenario.settings(timers=timers)
        with running_host(settings, *options, environment=environment, start=start_host) as host:
            yield host


def crash_points(requests: Iterable[str], only_after: str = "") -> list[Point]:
    """Before and after each request, from the first on that holds `only_after`."""
    points: list[Point] = []
    counts: Counter[str] = Counter()
    begun = False
    for number, request in enumerate(requests, 1):
        counts[request] += 1
        begun = begun or only_after in request
        if begun:
            points += [
                Point(number, request, counts[request], when) for when in ("before", "after")
            ]
    return points


def _until_settled(scenario: Scenario, flow: Flow, host: RunningHost) -> None:
    """Until nothing is left to do, for the app and for people, or the app's process is dead."""
    wait_until_settled(
        scenario, lambda: not host.alive() or (scenario.settled() and not flow.tend(scenario, host))
    )


def wait_until_settled(
    scenario: Scenario, settled: Callable[[], bool], patience: float = SETTLE_SECONDS
) -> None:
    """Wait until all is settled, or nothing has changed for `patience` seconds."""
    started = looked = changed = time.monotonic()
    state = scenario.state()
    while not settled():
        now = time.monotonic()
        if now > looked + LOOK_SECONDS:
            looked = now
            if (new := scenario.state()) != state:
                state, changed = new, now
        if now > min(changed + patience, started + LONGEST_SECONDS):
            return
        time.sleep(0.5)


def accounts(count: int) -> list[str]:
    """Names of storage accounts."""
    return [f"case{number}" for number in range(100, 100 + count)]
