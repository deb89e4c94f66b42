"""One case of a fault: a storage account, jobs and a D365 of its own, and what must hold in it at the end."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote
from uuid import UUID

from local import samples
from local.provisioning import provision
from local.simulator import Package, Simulator, identity_settings
from shared import blobs, templates
from shared.blobs import DataAccount
from shared.settings import Storage

FUNCTION_TIMEOUT = "00:00:04"
"""Short, so that what was left is soon overdue."""

TEMPLATE = "vendors.zip"
NEVER = "0 0 0 1 1 *"
OFTEN = "* * * * * *"


@dataclass
class World:
    """Where one case happens. `number` keeps it apart from the others on the same servers."""

    number: int
    connection_string: str
    d365: Simulator
    folder: Path
    when_uncertain: str = "hold"
    ordered: bool = False
    template: bool = False
    """Whether the import job sends its files in a package that a template makes."""
    account: DataAccount = field(init=False)
    dropped: dict[str, bytes] = field(default_factory=dict)
    packages: list[Package] = field(default_factory=list)

    def __post_init__(self) -> None:
        provision(self.connection_string)
        self.account = blobs.connect(Storage(self.connection_string, None, None, None))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.joinpath("jobs.json").write_text(json.dumps(self._jobs()), encoding="utf-8")
        if self.template:
            place = self.account.blobs.get_blob_client(blobs.TEMPLATES, TEMPLATE)
            place.upload_blob(samples.package("Vendors", [samples.Part(samples.VENDORS, 1)]))
        self.d365.add_import_job(self.activity_id(0))
        for kind in (1, 2):
            self.d365.add_export_job(self.activity_id(kind))

    def activity_id(self, kind: int) -> str:
        """Of the import job (0), the export job (1), the export job that unzips (2)."""
        return str(UUID(int=(self.number << 64) + (kind << 8) + (4 << 76) + (8 << 60)))

    def _jobs(self) -> object:
        return {
            "exports": [
                {"name": "ledger", "activityId": self.activity_id(1)},
                {"name": "vendors", "activityId": self.activity_id(2), "unzip": True},
            ],
            "imports": [
                {
                    "name": "journals",
                    "activityId": self.activity_id(0),
                    "entity": "General journal",
                    "whenUncertain": self.when_uncertain,
                    "ordered": self.ordered,
                    **(
                        {"entity": samples.VENDORS.name, "template": TEMPLATE}
                        if self.template
                        else {}
                    ),
                }
            ],
        }

    def settings(self, *, timers: str = NEVER) -> dict[str, str]:
        """The app settings."""
        return {
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "AzureWebJobsStorage": self.connection_string,
            "DataStorage": self.connection_string,
            "D365_URL": self.d365.base_url,
            "JOBS_FILE": str(self.folder / "jobs.json"),
            "EXPORT_SCHEDULE": timers,
            "RECONCILE_SCHEDULE": timers,
            "AzureFunctionsJobHost__functionTimeout": FUNCTION_TIMEOUT,
            **identity_settings(self.d365),
        }

    # -- what people and D365 do --------------------------------------------------------------------

    def drop(self, name: str, data: bytes) -> None:
        """Drop a file for the import job; no two files may have the same bytes."""
        self.dropped[f"journals/{name}"] = data
        self.account.blobs.get_blob_client(blobs.IMPORTS, f"journals/{name}").upload_blob(data)

    def offer(self, kind: int, content: bytes | Path) -> None:
        """Let D365 offer a package on an export job's queue."""
        self.packages.append(self.d365.add_package(self.activity_id(kind), content))

    def received(self, data: bytes) -> int:
        """How often D365 took these bytes."""
        if self.template:
            wrapped = io.BytesIO()
            template = templates.fetch(self.account, TEMPLATE, samples.VENDORS.name)
            templates.wrap(template, [data], len(data), wrapped)
            data = wrapped.getvalue()
        wanted = hashlib.sha256(data).hexdigest()
        return sum(r.sha256 == wanted for r in self.d365.received)

    # -- what must hold -----------------------------------------------------------------------------

    def places(self) -> dict[str, list[tuple[str, str]]]:
        """Of each dropped file, where it lies: (container, state)."""
        found: dict[str, list[tuple[str, str]]] = {name: [] for name in self.dropped}
        for container in (blobs.IMPORTS, blobs.PROCESSING, blobs.SUCCEEDED, blobs.FAILED):
            for file in blobs.listed(self.account, container):
                found.setdefault(file.record.source or file.name, []).append(
                    (container, file.record.state)
                )
        return found

    def settled(self) -> bool:
        """Whether nothing is left to do."""
        ends = (blobs.SUCCEEDED, blobs.FAILED)
        return all(p.acknowledged for p in self.packages) and all(
            len(places) == 1 and places[0][0] in ends for places in self.places().values()
        )

    def violations(self) -> list[str]:
        """What does not hold, in sentences; empty when all is well."""
        return [*self._lost_or_doubled_packages(), *self._lost_or_doubled_files()]

    def _lost_or_doubled_packages(self) -> list[str]:
        wrong: list[str] = []
        container = self.account.blobs.get_container_client(blobs.EXPORTS)
        there = {
            found.name: hashlib.sha256(container.download_blob(found.name).readall()).hexdigest()
            for found in container.list_blobs()
        }
        for package in self.packages:
            job = "vendors" if package.activity_id == self.activity_id(2) else "ledger"
            name = f"{job}/{package.correlation_id}.zip"
            stored = there.pop(name, None)
            if package.acknowledged and stored != package.sha256:
                wrong.append(f"{name} is acknowledged, and stored as {stored}")
            if not package.acknowledged:
                wrong.append(f"{name} was never acknowledged")
            if any(not each["asItCame"] for each in package.acknowledgements):
                wrong.append(f"{name}: the acknowledgement is not the answer as it came")
            if job == "vendors":
                folder = name.removesuffix(".zip") + "/"
                members = [each for each in there if each.startswith(folder)]
                if len(members) != 3:
                    wrong.append(f"{folder} has {len(members)} files, not 3")
                for member in members:
                    del there[member]
        return wrong + [f"{name} is there, and no package is its" for name in there]

    def _lost_or_doubled_files(self) -> list[str]:
        wrong: list[str] = []
        reports = {
            name
            for name in self.account.blobs.get_container_client(blobs.FAILED).list_blob_names()
            if name.endswith(".error.json")
        }
        ends = (blobs.SUCCEEDED, blobs.FAILED)
        for name, places in self.places().items():
            data = self.dropped.get(name)
            if data is None:
                wrong.append(f"{name} lies in {places}, and nobody dropped it")
                continue
            times = self.received(data)
            if len(places) != 1 or places[0][0] not in ends:
                wrong.append(f"{name} is in {places or 'no container'}; D365 took it {times} times")
                continue
            container, state = places[0]
            if self.when_uncertain == "hold" and times > 1:
                wrong.append(f"{name}: D365 took it {times} times")
            if self.when_uncertain == "resend" and times == 0:
                wrong.append(f"{name}: D365 never took it")
            true = {
                blobs.SUCCEEDED: state == "succeeded" and times >= 1,
                blobs.FAILED: state == "held" or (state == "failed" and times >= 1),
            }[container]
            if not true:
                wrong.append(f"{name} is {state} in {container}; D365 took it {times} times")
        for container in ends:
            for file in blobs.listed(self.account, container):
                body = self.account.blobs.get_blob_client(container, file.name).download_blob()
                if body.readall() != self.dropped.get(file.record.source):
                    wrong.append(f"{container}/{file.name}: its bytes are not those dropped")
                if container == blobs.FAILED and f"{file.name}.error.json" not in reports:
                    wrong.append(f"{container}/{file.name} has no report beside it")
        return wrong

    def outcome(self) -> str:
        """How it ended, in a few words."""
        states = Counter(places[0][1] for places in self.places().values() if places)
        words = [f"{count} {state}" for state, count in sorted(states.items())]
        if self.packages:
            words.append(f"{sum(bool(p.acknowledged) for p in self.packages)} acknowledged")
        if self.dropped:
            words.append(f"taken {sum(map(self.received, self.dropped.values()))}x")
        return ", ".join(words)


def metadata_of(account: DataAccount, container: str) -> Mapping[str, Mapping[str, str]]:
    """The metadata of a container's blobs, decoded."""
    found = account.blobs.get_container_client(container).list_blobs(include=["metadata"])
    return {each.name: {k: unquote(v) for k, v in (each.metadata or {}).items()} for each in found}
