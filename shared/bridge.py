"""Settings and clients, made once in a process and shared by all its invocations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import Concatenate, Final

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

IN_TIME: Final = 0.95
"""So much of its time-out an invocation has: the host kills one that takes all of it, and then nothing says
what became of it."""


@dataclass(frozen=True)
class Bridge:
    """The two sides, and what the settings say of them."""

    settings: settings.Settings
    clients: Mapping[str, D365]
    """One for each environment, by its name: with a token, connections and a throttle of its own."""
    account: DataAccount

    @property
    def d365(self) -> D365:
        """The client of the only environment."""
        (client,) = self.clients.values()
        return client

    def d365_for(self, job: ExportJob | ImportJob) -> D365:
        """The client of a job's environment."""
        return self.clients[self.settings.environment_of(job).name]

    def d365_of(self, file: File) -> D365:
        """The client of the environment that a file was sent to, or is to be; its job may be gone by now.

        Raises `Unavailable` where nothing says which of several.
        """
        if client := self.clients.get(file.record.environment):
            return client
        if job := self.settings.jobs.import_job(file.record.job):
            return self.d365_for(job)
        if len(self.clients) == 1:
            return self.d365
        which = file.record.environment or "without a name"
        why = f"the jobs file has neither the job {file.record.job} nor its environment {which}"
        raise Unavailable("environment", f"D365 was not asked, {why}: put one of them back")

    @property
    def patience(self) -> timedelta:
        """How long after its time something counts as missed: five minutes at the default time-out."""
        return self.settings.function_timeout / 6


@lru_cache(maxsize=1)
def bridge() -> Bridge:
    """The process's bridge. Raises `InvalidSettings` or `InvalidJobs`."""
    found = settings.load()
    return Bridge(found, new_clients(found), connect(found.storage))


def new_clients(found: settings.Settings) -> Mapping[str, D365]:
    """A client for each environment, by its name."""
    return {
        each.name: D365(each.url, partial(new_d365_credential, found.registration(each)))
        for each in found.environments
    }


def run[**P](
    flow: Callable[Concatenate[Bridge, P], object], *args: P.args, **kwargs: P.kwargs
) -> None:
    """Run a flow on the process's bridge.

    Raises `StorageDenied` where storage refuses the app. A file that another worker has taken meanwhile is
    no error.
    """
    made = bridge()
    try:
        with deadline.within(IN_TIME * made.settings.function_timeout.total_seconds()):
            flow(made, *args, **kwargs)
    except Conflict as error:
        emit("message.ignored", file=str(error), reason="another worker goes on with it")
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        raise StorageDenied(f"{explained(error)}. Nothing is lost: it is tried again") from error
