"""Settings and clients, made once in a process and shared by all its invocations."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache, partial
from typing import Concatenate, Final, Literal

from azure.core.exceptions import HttpResponseError

from shared import deadline
from shared.config import settings
from shared.config.jobs import ExportJob, ImportJob
from shared.d365 import D365
from shared.d365.errors import Unavailable
from shared.identity import new_d365_credential
from shared.observability.events import emit
from shared.storage.account import DataAccount, connect
from shared.storage.errors import Conflict, StorageDenied, explained
from shared.storage.records import File
from shared.threads import Slots

IN_TIME: Final = 0.95
"""The part of its time-out that an invocation may use. The host kills one that uses all of it, and then no log
says what it did."""

MOST_HANGING: Final = 2
"""So many invocations of one function may hang before an instance takes up no further message: host.json's
`newBatchThreshold`, and half of its `maxDegreeOfParallelism`."""

SLOT_WAIT: Final = 2.0
"""Seconds to wait for a slot among an environment's invocations: several questions take no longer."""

_SLOW: Final = ""
"""Whose slots those are that the slow environments share."""

type Work = Literal["files", "exports"]


@dataclass(frozen=True)
class Bridge:
    """The two sides, and what the settings say of them."""

    settings: settings.Settings
    clients: Mapping[str, D365]
    """One for each environment, by its name: with a token, connections and a throttle of its own."""
    account: DataAccount
    _slots: dict[tuple[Work, str], Slots] = field(default_factory=dict, repr=False)

    def d365_for(self, job: ExportJob | ImportJob) -> D365:
        """The client of a job's environment."""
        return self.clients[self.settings.environment_of(job).name]

    def environment_of(self, file: File) -> str:
        """The name of the environment that a file was sent to, or is to be; "" where nothing says which of
        several: its job may be gone by now, and the environment too."""
        if file.record.environment in self.clients:
            return file.record.environment
        if job := self.settings.jobs.import_job(file.record.job):
            return self.settings.environment_of(job).name
        return next(iter(self.clients)) if len(self.clients) == 1 else ""

    def d365_of(self, file: File) -> D365:
        """The client of that environment. Raises `Unavailable` where there is none."""
        if name := self.environment_of(file):
            return self.clients[name]
        which = file.record.environment or "without a name"
        why = f"the jobs file has neither the job {file.record.job} nor its environment {which}"
        raise Unavailable("environment", f"D365 was not asked, {why}: put one of them back")

    def slot(self, work: Work, environment: str) -> AbstractContextManager[bool]:
        """Whether an environment may take a further invocation of this process, until that is done (A7).

        Together the others never take all of them: one that does not answer, or asks all to wait, leaves the
        healthy ones theirs. Where there is only one environment, it has all.
        """
        others = len(self.clients) - 1
        if not others or not environment:
            return nullcontext(enter_result=True)
        if others <= MOST_HANGING:
            return self._slot_of(work, environment, MOST_HANGING // others)
        return self._slot_of_many(work, environment)

    def _slot_of(self, work: Work, whose: str, count: int) -> AbstractContextManager[bool]:
        slots = self._slots.setdefault((work, whose), Slots(count))
        return slots.slot(min(SLOT_WAIT, deadline.left()))

    @contextmanager
    def _slot_of_many(self, work: Work, environment: str) -> Iterator[bool]:
        """The same where there are more environments than invocations that may hang: each has one, and those
        that do not answer within seconds share what may hang."""
        with self._slot_of(work, environment, 1) as has_slot:
            if not has_slot or self.clients[environment].answers_promptly():
                yield has_slot
                return
            with self._slot_of(work, _SLOW, MOST_HANGING) as has_slot_of_slow:
                yield has_slot_of_slow

    @property
    def patience(self) -> timedelta:
        """How long after its time something counts as missed: five minutes at the default time-out."""
        return self.settings.function_timeout / 6

    @property
    def hidden_for(self) -> timedelta:
        """For so long D365 may not know an execution that it has: an hour at the default time-out."""
        return 2 * self.settings.function_timeout


@lru_cache(maxsize=1)
def bridge() -> Bridge:
    """The process's bridge. Raises `InvalidSettings` or `InvalidJobs`."""
    loaded = settings.load()
    return Bridge(loaded, new_clients(loaded), connect(loaded.storage))


def new_clients(config: settings.Settings) -> Mapping[str, D365]:
    """A client for each environment, by its name."""
    return {
        each.name: D365(
            each.url,
            partial(new_d365_credential, config.registration(each)),
            config.url_setting(each),
        )
        for each in config.environments
    }


def run[**P](
    flow: Callable[Concatenate[Bridge, P], object], *args: P.args, **kwargs: P.kwargs
) -> None:
    """Run a flow on the process's bridge.

    Raises `StorageDenied` where storage refuses the app. A file that another worker has taken meanwhile is
    no error.
    """
    process_bridge = bridge()
    try:
        with deadline.within(IN_TIME * process_bridge.settings.function_timeout.total_seconds()):
            flow(process_bridge, *args, **kwargs)
    except Conflict as error:
        emit("message.ignored", file=str(error), reason="another worker has it")
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        raise StorageDenied(f"{explained(error)}. Nothing is lost: it is tried again") from error
