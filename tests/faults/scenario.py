"""One case of a fault: a storage account, jobs and a D365 of its own, and what must hold in it at the end."""

import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote
from uuid import UUID

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock

from local import samples
from local.containers import provision
from local.simulator import Package, Received, Simulator, identity_settings
from shared import clock
from shared.config.settings import Storage
from shared.exports import execution
from shared.imports import templates
from shared.storage import files
from shared.storage.account import (
    EXPORTS,
    FAILED,
    IMPORTS,
    PROCESSING,
    STATE,
    SUCCEEDED,
    TEMPLATES,
    DataAccount,
    connect,
)
from shared.storage.records import File
from tests.faults import ordering

SUPPLIERS = "suppliers"
"""The job that exports the data project."""

FUNCTION_TIMEOUT = "00:00:10"
"""Short, so that what was left is soon overdue; the host ends what lasts longer."""

ENDS = (SUCCEEDED, FAILED)
TEMPLATE = "vendors.zip"
NEVER = "0 0 0 1 1 *"
OFTEN = "* * * * * *"
JOBS, OTHER_JOBS = "jobs.json", "other-jobs.json"
"""The jobs file, and one that knows no import job, as an instance has it that was deployed before or after."""


NOWHERE = "http://127.0.0.1:1"
"""Where nothing listens: a connection is refused."""
TWIN = "-twin"


@dataclass
class Scenario:
    """Where one case happens. `number` keeps it apart from the others on the same servers.

    With a `twin` one app serves two environments. The twin is a scenario too, in the same storage account; its
    jobs have the same ids, as those of a copied database.
    """

    number: int
    connection_string: str
    d365: Simulator
    folder: Path
    when_uncertain: str = "hold"
    ordered: bool = False
    template: bool = False
    """Whether the import job sends its files in a package that a template makes."""
    api: Literal["recurring", "package"] = "recurring"
    """Of the import job; by the package API every file goes in a template's package."""
    too_large: bool = False
    """Whether every file is too large for its recurring data job, and goes by the package API."""
    loses: bool = False
    """Whether D365 loses executions that it has accepted."""
    project: bool = False
    """Whether a data project is exported by the package API."""
    troubled: bool = False
    """Whether D365 may fail so often that an export of it is given up."""
    settle_seconds: int = 0
    """Of the import job: so long a file must not have changed."""
    two_jobs_files: bool = False
    """Whether an instance has a jobs file without the import job."""
    function_timeout: str = FUNCTION_TIMEOUT
    suffix: str = ""
    """Of the jobs' names: `TWIN` for a twin."""
    twin: "Scenario | None" = None
    """The other environment."""
    twin_is_down: bool = False
    """Whether the app finds nothing at the twin's address."""
    account: DataAccount = field(init=False)
    began: datetime = field(init=False)
    dropped: dict[str, bytes] = field(default_factory=dict)
    there: dict[str, float] = field(default_factory=dict)
    """Since when each dropped file is surely there, as `time.time()` says it."""
    packages: list[Package] = field(default_factory=list)
    taken: list[tuple[str, str]] = field(default_factory=list)
    """What the reader has taken from `exports`: each blob's name, and its SHA-256."""
    taking: dict[str, str] = field(default_factory=dict)
    """The same of what it deletes just now: it is taken as soon as it is seen to be away."""
    crashes: int = 0
    """Workers that died: each may have cost a package its note, so that it is delivered twice (E7)."""
    due: list[datetime] = field(default_factory=list)
    """The due times of the data project that have passed."""
    pressed: int = 0
    """So often a person was told that an export of it was asked for."""
    pressed_in_vain: int = 0
    """So often a person got no answer to that, and can't know."""
    broken_writers: list[str] = field(default_factory=list)
    """Files that were taken from under the program that was writing them."""

    def __post_init__(self) -> None:
        self.began = clock.now()
        provision(self.connection_string)
        self.account = connect(Storage(self.connection_string, None, None, None))
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.suffix:
            self.write_jobs()
        if self.template and not self.suffix:
            blob = self.account.blobs.get_blob_client(TEMPLATES, TEMPLATE)
            blob.upload_blob(samples.package("Vendors", [samples.Part(samples.VENDORS, 1)]))
        self.d365.add_import_job(self.activity_id(0))
        for kind in (1, 2):
            self.d365.add_export_job(self.activity_id(kind))

    def add_twin(self, d365: Simulator) -> None:
        """Let the app serve another environment too, with the same jobs."""
        d365.issuer = self.d365
        self.twin = replace(
            self,
            d365=d365,
            suffix=TWIN,
            dropped={},
            there={},
            packages=[],
            taken=[],
            taking={},
            due=[],
            broken_writers=[],
        )
        self.write_jobs()

    @property
    def scenarios(self) -> list["Scenario"]:
        """This one, and its twin."""
        return [self, self.twin] if self.twin else [self]

    def job(self, name: str) -> str:
        """The name of a job of this environment."""
        return f"{name}{self.suffix}"

    @property
    def suppliers(self) -> str:
        """The job that exports the data project."""
        return self.job(SUPPLIERS)

    def is_ours(self, blob: str) -> bool:
        """Whether a blob, by its job's folder, is this environment's."""
        return blob.partition("/")[0].endswith(TWIN) == bool(self.suffix)

    def activity_id(self, kind: int) -> str:
        """Of the import job (0), the export job (1), the export job that unzips (2)."""
        return str(UUID(int=(self.number << 64) + (kind << 8) + (4 << 76) + (8 << 60)))

    def write_jobs(self, *, enabled: bool = True) -> None:
        """Write the jobs files; not `enabled`: the import jobs are paused."""
        jobs: dict[str, Any] = {
            "exports": [job for scenario in self.scenarios for job in scenario._exports()],
            "imports": [scenario._import(enabled=enabled) for scenario in self.scenarios],
        }
        if self.twin:
            url = NOWHERE if self.twin_is_down else self.twin.d365.base_url
            jobs["environments"] = [
                {"name": "main", "url": self.d365.base_url},
                {"name": "twin", "url": url},
            ]
            for job in (*jobs["exports"], *jobs["imports"]):
                job["environment"] = "twin" if job["name"].endswith(TWIN) else "main"
        self.folder.joinpath(JOBS).write_text(json.dumps(jobs), encoding="utf-8")
        others = json.dumps({**jobs, "imports": []})
        self.folder.joinpath(OTHER_JOBS).write_text(others, encoding="utf-8")

    def _exports(self) -> list[dict[str, Any]]:
        return [
            {"name": self.job("ledger"), "activityId": self.activity_id(1)},
            {"name": self.job("vendors"), "activityId": self.activity_id(2), "unzip": True},
            *([self._suppliers()] if self.project else []),
        ]

    def _import(self, *, enabled: bool) -> dict[str, Any]:
        return {
            "name": self.job("journals"),
            **self._target(),
            "whenUncertain": self.when_uncertain,
            "ordered": self.ordered,
            "settleSeconds": self.settle_seconds,
            "enabled": enabled,
        }

    def _suppliers(self) -> dict[str, str]:
        """The job of the data project. It is due once a year, in two days from now."""
        when = self._next_due()
        schedule = f"0 0 0 {when.day} {when.month} *"
        project = self.data_project
        name = self.suppliers
        return {"name": name, "api": "package", "dataProject": project, "schedule": schedule}

    def _next_due(self) -> datetime:
        day = datetime.combine(self.began.date(), datetime.min.time(), UTC) + timedelta(days=2)
        return day + timedelta(days=(day.month, day.day) == (2, 29))  # which no other year has

    def _target(self) -> dict[str, str]:
        """Whereto the import job sends its files, and as what."""
        entity = samples.VENDORS.name if self.template else "General journal"
        template = {"template": TEMPLATE} if self.template else {}
        project = {"dataProject": self.import_project}
        if self.api == "package":
            entities = {"entity": entity} if self.template else {}
            return {"api": "package", **project, **entities, **template}
        fallback = project if self.too_large else {}
        return {"activityId": self.activity_id(0), "entity": entity, **template, **fallback}

    def settings(self, *, timers: str = NEVER, jobs: str = JOBS) -> dict[str, str]:
        """The app settings; `jobs`: the jobs file's name."""
        return {
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "AzureWebJobsStorage": self.connection_string,
            "DataStorage": self.connection_string,
            "D365_URL": "" if self.twin else self.d365.base_url,
            "JOBS_FILE": str(self.folder / jobs),
            "EXPORT_SCHEDULE": timers,
            "RECONCILE_SCHEDULE": timers,
            "AzureFunctionsJobHost__functionTimeout": self.function_timeout,
            # Nothing of what must hold hangs on how long an idle queue rests, but the test's time does.
            "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:01",
            "AzureFunctionsJobHost__extensions__queues__visibilityTimeout": "00:00:05",
            **identity_settings(self.d365),
        }

    # -- what people and D365 do --------------------------------------------------------------------

    def drop(self, name: str, data: bytes) -> None:
        """Drop a file for the import job; no two files may have the same bytes."""
        path = f"{self.job('journals')}/{name}"
        self.dropped[path] = data
        self.account.blobs.get_blob_client(IMPORTS, path).upload_blob(data)
        self.there[path] = time.time()

    def write_in_steps(self, name: str, parts: Sequence[bytes], pause: float) -> None:
        """Drop a file as programs do that commit it after each part, and need it to be there until the last."""
        path = f"{self.job('journals')}/{name}"
        self.dropped[path] = b"".join(parts)
        blob = self.account.blobs.get_blob_client(IMPORTS, path)
        ids = list[BlobBlock]()
        unchanged: dict[str, Any] = {}
        for number, part in enumerate(parts):
            ids.append(BlobBlock(f"{number:04}"))
            try:
                blob.stage_block(ids[-1].id, part)
                etag = blob.commit_block_list(ids, **unchanged)["etag"]
                unchanged = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
            except HttpResponseError:
                self.broken_writers.append(path)
                return
            time.sleep(pause)
        self.there[path] = time.time()

    def offer(self, kind: int, content: bytes | Path, **options: Any) -> None:
        """Let D365 offer a package on an export job's queue. `options` are fields of `Package`."""
        self.packages.append(self.d365.add_package(self.activity_id(kind), content, **options))

    @property
    def import_project(self) -> str:
        """The data project of the import job, where that goes by the package API."""
        return f"Project {self.number}"

    @property
    def imports_exactly_once(self) -> bool:
        """Whether no crash may leave a file in doubt: the package API has an id before the request. What is too
        large for enqueue is in doubt until D365 has said so."""
        return self.api == "package" or (self.too_large and self.when_uncertain == "resend")

    @property
    def data_project(self) -> str:
        """The one that is exported."""
        return f"Suppliers {self.number}"

    def let_be_due(self) -> None:
        """Let one due time of the data project have passed: last year's."""
        self.d365.projects[self.data_project] = "plain"
        execution.begin_to_count(self.account, self.suppliers, self.began - timedelta(days=370))
        when = self._next_due()
        self.due.append(when.replace(year=when.year - 1))

    def pass_time(self, ahead: timedelta) -> None:
        """Note that the workers' clocks are so far ahead: the data project may be due again."""
        when = self._next_due()
        if self.project and self.began + ahead > when and when not in self.due:
            self.due.append(when)

    def take(self) -> None:
        """A reader takes what has been exported: a package at once, an unzipped one when its folder is whole.

        Raises `AzureError`.
        """
        container = self.account.blobs.get_container_client(EXPORTS)
        names = sorted(filter(self.is_ours, container.list_blob_names()))
        for name in self.taking.keys() - set(names):
            self.taken.append((name, self.taking.pop(name)))
        whole = {name.rpartition("/")[0] for name in names if name.endswith("/Manifest.xml")}
        for name in names:
            folder = name.removesuffix(".zip") if name.count("/") == 1 else name.rpartition("/")[0]
            if folder in whole or name.startswith((f"{self.job('ledger')}/", f"{self.suppliers}/")):
                data = container.download_blob(name).readall()
                self.taking[name] = hashlib.sha256(data).hexdigest()
                container.delete_blob(name)

    def receipts(self, data: bytes) -> list[Received]:
        """Each time that D365 took these bytes."""
        if self.template:
            wrapped = io.BytesIO()
            template = templates.fetch(self.account, TEMPLATE, samples.VENDORS.name)
            templates.wrap(template, [data], len(data), wrapped)
            data = wrapped.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        return [each for each in self.d365.received if each.sha256 == sha256]

    def received(self, data: bytes) -> int:
        """How often D365 took these bytes."""
        return len(self.receipts(data))

    # -- what must hold -----------------------------------------------------------------------------

    def locations(self) -> dict[str, list[File]]:
        """Of each dropped file, where it lies: once, but for those that people say another stands for."""
        files_by_name: dict[str, list[File]] = {name: [] for name in self.dropped}
        for container in (IMPORTS, PROCESSING, SUCCEEDED, FAILED):
            for file in files.listed(self.account, container):
                if self.is_ours(file.name):
                    files_by_name.setdefault(file.record.source or file.name, []).append(file)
        for name, versions in files_by_name.items():
            open_ = [file for file in versions if file.record.resolution != "dismissed"]
            files_by_name[name] = open_ or versions
        return files_by_name

    def settled(self) -> bool:
        """Whether nothing is left to do for the app: with a twin that is down, of what is ours."""
        if self.twin and not self.twin_is_down and not self.twin.settled():
            return False
        if self.project and not self._exported():
            return False
        return all(p.acknowledged for p in self.packages) and all(
            versions and all(file.container in ENDS for file in versions)
            for versions in self.locations().values()
        )

    def state(self) -> object:
        """What changes as things go on: each file's place and version, what D365 has given and taken."""
        locations = [
            (name, file.container, file.etag)
            for name, versions in self.locations().items()
            for file in versions
        ]
        packages = [(package.offered, package.acknowledged) for package in self.packages]
        exported = execution.read(self.account, self.suppliers) if self.project else None
        times = sum(map(self.received, self.dropped.values()))
        return locations, packages, exported, times, self.twin and self.twin.state()

    def _exported(self) -> bool:
        execution_and_etag = execution.read(self.account, self.suppliers)
        if (
            not execution_and_etag
            or not execution_and_etag[0].executionid
            or execution_and_etag[0].under_way
        ):
            return False
        return clock.parse(execution_and_etag[0].due) >= max(self.due)

    def _lost_or_doubled_exports(self) -> list[str]:
        """Each execution that D365 has made must be stored once, under its id; and each due time must have
        one, or be covered by a later one, or have been reported."""
        hashes = self._stored_exports()
        d365_hashes = {
            each.execution_id: each.sha256
            for each in self.d365.executions
            if each.project == self.data_project
        }
        wrong = [
            f"{id_} is stored, and D365 made no such package" for id_ in hashes - d365_hashes.keys()
        ]
        wrong += [f"{id_} was made by D365, and not stored" for id_ in d365_hashes.keys() - hashes]
        wrong += [
            f"{id_} has other bytes"
            for id_, stored in hashes.items()
            if set(stored) != {d365_hashes.get(id_)}
        ]
        twice = sum(len(stored) > 1 for stored in hashes.values())
        if twice > self.crashes:
            wrong.append(f"{twice} exports were stored twice, after {self.crashes} crashes")
        staged = self.account.blobs.get_container_client(STATE).list_blob_names()
        wrong += [
            f"{name} was left" for name in staged if name.startswith(f"staging/{self.suppliers}/")
        ]
        return wrong + self._wrong_ends(set(d365_hashes))

    def _stored_exports(self) -> dict[str, list[str]]:
        """The SHA-256 of each stored package of the data project, by its execution's id; a reader may have
        taken it, and it may have been stored again."""
        container = self.account.blobs.get_container_client(EXPORTS)
        there = {
            name: hashlib.sha256(container.download_blob(name).readall()).hexdigest()
            for name in container.list_blob_names(name_starts_with=f"{self.suppliers}/")
        }
        away = [(name, sha256) for name, sha256 in self.taking.items() if name not in there]
        hashes: dict[str, list[str]] = {}
        for name, sha256 in [*self.taken, *away, *there.items()]:
            if name.startswith(f"{self.suppliers}/"):
                id_ = name.removeprefix(f"{self.suppliers}/").removesuffix(".zip")
                hashes.setdefault(id_, []).append(sha256)
        return hashes

    def _wrong_ends(self, execution_ids: set[str]) -> list[str]:
        """Where the ends that were told of exports are not those that they had."""
        ended = execution.last(self.account, self.suppliers, 1000)
        wrong = [
            f"{each.executionid} ended as {each.outcome}: {each.error}"
            for each in ended
            if each.outcome != ("stored" if each.executionid in execution_ids else "failed")
            or (each.outcome == "failed" and not (self.loses or self.troubled))
        ]
        wrong += [
            f"{id_} was made, and its end not told"
            for id_ in execution_ids - {e.executionid for e in ended}
        ]
        times = Counter(each.due for each in ended if not each.by)
        wrong += [
            f"{count} exports for the due time {due}" for due, count in times.items() if count > 1
        ]
        known = {clock.text(due) for due in self.due}
        wrong += [f"an export for {due}, which is no due time" for due in times.keys() - known]
        if max((clock.parse(each.due) for each in ended), default=self.began) < max(self.due):
            wrong.append(f"the due time {max(self.due)} has no export")
        pressed = sum(bool(each.by) for each in ended)
        if not 0 <= pressed - self.pressed <= self.pressed_in_vain:
            wrong.append(f"{pressed} exports that people asked for, who did {self.pressed} times")
        return wrong

    def violations(self) -> list[str]:
        """What does not hold, in sentences; empty when all is well, with the twin too."""
        if self.twin:
            self.twin.crashes = self.crashes
            return [*self._violations(), *self.twin._violations()]
        return self._violations()

    def _violations(self) -> list[str]:
        wrong = [*self._lost_or_doubled_packages(), *self._lost_or_doubled_files()]
        wrong += self._lost_or_doubled_exports() if self.project else []
        wrong += [f"{name} was taken from under its writer" for name in self.broken_writers]
        if not self.template:
            whole = {hashlib.sha256(data).hexdigest() for data in self.dropped.values()}
            wrong += [
                f"D365 took {r.length} bytes as {r.external_id}, which no file has"
                for r in self.d365.received
                if r.activity_id in (self.activity_id(0), self.import_project)
                and r.sha256 not in whole
            ]
        return [*wrong, *ordering.violations(self._turns())] if self.ordered else wrong

    def _turns(self) -> list[ordering.Turn]:
        """Of each file, when it lay in `imports`, when it was claimed, and when D365 had it in hand."""
        return [
            ordering.Turn(
                name,
                self.there.get(name, inf),
                clock.parse(versions[0].record.claimed).timestamp() if versions else 0.0,
                # One whose end D365 never told was in doubt, and is over as soon as it is filed.
                [(r.began, r.ended or r.taken) for r in self.receipts(self.dropped[name])],
            )
            for name, versions in self.locations().items()
            if name in self.dropped
        ]

    def _lost_or_doubled_packages(self) -> list[str]:
        wrong: list[str] = []
        container = self.account.blobs.get_container_client(EXPORTS)
        there = {
            blob.name: hashlib.sha256(container.download_blob(blob.name).readall()).hexdigest()
            for blob in container.list_blobs()
            if self.is_ours(blob.name) and not blob.name.startswith(f"{self.suppliers}/")
        }
        away = [(name, sha256) for name, sha256 in self.taking.items() if name not in there]
        hashes: dict[str, list[str]] = {}
        for name, sha256 in [*self.taken, *away, *there.items()]:
            if name.startswith(f"{self.suppliers}/"):
                continue
            hashes.setdefault(name, []).append(sha256)
        twice = 0
        for package in self.packages:
            second = package.activity_id == self.activity_id(2)
            is_bare = isinstance(package.content, bytes) and not package.content.startswith(b"PK")
            unzips = second and not is_bare
            job = self.job("vendors" if second else "ledger")
            name = f"{job}/{package.correlation_id}{'.csv' if is_bare else '.zip'}"
            stored = hashes.pop(name, [])
            again = len(stored) > 1
            expected = {package.sha256} if package.file_exists else set()
            if package.acknowledged and set(stored) != expected:
                wrong.append(f"{name} is acknowledged, and stored as {stored}")
            if not package.acknowledged:
                wrong.append(f"{name} was never acknowledged")
            if any(not each["asItCame"] for each in package.acknowledgements):
                wrong.append(f"{name}: the acknowledgement is not the answer as it came")
            if unzips:
                folder = name.removesuffix(".zip") + "/"
                members = [each for each in hashes if each.startswith(folder)]
                if len(members) != 3:
                    wrong.append(f"{folder} has {len(members)} files, not 3")
                for member in members:
                    again |= len(hashes.pop(member)) > 1
            twice += again  # a package and its files are one: a crash costs it one note
        if twice > self.crashes:
            wrong.append(f"{twice} packages were delivered twice, after {self.crashes} crashes")
        return wrong + [f"{name} is there, and no package is its" for name in hashes]

    def _lost_or_doubled_files(self) -> list[str]:
        wrong: list[str] = []
        reports = {
            name
            for name in self.account.blobs.get_container_client(FAILED).list_blob_names()
            if name.endswith(".error.json")
        }
        for name, versions in self.locations().items():
            data = self.dropped.get(name)
            lies = ", ".join(f"{file.container} [{file.record.state}]" for file in versions)
            if data is None:
                wrong.append(f"{name} lies in {lies}, and nobody dropped it")
                continue
            receipts = self.receipts(data)
            times, ended = len(receipts), any(receipt.ended for receipt in receipts)
            if len(versions) != 1 or versions[0].container not in ENDS:
                wrong.append(f"{name} is in {lies or 'no container'}; D365 took it {times} times")
                continue
            container, state = versions[0].container, versions[0].record.state
            if versions[0].record.reason == "no-such-job":  # of an instance with another jobs file
                if times:
                    wrong.append(f"{name} was refused, and D365 took it {times} times")
                continue
            if self.imports_exactly_once and (times > 1 or (times == 0 and not self.loses)):
                wrong.append(f"{name}: D365 took it {times} times")
            if self.imports_exactly_once and state == "held" and not self.loses:
                wrong.append(f"{name} is held, and D365 loses nothing")
            if self.when_uncertain == "hold" and times > 1:
                wrong.append(f"{name}: D365 took it {times} times")
            # An instance without the job does not know that it says resend: it holds what is in doubt.
            may_be_held = self.loses or (self.two_jobs_files and state == "held")
            if self.when_uncertain == "resend" and times == 0 and not may_be_held:
                wrong.append(f"{name}: D365 never took it")
            true = {
                SUCCEEDED: state == "succeeded" and ended,
                FAILED: state == "held" or (state == "failed" and ended),
            }[container]
            if not true:
                wrong.append(f"{name} is {state} in {container}; D365 took it {times} times")
        for container in ENDS:
            for file in filter(self._is_our_file, files.listed(self.account, container)):
                body = self.account.blobs.get_blob_client(container, file.name).download_blob()
                if body.readall() != self.dropped.get(file.record.source):
                    wrong.append(f"{container}/{file.name}: its bytes are not those dropped")
                if container == FAILED and f"{file.name}.error.json" not in reports:
                    wrong.append(f"{container}/{file.name} has no report beside it")
        return wrong

    def _is_our_file(self, file: File) -> bool:
        return self.is_ours(file.name)

    def outcome(self) -> str:
        """How it ended, in a few words."""
        return "; twin: ".join(scenario._outcome() for scenario in self.scenarios)

    def _outcome(self) -> str:
        states = Counter(
            versions[0].record.state for versions in self.locations().values() if versions
        )
        words = [f"{count} {state}" for state, count in sorted(states.items())]
        if self.project:
            ends = Counter(
                each.outcome for each in execution.last(self.account, self.suppliers, 1000)
            )
            words += [f"{count} exports {outcome}" for outcome, count in sorted(ends.items())]
        if self.packages:
            words.append(f"{sum(bool(p.acknowledged) for p in self.packages)} acknowledged")
        if self.dropped:
            words.append(f"taken {sum(map(self.received, self.dropped.values()))}x")
        return ", ".join(words)


def metadata_of(account: DataAccount, container: str) -> Mapping[str, Mapping[str, str]]:
    """The metadata of a container's blobs, decoded."""
    blobs = account.blobs.get_container_client(container).list_blobs(include=["metadata"])
    return {each.name: {k: unquote(v) for k, v in (each.metadata or {}).items()} for each in blobs}
