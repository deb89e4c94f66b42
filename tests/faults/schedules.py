"""Random schedules: two workers, faults on both sides, repeated and lost events and messages, storage away.

What happens is drawn from a seed; in the end everything is let be, and must come to the same order as ever. The
seed gives the same actions again, though not the same instants: what two processes make of them is their own.
"""

import json
import random
import shutil
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests
from azure.core.exceptions import AzureError
from azure.storage.queue import QueueServiceClient

from local.azurite import Azurite, running_azurite
from local.host_process import RunningHost, running_host
from local.samples import VENDORS, Part, package, write_large_package
from local.simulator import GATEWAY_ERRORS, Simulator, running_simulator
from shared.storage.account import EXPORT_JOBS_QUEUE, STATUS_QUEUE
from tests.faults.crashes import wait_until_settled
from tests.faults.forkserver import start_host
from tests.faults.scenario import JOBS, OFTEN, OTHER_JOBS, Scenario

STORAGE_FAULTS = 0.02
"""Of so many of the app's requests to storage the connection breaks."""

LONGER_THAN_LIMITS = 4 * 24 * 3600
"""Seconds: more than a file is tried to be sent, or asked after."""

BY_STORAGE = 1000
"""Bytes of a package of the package API that some workers have storage itself move, in blocks of so many."""

PATIENCE = 400
"""Seconds. A package that has waited for its turn some times looks again only after minutes: each wait is twice
as long as the one before."""

ORDERED_FILES = 3
"""Files of an ordered job that lie there before any worker starts."""

FAULTS: tuple[tuple[str, dict[str, object]], ...] = (
    # What proves that D365 did nothing, what leaves it open, and what it does with the answer lost. Not
    # what is an answer of its own, such as 400: that ends a file, and is another test's matter.
    ("*", {"do": "answer", "status": 429, "headers": {"Retry-After": "1"}}),
    ("*", {"do": "answer", "status": 503, "headers": {"Retry-After": "1"}}),
    ("*", {"do": "answer", "status": 500, "body": '{"Message": "An error has occurred."}'}),
    ("*", {"do": "reset"}),
    ("enqueue", {"do": "reset-during", "bytes": 1}),
    ("enqueue", {"do": "reset-after"}),
    ("enqueue", {"do": "answer-after", "status": 504}),
    *(
        (operation, {"do": "answer-after", "status": 500, "body": body})
        for operation in ("enqueue", "acknowledge")
        for body in GATEWAY_ERRORS.values()
    ),
    ("*", {"do": "interim", "status": 103}),
    ("acknowledge", {"do": "reset-after"}),
    ("acknowledge", {"do": "answer", "status": 500}),
    ("acknowledge", {"do": "answer", "status": 200, "body": GATEWAY_ERRORS["ASP.NET"]}),
    ("dequeue", {"do": "answer", "status": 200, "body": GATEWAY_ERRORS["Envoy"]}),
    ("download", {"do": "drip", "bytes": 1000, "seconds": 0.05}),
    ("download", {"do": "truncate", "bytes": 900}),
    ("download", {"do": "truncate-silently", "bytes": 900}),
    (
        "download",
        {"do": "corrupt", "bytes": 300},
    ),  # in the data: times and the like have no checksum
    ("download", {"do": "gzip"}),
    ("download", {"do": "reset-during", "bytes": 900}),
    ("message_status", {"do": "answer", "status": 502}),
    ("job_status", {"do": "answer", "status": 404}),
    ("execution_id", {"do": "answer", "status": 404}),
    ("import_package", {"do": "reset"}),
    ("import_package", {"do": "reset-after"}),
    ("import_package", {"do": "answer-after", "status": 504}),
    ("import_package", {"do": "answer-after", "status": 200, "body": "<html>"}),
    ("export_package", {"do": "reset"}),
    ("export_package", {"do": "reset-after"}),
    ("export_package", {"do": "answer-after", "status": 504}),
    ("export_package", {"do": "answer-after", "status": 200, "body": "<html>"}),
    ("exported_url", {"do": "answer", "status": 502}),
    ("exported_url", {"do": "answer", "status": 200, "body": '{"value": ""}'}),
    ("execution_details", {"do": "answer", "status": 403}),
    ("write_url", {"do": "answer", "status": 200, "body": '{"value": ""}'}),
    ("execution_status", {"do": "answer", "status": 502}),
)


@dataclass
class Run:
    """One schedule."""

    seed: int
    seconds: float
    azurite: Azurite
    scenario: Scenario
    stack: ExitStack
    large: Path
    hosts: list[RunningHost | None] = field(default_factory=lambda: [None, None])
    actions: Counter[str] = field(default_factory=Counter)
    ahead: int = 0
    """Seconds by which the workers' clocks are ahead, from outages."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    # -- actions ------------------------------------------------------------------------------------

    def _one(self) -> Scenario:
        """Whose turn it is to be dropped into, to export or to be in trouble."""
        return self.random.choice(self.scenario.scenarios) if self.scenario.twin else self.scenario

    def _dropped(self) -> list[str]:
        return [name for scenario in self.scenario.scenarios for name in scenario.dropped]

    def drop(self) -> None:
        """A person drops a file."""
        number, order = len(self._dropped()), self.random.randrange(100)
        if self.scenario.too_large or (
            self.scenario.api == "package" and not self.scenario.template
        ):
            data = package(f"{self.seed} {number}", [Part(VENDORS, self.random.randrange(1, 300))])
            self._one().drop(f"USMF/file {order} {number}.zip", data)
            return
        data = f"{self.seed};{number};".encode() * self.random.choice((1, 50, 100_000))
        self._one().drop(f"USMF/file {order} {number}.csv", data)  # in no order, by name or number

    def write_in_steps(self) -> None:
        """A program writes a file in two steps, and commits it after each."""
        number = len(self._dropped())
        parts = [f"{self.seed};{number};{step};".encode() * 50 for step in range(2)]
        pause = self.random.uniform(0.0, 1.0)
        self._one().write_in_steps(f"USMF/steps {number}.csv", parts, pause)

    def outage(self) -> None:
        """Nothing runs for longer than any limit; twice that is longer than D365 keeps an exported package."""
        if self.scenario.project and self.ahead:
            return
        self.ahead += LONGER_THAN_LIMITS
        for scenario in self.scenario.scenarios:
            scenario.pass_time(timedelta(seconds=self.ahead))
        self.restart()

    def pause(self) -> None:
        """The import job is paused for longer than any limit."""
        self.scenario.write_jobs(enabled=False)
        self.restart()
        time.sleep(1.0)
        self.scenario.write_jobs()
        self.outage()

    def restart(self) -> None:
        """Both workers die at once, and come again."""
        for index, host in enumerate(self.hosts):
            self.scenario.crashes += 1
            if host:
                host.kill()
            self.hosts[index] = None
        for index in range(len(self.hosts)):
            self.start(index)

    def offer(self) -> None:
        """D365 exports a package."""
        kind = self.random.choice((1, 2))
        small = package("Vendors", [Part(VENDORS, self.random.randrange(1, 300))])
        large = self.random.random() < 0.2 and kind == 1
        self._one().offer(kind, self._another_large() if large else small)

    def offer_a_bare_file(self) -> None:
        """D365 exports a file that is no package. It is short: a fault in its middle could not be seen."""
        number = sum(len(scenario.packages) for scenario in self.scenario.scenarios)
        kind = self.random.choice((1, 2))
        self._one().offer(kind, f"{self.seed};{number}\r\n{number};2\r\n".encode())

    def offer_nothing(self) -> None:
        """D365 has no records to export: its message has no file."""
        self._one().offer(self.random.choice((1, 2)), b"", location=None, file_exists=False)

    def _another_large(self) -> Path:
        """A package of more than one block, of which there is no other."""
        number = sum(len(scenario.packages) for scenario in self.scenario.scenarios)
        path = self.large.with_name(f"large-{number}.zip")
        shutil.copy(self.large, path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = path.name.encode()
        return path

    def trouble_d365(self) -> None:
        """Something goes wrong in D365, or on the way to it."""
        operation, options = self.random.choice(FAULTS)
        self._one().d365.add_fault(operation, times=self.random.randrange(1, 4), **options)  # type: ignore[arg-type]

    def silence(self) -> None:
        """One of two environments takes requests and answers none."""
        times = self.random.randrange(1, 8)
        self._one().d365.add_fault("*", "hang", times=times, seconds=4.0)

    def revoke_tokens(self) -> None:
        """Every token is refused from now on."""
        self.scenario.d365.revoke_tokens()

    def repeat_event(self) -> None:
        """An event comes again, to either worker."""
        if (names := self._dropped()) and (host := self.random.choice(self.hosts)):
            name = self.random.choice(names)
            with suppress(requests.RequestException):
                host.invoke("import_file", f"imports/{name}", wait=False)

    def press(self) -> None:
        """A person exports the data project now, and clicks twice; the second click must do nothing."""
        if host := self.random.choice(self.hosts):
            scenario = self._one()
            with suppress(requests.RequestException, KeyError):
                self._click(scenario, host, self._runs(scenario, host)["etag"])

    def _runs(self, scenario: Scenario, host: RunningHost) -> dict[str, Any]:
        address, key = f"{host.url}/api/operate/api/export", {"x-functions-key": host.key}
        runs = requests.get(address, params={"job": scenario.suppliers}, headers=key, timeout=10)
        return dict(runs.json())

    def _click(self, scenario: Scenario, host: RunningHost, etag: str) -> None:
        address, key = f"{host.url}/api/operate/api/act", {"x-functions-key": host.key}
        order = {"do": "run", "name": scenario.suppliers, "etag": etag, "confirm": True}
        for _ in range(2):
            scenario.pressed_in_vain += 1  # until there is an answer
            answer = requests.post(
                address, json={**order, "by": "Ada", "why": "a test"}, headers=key, timeout=30
            )
            scenario.pressed += answer.ok
            scenario.pressed_in_vain -= answer.status_code < 500

    def repeat_message(self) -> None:
        """A message of a queue comes twice, the second time later."""
        with QueueServiceClient.from_connection_string(self.scenario.connection_string) as service:
            queue = service.get_queue_client(self._queue())
            for message in queue.peek_messages(4):
                queue.send_message(message.content, visibility_timeout=self.random.randrange(8))

    def lose_messages(self) -> None:
        """A queue loses all that it holds."""
        self.scenario.account.queue(self._queue()).clear_messages()

    def _queue(self) -> str:
        """That of status checks, or the one of exports of the data project where there is such a job."""
        return self.random.choice([STATUS_QUEUE, *[EXPORT_JOBS_QUEUE] * self.scenario.project])

    def lose_events(self) -> None:
        """Events are lost, or come again."""
        if host := self.random.choice(self.hosts):
            with suppress(requests.RequestException):
                host.deliver_events(self.random.random() < 0.5)

    def crash(self) -> None:
        """A worker dies; another takes its place."""
        index = self.random.randrange(len(self.hosts))
        self.scenario.crashes += 1
        if host := self.hosts[index]:
            host.kill()
        self.start(index)

    def storage_away(self) -> None:
        """Storage is gone for a while."""
        self.azurite.stop()
        time.sleep(self.random.uniform(0.2, 2.0))
        self.azurite.start()

    def start(self, index: int, rate: float = STORAGE_FAULTS) -> None:
        """Start a worker."""
        by_storage = self.random.choice((0, BY_STORAGE))
        plan = {"seed": self.random.randrange(1 << 30), "rate": rate, "ahead": self.ahead}
        plan["byStorage"] = by_storage
        jobs = OTHER_JOBS if index and self.scenario.two_jobs_files else JOBS
        self.hosts[index] = self.stack.enter_context(
            running_host(
                self.scenario.settings(timers=OFTEN, jobs=jobs),
                environment={"BRIDGE_FAULTS": json.dumps(plan)},
                start=start_host,
            )
        )

    # -- the run ------------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it, to its end."""
        choices: dict[Callable[[], None], int] = {
            self.drop: 12,
            self.offer: 6,
            self.offer_a_bare_file: 2,
            self.offer_nothing: 1,
            self.trouble_d365: 12,
            self.repeat_event: 6,
            self.repeat_message: 4,
            self.lose_messages: 1,
            self.lose_events: 2,
            self.revoke_tokens: 2,
            self.crash: 2,
            self.storage_away: 1,
        }
        if self.scenario.settle_seconds:
            choices[self.write_in_steps] = 8
        if self.scenario.twin:
            choices[self.silence] = 4
        # Both let the workers' clocks be ahead. Ordered, the check compares the times of files; settling, a
        # file would be taken at once, from under its writer.
        if not self.scenario.ordered and not self.scenario.settle_seconds:
            choices |= {self.outage: 1, self.pause: 1}
        if self.scenario.project:
            for scenario in self.scenario.scenarios:
                scenario.let_be_due()
            choices[self.press] = 6
        for _ in range(ORDERED_FILES if self.scenario.ordered else 0):
            self.drop()  # so that there is an order to keep from the first moment on
        for index in range(len(self.hosts)):
            self.start(index)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            (action,) = self.random.choices(list(choices), list(choices.values()))
            self.actions[action.__name__] += 1
            with suppress(AzureError):  # storage may be away for the test too
                action()
            time.sleep(self.random.expovariate(4.0))
        self._settle()

    def _settle(self) -> None:
        for scenario in self.scenario.scenarios:
            scenario.d365.faults.clear()
        for index, host in enumerate(self.hosts):
            self.scenario.crashes += 1
            if host:
                host.kill()
            self.start(index, rate=0.0)
        wait_until_settled(self.scenario, self.scenario.settled, PATIENCE)
        time.sleep(2)  # for what should not come, such as a second copy


@contextmanager
def _environment(azurite: Azurite, *, ordered: bool, loses: bool) -> Iterator[Simulator]:
    with running_simulator() as d365:
        # Ordered files wait for one another: a longer way to the end would only be a longer wait.
        d365.statuses = ("Processed",) if ordered else ("Processing", "Processed")
        d365.reoffer_seconds = 1.0
        d365.use_storage(azurite.connection_string)
        d365.package_api.import_seconds = 0.2
        d365.package_api.hidden_seconds = 2.0
        d365.package_api.vanishing = 2 if loses else 0
        yield d365


@contextmanager
def reading(scenario: Scenario) -> Iterator[None]:
    """A reader takes what is exported as soon as it sees it."""
    done = threading.Event()

    def read() -> None:
        while not done.wait(0.05):
            with suppress(AzureError):  # storage may be away for the reader too
                for each in scenario.scenarios:
                    each.take()

    thread = threading.Thread(target=read, name="reader")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run(seed: int, seconds: float) -> tuple[str, list[str]]:
    """One schedule from its seed: a line on what happened, and the violations."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bridge-schedule-")))
        azurite = stack.enter_context(running_azurite())
        ordered = seed % 5 == 0
        by_package = seed % 6 == 5
        template = by_package and seed // 12 % 2 == 0
        loses = seed % 12 == 11
        too_large = seed % 24 == 8
        project = seed % 8 in (1, 3)
        # After days in which nothing ran, D365 itself would long be done.
        running = () if project and not ordered else ("NotRun",)
        environments = [
            stack.enter_context(_environment(azurite, ordered=ordered, loses=loses))
            for _ in range(2 if seed % 7 == 2 else 1)
        ]
        for d365 in environments:
            d365.package_api.statuses = (*running, "Succeeded")
            d365.package_api.used_id = "taken" if seed % 4 == 1 else "rejected"
            if too_large:
                d365.largest_body = 10
        large = folder / "large.zip"
        write_large_package(large, 9 << 20)
        uncertain = "hold" if seed % 2 else "resend"
        scenario = Scenario(
            1,
            azurite.connection_string,
            environments[0],
            folder / "scenario",
            uncertain,
            ordered,
            template=template,
            api="package" if by_package else "recurring",
            too_large=too_large,
            loses=loses,
            project=project,
            troubled=True,
            two_jobs_files=seed % 4 == 2,
            # far more than a writer's pause, on a slow machine too
            settle_seconds=8 if seed % 3 == 1 else 0,
        )
        for other in environments[1:]:
            scenario.add_twin(other)
        one = Run(seed, seconds, azurite, scenario, stack, large)
        started = time.monotonic()
        reader = seed % 3 == 1
        with reading(scenario) if reader else nullcontext():
            one.run()
        violations = scenario.violations()
        did = ", ".join(f"{name} {count}" for name, count in sorted(one.actions.items()))
        order = ", ordered" if scenario.ordered else ""
        order += ", with a reader" if reader else ""
        order += ", by the package API" if by_package else ""
        order += " with a template" if template else ""
        order += ", which loses executions" if loses else ""
        order += ", too large for enqueue" if too_large else ""
        order += ", with a data project" if project else ""
        order += ", settling" if scenario.settle_seconds else ""
        order += ", two jobs files" if scenario.two_jobs_files else ""
        order += ", two environments" if scenario.twin else ""
        text = (
            f"seed {seed} ({uncertain}{order}): {scenario.outcome()}; "
            f"{time.monotonic() - started:.0f} s; {did}"
        )
        return text, violations
