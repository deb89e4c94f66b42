"""`infra/` against the code: settings, containers, queues, triggers, events."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Final

import azure.functions as func

import functions
from shared.config import settings
from shared.operations import journal
from shared.storage.account import CONTAINERS, QUEUES, SUCCEEDED
from tests.infra.variants import ROOT, account, at, variants, whole

CODE: Final = (
    ROOT / "function_app.py",
    *sorted((ROOT / "functions").rglob("*.py")),
    *sorted((ROOT / "shared").rglob("*.py")),
)


@cache
def triggers() -> dict[str, dict[str, Any]]:
    """Function -> its trigger's binding, as the modules of functions/ register them."""
    app = func.FunctionApp()
    for module in iter_modules(functions.__path__):
        app.register_functions(import_module(f"functions.{module.name}").blueprint)
    return {
        str(each.get_function_name()): dict(each.get_trigger().get_dict_repr())  # type: ignore[union-attr]
        for each in app.get_functions()
    }


# -- settings -------------------------------------------------------------------------------------

NOT_SET: Final = {
    "DataStorage": "a connection string, on a developer's machine only",
    "AzureFunctionsJobHost__functionTimeout": "host.json says it",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Application Insights is the back end unless you have another",
}
"""Settings that the code reads and Azure does not set, each with its reason."""

READ_BY_OTHERS: Final = {
    "DataStorage__credential": "the host: with __clientId, triggers use the managed identity",
    "AzureWebJobsStorage__accountName": "the host",
    "AzureWebJobsStorage__blobServiceUri": "the host",
    "AzureWebJobsStorage__queueServiceUri": "the host",
    "AzureWebJobsStorage__tableServiceUri": "the host",
    "AzureWebJobsStorage__credential": "the host",
    "AzureWebJobsStorage__clientId": "the host",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": "the host",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "the host",
    "AZURE_CLIENT_ID": "azure-identity: which managed identity",
}
"""Settings that Azure sets and our code does not read, each with who reads it."""


class _Recorder(dict[str, str]):
    """An environment that knows what was asked of it."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.names_read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names_read.add(key)
        return super().get(key, default)


@cache
def _schedules_read() -> set[str]:
    """The names given to `settings.schedule` in functions/."""
    return {
        str(node.args[0].value)
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "schedule"
        and isinstance(node.args[0], ast.Constant)
    }


def app_settings(infra: Path) -> Iterator[str]:
    """Every setting that the code reads is set, each that is set is read or was asked for, and the app starts
    on them."""
    for path in CODE:
        text = path.read_text(encoding="utf-8")
        # identity.py asks only whether the platform has put its identity endpoint there.
        if path.name not in ("settings.py", "identity.py") and re.search(
            r"os\.(environ|getenv)", text
        ):
            yield f"{path.name}: reads the environment past shared/config/settings.py"
    known: set[str] = set()
    for variant in variants(infra):
        values = variant.app_settings
        recorder = _Recorder(
            {
                key: re.sub(r"^Microsoft\..*", "https://some.host/", str(value))
                for key, value in values.items()
            }
        )
        try:
            settings.load(recorder, ROOT)
        except settings.InvalidSettings as error:
            yield f"{variant.name}: the app would not start: {error}"
        read = recorder.names_read | _schedules_read()
        extra = variant.parameters.get("extraSettings", {})
        for name in sorted(extra):
            if values.get(name) != extra[name]:
                yield f"{variant.name}: {name}, which was asked for, is not set"
        for name in sorted(read - values.keys() - NOT_SET.keys()):
            yield f"{variant.name}: {name} is read and not set"
        for name in sorted(values.keys() - read - READ_BY_OTHERS.keys() - extra.keys()):
            yield f"{variant.name}: {name} is set and nobody reads it"
        known |= read | values.keys()
    for name in sorted((NOT_SET.keys() | READ_BY_OTHERS.keys()) - known):
        yield f"{name} is listed as an exception and is none"


def identity_settings(infra: Path) -> Iterator[str]:
    """Triggers, our clients, telemetry and D365 all use the app's identity, and the host finds its storage."""
    for variant in variants(infra):
        values = variant.app_settings
        identity = variant.the("Microsoft.ManagedIdentity/userAssignedIdentities")["id"]
        client = f"{identity}.properties.clientId"
        expected = {
            "AZURE_CLIENT_ID": client,
            "D365_CLIENT_ID": variant.parameters.get("d365ClientId", ""),
            "D365_TENANT_ID": variant.d365_tenant,
            "DataStorage__clientId": client,
            "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": f"ClientId={client};Authorization=AAD",
            "AzureWebJobsStorage__credential": "managedidentity",
            "AzureWebJobsStorage__clientId": client,
        }
        for key, value in expected.items():
            if values.get(key) != value:
                yield f"{variant.name}: {key} is {values.get(key)!r}, not {value!r}"
        for service in ("blob", "queue", "table"):
            key = f"AzureWebJobsStorage__{service}ServiceUri"
            if not account(values.get(key), service):
                yield f"{variant.name}: {key} names no account"
        app = variant.the("Microsoft.Web/sites")
        if list(at(app, "identity.userAssignedIdentities") or {}) != [identity]:
            yield f"{variant.name}: the app does not run as {identity}"


TOO_LATE: Final = ("PYTHON_THREADPOOL_", "MALLOC_")
"""What is read when a worker starts: on Flex Consumption that is before it gets its app settings."""
THREADS: Final = 5
"""Of a worker's pool on one core, as it is there then (Python's `ThreadPoolExecutor`: cores + 4)."""


def threads(infra: Path) -> Iterator[str]:
    """The worker has a thread for each invocation that host.json lets run at a time, by itself."""
    extensions = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))["extensions"]
    queues = extensions["queues"]["batchSize"] + extensions["queues"]["newBatchThreshold"]
    most = max(queues, extensions["blobs"]["maxDegreeOfParallelism"])
    if most > THREADS:
        yield f"host.json lets {most} run at a time; a worker has {THREADS} threads"
    for name in whole(infra).app_settings:
        if name.startswith(TOO_LATE):
            yield f"the app setting {name} comes too late: the worker process is older"


# -- containers, queues, triggers, events ---------------------------------------------------------

NOT_OURS: Final = {"dead-letters": "Event Grid writes it, people read it"}
"""Containers of the data account that the code does not use, each with its reason."""


def containers_and_queues(infra: Path) -> Iterator[str]:
    """The data account has the containers and the queue that the code uses, no others; what grows is cut."""
    for variant in variants(infra):
        of = variant.data_account
        for kind, names, used in (
            (
                "container",
                variant.in_account("blobServices/containers", of),
                {*CONTAINERS, journal.JOURNAL, *NOT_OURS},
            ),
            ("queue", variant.in_account("queueServices/queues", of), set(QUEUES)),
        ):
            for name in sorted(used - names):
                yield f"{variant.name}: {kind} {name} is used and not made"
            for name in sorted(names - used):
                yield f"{variant.name}: {kind} {name} is made and not used"
        policy = variant.the("Microsoft.Storage/storageAccounts/managementPolicies")
        rules = at(policy, "properties.policy.rules") or []
        cut = [at(rule, "definition.filters.prefixMatch") for rule in rules]
        if [f"{journal.JOURNAL}/"] not in cut:
            yield f"{variant.name}: the journal grows for ever"
        for rule in rules:
            if not rule.get("enabled"):
                yield f"{variant.name}: the rule {rule['name']} is off"
        days = {
            "tierToCool": variant.parameters.get("coolSucceededAfterDays", 30),
            "delete": variant.parameters.get("deleteSucceededAfterDays", 0),
        }
        expected = {what: {"daysAfterModificationGreaterThan": n} for what, n in days.items() if n}
        of_old = [r for r in rules if at(r, "definition.filters.prefixMatch") == [f"{SUCCEEDED}/"]]
        actual = {} if not of_old else at(of_old[0], "definition.actions.baseBlob")
        if actual != expected:
            yield f"{variant.name}: succeeded files: {actual}, not {expected}"


def connections(infra: Path) -> Iterator[str]:
    """Each trigger's connection is set, with identity, and leads to the account with its container or queue."""
    variant = whole(infra)
    values, data = variant.app_settings, variant.data_account
    for function, trigger in triggers().items():
        connection = trigger.get("connection")
        if not connection:
            continue
        # A blob trigger's poison queue is in its own connection's queue service.
        for service in ("blob", "queue") if trigger["type"] == "blobTrigger" else ("queue",):
            key = f"{connection}__{service}ServiceUri"
            if not data or account(values.get(key), service) != data:
                yield f"{function}: {key} is {values.get(key)!r}, not the data account's"
        for key in ("credential", "clientId"):  # the host wants both for a user-assigned identity
            if not values.get(f"{connection}__{key}"):
                yield f"{function}: {connection}__{key} is not set"


def events(infra: Path) -> Iterator[str]:
    """The event subscription delivers finished uploads of the trigger's container, and nothing else, to it."""
    function, trigger = next((f, t) for f, t in triggers().items() if t["type"] == "blobTrigger")
    container = str(trigger["path"]).split("/")[0]
    variant = whole(infra)
    (subscription,) = variant.events.resources
    body = subscription["properties"]
    topic = variant.the("Microsoft.EventGrid/systemTopics")
    app = variant.the("Microsoft.Web/sites")
    dead = at(body, "deadLetterWithResourceIdentity.deadLetterDestination.properties") or {}
    filters = {
        (each["key"], each["operatorType"]): set(each["values"])
        for each in at(body, "filter.advancedFilters") or []
    }
    keys = f"listKeys({app['id']}/host/default, {app['apiVersion']}).systemKeys"
    url = (
        f"https://{app['id']}.properties.defaultHostName/runtime/webhooks/blobs"
        f"?functionName=Host.Functions.{function}&code={keys}.blobs_extension"
    )
    prefix = f"/blobServices/default/containers/{container}/"
    unfinished = {("data.api", "StringNotIn"): {"CreateFile", "SftpCreate", "AppendFile"}}
    for what, actual, expected in (
        ("endpointUrl", at(body, "destination.properties.endpointUrl"), url),
        ("subjectBeginsWith", at(body, "filter.subjectBeginsWith"), prefix),
        ("event types", at(body, "filter.includedEventTypes"), ["Microsoft.Storage.BlobCreated"]),
        ("filters", filters, unfinished),
        ("topic", subscription["name"].split("/")[0], topic["name"]),
        ("topic source", at(topic, "properties.source"), variant.data_account),
        ("dead-letter account", dead.get("resourceId"), variant.data_account),
        ("dead-letter container", dead.get("blobContainerName"), "dead-letters"),
    ):
        if actual != expected:
            yield f"events.bicep: {what} is {actual!r}, not {expected!r}"
