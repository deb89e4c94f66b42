"""The state of the simulated environment, and the methods with which a test or the demo changes it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from local.simulator.executions import Execution, PackageSettings
from local.simulator.records import Fault, Json, Package, Received, Recorded
from local.simulator.storage import Storage


class Simulator:
    """The state of the environment; `application` serves it."""

    def __init__(self) -> None:
        self.base_url = ""
        self.issuer = self
        """The simulator whose identity endpoint issues the tokens: several environments may share one."""
        self.storage: Storage | None = None
        """Where the packages of the package API are; None until `use_storage`."""
        self.reset()

    def reset(self) -> None:
        """Forget everything but the URL, the issuer and the storage."""
        self.export_jobs: set[str] = set()
        self.import_jobs: set[str] = set()
        self.packages: list[Package] = []
        self.received: list[Received] = []
        self.package_api = PackageSettings()
        self.projects: dict[str, str] = {}
        """The data projects, each "plain" or "composite". An import into a missing one makes it."""
        self.executions: list[Execution] = []
        self.vanished: Counter[str] = Counter()
        """How many executions of each data project left no trace."""
        self.importing: list[str] = []
        """The project of each import that is in progress now."""
        self.most_importing = 0
        """The most imports that were in progress at once."""
        self.aborted = 0
        self.faults: list[Fault] = []
        self.requests: list[Recorded] = []
        self.latency: dict[str, float] = {}
        self.reoffer_seconds = 1800.0
        self.reoffered_as = "same"
        """The correlation id of a further offer of a package: the "same", a "new" one, or "none"."""
        self.gives_ranges = True
        """Whether a request can ask for a part of a package (`Range`)."""
        self.strict_receipts = True
        self.blank: str | None = None
        """The value of a dequeued message's field that has none: None, or an empty text."""
        self.registered = True
        self.applications: list[dict[str, str]] = []
        """The applications that people registered. `registered` says whether D365 lets requests in."""
        self.users = {"admin", "bridge"}
        """Ids of D365's users, in small letters."""
        self.largest_body = 1 << 62
        self.message_id_form = '"{}"'
        self.statuses: tuple[str, ...] = ("Enqueued", "Processing", "Processed")
        self.reject_text = b"REJECT"
        self.reject_errors = ["The journal does not balance.", "Account 999999 does not exist."]
        self.imported: int | None = None
        """How many records of a rejected file get into their tables nevertheless."""
        self.company = "DAT"
        self.company_from_message = True
        """The recurring job's switch *Use company from message*. Without it, D365 imports into `company`."""
        self.execution_parameter = "_messageId"
        """The name of GetExecutionIdByMessageId's parameter."""
        self.keys_polls = 1
        """How many requests for the URL of an error keys file get an empty text first."""
        self.keys_location = "{base}/keys/{execution}/{entity}?sv=2026-01-01&sig=S3cretS1gnature"
        self.tokens: dict[str, tuple[str, float]] = {}
        self.token_seconds = 3600.0
        self.keeps_tokens = False
        """Whether the identity endpoint gives a token again even if D365 refused it, as Azure's does."""
        self.kept_tokens: dict[str, tuple[str, float]] = {}

    def add_export_job(self, activity_id: str) -> None:
        """A recurring export job."""
        self.export_jobs.add(activity_id.lower())

    def add_import_job(self, activity_id: str) -> None:
        """A recurring import job."""
        self.import_jobs.add(activity_id.lower())

    def add_package(self, activity_id: str, content: bytes | Path, **options: Any) -> Package:
        """Put a package, or any file, on an export job's queue; `options` are fields of `Package`."""
        self.add_export_job(activity_id)
        package = Package(activity_id.lower(), content, **options)
        self.packages.append(package)
        return package

    def add_fault(self, operation: str, do: str, **options: Any) -> Fault:
        """Let something go wrong; `options` are fields of `Fault`."""
        fault = Fault(operation, do, **options)
        self.faults.append(fault)
        return fault

    def use_storage(self, connection_string: str) -> None:
        """Let an account of Azurite be the environment's storage, which the package API needs."""
        self.storage = Storage(connection_string)

    def package_url(self, name: str, permissions: str) -> str:
        """A signed URL of a blob in the environment's storage."""
        settings = self.package_api
        url = self._storage().url(
            name, permissions, settings.url_lifetime, old=settings.old_signatures
        )
        return settings.url_form.format(url=url)

    def store(self, name: str, content: bytes | Path) -> None:
        """Put a package into the environment's storage."""
        self._storage().write(name, content)

    def _storage(self) -> Storage:
        if self.storage is None:
            raise RuntimeError("the simulator has no storage: call use_storage first")
        return self.storage

    def execution(self, execution_id: str) -> Execution | None:
        """The newest execution with this id; None if there is none."""
        executions = reversed(self.executions)
        return next((each for each in executions if each.execution_id == execution_id), None)

    def revoke_tokens(self) -> None:
        """Refuse, from now on, every token that was issued before."""
        self.tokens.clear()

    def count(self, operation: str) -> int:
        """How many requests of an operation came."""
        return sum(request.operation == operation for request in self.requests)

    def taken(self, test: Callable[[Received], bool]) -> Received | None:
        """The first received file that passes a test."""
        return next((received for received in self.received if test(received)), None)

    def state(self) -> Json:
        """Everything, as JSON."""
        return {
            "packages": [
                {
                    "activityId": p.activity_id,
                    "correlationId": p.correlation_id,
                    "bytes": p.size,
                    "sha256": p.sha256,
                    "offered": p.offered,
                    "acknowledged": p.acknowledged,
                    "acknowledgements": p.acknowledgements,
                }
                for p in self.packages
            ],
            "received": [{**asdict(r), "statuses": list(r.statuses)} for r in self.received],
            "aborted": self.aborted,
            "requests": [asdict(request) for request in self.requests],
        }
