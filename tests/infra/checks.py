"""The checks of `infra/`, each a function from the folder to what is wrong: nothing, when all is well.

They look at what the files *deploy* (`bicep.deploy`), with all options off, all on, and in between, and compare
it with what the code *does*: the settings it reads while it runs, the triggers it registers, the calls it makes.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import azure.functions as func

from functions import check_status, export_packages, import_file, reconcile
from shared import blobs, settings, telemetry
from tests.infra import bicep, kql, roles, schema
from tests.infra.bicep import Deployment, Mistake, Resource, Runtime

ROOT: Final = Path(__file__).resolve().parents[2]
INFRA: Final = ROOT / "infra"

_BASIC: Final = {"d365Url": "https://contoso.operations.dynamics.com"}
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "as azd deploys first": _BASIC,
    "in one deployment": _BASIC
    | {"packageUri": "https://example.org/app.zip", "alertEmails": ["erp@example.org"]},
    "with every option": _BASIC
    | {
        "packageUri": "https://example.org/app.zip",
        "privateNetwork": True,
        "d365ClientId": "11111111-1111-4111-8111-111111111111",
        "d365ClientObjectId": "22222222-2222-4222-8222-222222222222",
        "d365ClientSecret": "secret",
        "deleteSucceededAfterDays": 365,
        "alertEmails": ["erp@example.org"],
        "actionGroupId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Insights/actionGroups/a",
    },
    "with a hierarchical namespace": _BASIC
    | {"hierarchicalNamespace": True, "coolSucceededAfterDays": 0, "createEventSubscription": True},
}


def everything(infra: Path) -> list[Deployment]:
    """What the main file deploys, in each variant. Raises `Mistake`."""
    return [bicep.deploy(infra / "main.bicep", given) for given in VARIANTS.values()]


def _whole(infra: Path) -> Deployment:
    return bicep.deploy(infra / "main.bicep", VARIANTS["in one deployment"])


@cache
def _triggers() -> dict[str, dict[str, Any]]:
    """Function -> its trigger's binding, as the app registers them."""
    app = func.FunctionApp()
    for module in (export_packages, import_file, check_status, reconcile):
        app.register_functions(module.blueprint)
    return {
        each.get_function_name(): each.get_trigger().get_dict_repr()  # type: ignore[union-attr]
        for each in app.get_functions()
    }


# -- the files by themselves ----------------------------------------------------------------------


def files(infra: Path) -> list[str]:
    """Every file parses; names are declared and used; parameters are described; no file lies about unused."""
    wrong = [each for path in sorted(infra.rglob("*.bicep*")) for each in bicep.lint(path)]
    text = "".join(p.read_text(encoding="utf-8") for p in infra.rglob("*.bicep"))
    for path in sorted([*infra.glob("modules/*"), *infra.glob("queries/*")]):
        if f"/{path.name}'" not in text:
            wrong.append(f"{path.name}: no Bicep file names it")
    return wrong


def deploys(infra: Path) -> list[str]:
    """Every variant evaluates: module parameters match, no resource twice, no two of one name."""
    wrong = []
    for name, given in VARIANTS.items():
        seen: set[str] = set()
        try:
            deployed = bicep.deploy(infra / "main.bicep", given).resources
        except Mistake as mistake:
            wrong.append(f"{name}: {mistake}")
            continue
        for each in (r for r in deployed if not r.existing):
            if each.id in seen:
                wrong.append(f"{name}: {each.id} is deployed twice")
            seen.add(each.id)
        wrong += [
            f"{name}: {each.file}: {each.symbol}: {each.id} is not deployed by us"
            for each in deployed
            if each.existing and each.id not in seen
        ]
    return wrong


def parameter_file(infra: Path) -> list[str]:
    """main.bicepparam parses, names only parameters that there are, and gives all that must be given."""
    path = infra / "main.bicepparam"
    wrong = []
    for environment in (
        {"D365_URL": _BASIC["d365Url"]},
        {
            "D365_URL": _BASIC["d365Url"],
            "ALERT_EMAILS": "a@b.org,c@d.org",
            "PACKAGE_URI": "https://a/b",
        },
        {"D365_URL": _BASIC["d365Url"], "SUBSCRIBE_TO_EVENTS": "true"},
    ):
        target, given = bicep.parameters(path, environment)
        if target.name != "main.bicep":
            wrong.append(f"{path.name}: is for {target.name}")
        subscribed = bicep.deploy(target, given).outputs["eventsSubscribed"]
        if subscribed != (len(environment) > 1):
            wrong.append(f"{path.name}: with {environment}, events subscribed: {subscribed}")
    return wrong


def types(infra: Path) -> list[str]:
    """Azure's types have every property that is set; required ones are there; values are allowed."""
    schemas = schema.load()
    return [
        wrong
        for deployment in everything(infra)
        for resource in deployment.resources
        if not resource.existing
        for wrong in schema.check(resource, schemas)
    ]


# -- settings -------------------------------------------------------------------------------------

NOT_SET: Final = {
    "DataStorage": "a connection string, on a developer's machine only",
    "AzureFunctionsJobHost__functionTimeout": "host.json says it",
}
"""Settings that the code reads and Azure does not set, each with its reason."""

READ_BY_OTHERS: Final = {
    "DataStorage__credential": "the host: with __clientId it makes the triggers use the managed identity",
    "AzureWebJobsStorage__blobServiceUri": "the host",
    "AzureWebJobsStorage__queueServiceUri": "the host",
    "AzureWebJobsStorage__tableServiceUri": "the host",
    "AzureWebJobsStorage__credential": "the host",
    "AzureWebJobsStorage__clientId": "the host",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": "the host",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "the host",
    "PYTHON_THREADPOOL_THREAD_COUNT": "the Python worker",
    "AZURE_CLIENT_ID": "azure-identity: which managed identity, or which app registration",
    "AZURE_TENANT_ID": "azure-identity, with an app registration",
    "AZURE_CLIENT_SECRET": "azure-identity, with an app registration",
}
"""Settings that Azure sets and our code does not read, each with who reads it."""


class _Recorder(dict[str, str]):
    """An environment that knows what was asked of it."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def _app_settings(deployment: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for resource in deployment.of("Microsoft.Web/sites/config"):
        if resource.name.endswith("/appsettings"):
            found |= resource.body["properties"]
    return found


def _schedules_read() -> set[str]:
    """The names given to `settings.schedule` in functions/."""
    return {
        node.args[0].value
        for path in (ROOT / "functions").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "schedule"
        and isinstance(node.args[0], ast.Constant)
    }


def app_settings(infra: Path) -> list[str]:
    """Every setting that the code reads is set, every one that is set is read, and the app starts on them."""
    wrong: list[str] = []
    for path in [
        ROOT / "function_app.py",
        *(ROOT / "functions").glob("*.py"),
        *(ROOT / "shared").glob("*.py"),
    ]:
        if path.name != "settings.py" and re.search(
            r"os\.(environ|getenv)", path.read_text("utf-8")
        ):
            wrong.append(f"{path.name}: reads the environment past shared/settings.py")
    read_once: set[str] = set()
    for name, given in VARIANTS.items():
        found = _app_settings(bicep.deploy(infra / "main.bicep", given))
        likely = {
            key: re.sub(r"^<.*>.*", "https://a.blob.core.windows.net/", str(v))
            for key, v in found.items()
        }
        recorder = _Recorder(likely)
        try:
            settings.load(recorder, ROOT)
        except settings.InvalidSettings as error:
            wrong.append(f"{name}: the app would not start: {error}")
        read = recorder.asked | _schedules_read()
        wrong += [
            f"{name}: {each} is read and not set"
            for each in sorted(read - found.keys() - NOT_SET.keys())
        ]
        idle = found.keys() - read - READ_BY_OTHERS.keys()
        wrong += [f"{name}: {each} is set and nobody reads it" for each in sorted(idle)]
        read_once |= read | found.keys()
    for each in sorted((NOT_SET.keys() | READ_BY_OTHERS.keys()) - read_once):
        wrong.append(f"{each} is listed as an exception and is none any more")
    return wrong


def identity_settings(infra: Path) -> list[str]:
    """Triggers, our clients, telemetry and D365 all use the app's identity, and the host finds its storage."""
    wrong = []
    for name, given in VARIANTS.items():
        deployment = bicep.deploy(infra / "main.bicep", given)
        found = _app_settings(deployment)
        identity = _only(deployment, "Microsoft.ManagedIdentity/userAssignedIdentities")
        client = f"{identity.id}.properties.clientId"
        own = given.get("d365ClientId")
        wanted = {
            "AZURE_CLIENT_ID": own or client,
            "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": f"ClientId={client};Authorization=AAD",
            "AzureWebJobsStorage__credential": "managedidentity",
            "AzureWebJobsStorage__clientId": client,
        }
        if own:
            wanted["AZURE_TENANT_ID"] = "<tenant>"
        for key, value in wanted.items():
            if found.get(key) != value:
                wrong.append(f"{name}: {key} is {found.get(key)!r}, not {value!r}")
        for service in ("blob", "queue", "table"):
            if not _account(found.get(f"AzureWebJobsStorage__{service}ServiceUri"), service):
                wrong.append(f"{name}: AzureWebJobsStorage__{service}ServiceUri names no account")
        if own and not str(found.get("AZURE_CLIENT_SECRET", "")).startswith("@Microsoft.KeyVault("):
            wrong.append(f"{name}: AZURE_CLIENT_SECRET is no Key Vault reference")
        app = _only(deployment, "Microsoft.Web/sites")
        if list(app.body["identity"].get("userAssignedIdentities", {})) != [identity.id]:
            wrong.append(f"{name}: the app does not run as {identity.id}")
    return wrong


def _only(deployment: Deployment, kind: str) -> Resource:
    found = [each for each in deployment.of(kind) if not each.existing]
    if len(found) != 1:
        raise Mistake(f"{kind}: {len(found)} are deployed, not one")
    return found[0]


def _account(uri: object, service: str) -> str:
    """The account that a service URI belongs to, or ""."""
    match = re.fullmatch(
        rf"(<Microsoft\.Storage/storageAccounts/[^/>]+>)\.properties\.primaryEndpoints\.{service}",
        str(uri),
    )
    return match[1] if match else ""


# -- containers, queues, triggers, events ---------------------------------------------------------

NOT_OURS: Final = {
    "dead-letters": "Event Grid writes it, people read it",
}
"""Containers of the data account that the code does not use."""


def _data_account(deployment: Deployment) -> str:
    return _account(_app_settings(deployment).get("DataStorage__blobServiceUri"), "blob")


def _children(deployment: Deployment, kind: str, account: str) -> set[str]:
    name = account.strip("<>").rpartition("/")[2]
    return {
        each.name.rpartition("/")[2]
        for each in deployment.of(f"Microsoft.Storage/storageAccounts/{kind}")
        if not each.existing and each.name.split("/")[0] == name
    }


def containers_and_queues(infra: Path) -> list[str]:
    """The data account has the containers and the queue that the code uses, and no others."""
    wrong = []
    for name, given in VARIANTS.items():
        deployment = bicep.deploy(infra / "main.bicep", given)
        account = _data_account(deployment)
        for kind, made, used in (
            (
                "container",
                _children(deployment, "blobServices/containers", account),
                set(blobs.CONTAINERS) | NOT_OURS.keys(),
            ),
            ("queue", _children(deployment, "queueServices/queues", account), {blobs.STATUS_QUEUE}),
        ):
            wrong += [f"{name}: {kind} {each} is used and not made" for each in sorted(used - made)]
            wrong += [f"{name}: {kind} {each} is made and not used" for each in sorted(made - used)]
    return wrong


def connections(infra: Path) -> list[str]:
    """Each trigger's connection is set, with identity, and leads to the account with its container or queue."""
    wrong = []
    deployment = _whole(infra)
    found = _app_settings(deployment)
    account = _data_account(deployment)
    for function, trigger in _triggers().items():
        connection = trigger.get("connection")
        if not connection:
            continue
        # A blob trigger's poison queue is in its own connection's queue service.
        for service in ("blob", "queue") if trigger["type"] == "blobTrigger" else ("queue",):
            key = f"{connection}__{service}ServiceUri"
            if not account or _account(found.get(key), service) != account:
                wrong.append(f"{function}: {key} is {found.get(key)!r}, not the data account's")
        for key in ("credential", "clientId"):  # the host wants both for a user-assigned identity
            if not found.get(f"{connection}__{key}"):
                wrong.append(f"{function}: {connection}__{key} is not set")
    return wrong


def events(infra: Path) -> list[str]:
    """The event subscription delivers finished uploads of the trigger's container, and nothing else, to it."""
    function, trigger = next((f, t) for f, t in _triggers().items() if t["type"] == "blobTrigger")
    container = str(trigger["path"]).split("/")[0]
    deployment = _whole(infra)
    subscription = _only(deployment, "Microsoft.EventGrid/systemTopics/eventSubscriptions")
    topic = _only(deployment, "Microsoft.EventGrid/systemTopics")
    key = _only(deployment, "Microsoft.Web/sites/host/systemkeys")
    app = _only(deployment, "Microsoft.Web/sites")
    body = subscription.body["properties"]
    dead = body.get("deadLetterWithResourceIdentity", {}).get("deadLetterDestination", {})
    filters = body["filter"].get("advancedFilters", [])
    apis = next((f.get("values", []) for f in filters if f.get("key") == "data.api"), [])
    url = (
        f"https://{app.id}.properties.defaultHostName/runtime/webhooks/blobs"
        f"?functionName=Host.Functions.{function}&code={key.body['properties'].get('value')}"
    )
    account = _data_account(deployment)
    comparisons = (
        ("endpointUrl", body["destination"]["properties"].get("endpointUrl"), url),
        ("systemKey", key.name, f"{app.name}/default/blobs_extension"),
        ("systemKey name", key.body["properties"].get("name"), "blobs_extension"),
        (
            "subjectBeginsWith",
            body["filter"].get("subjectBeginsWith"),
            f"/blobServices/default/containers/{container}/",
        ),
        (
            "includedEventTypes",
            body["filter"].get("includedEventTypes"),
            ["Microsoft.Storage.BlobCreated"],
        ),
        (
            "data.api",
            set(apis),
            {"PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit"},
        ),
        ("topic source", topic.body["properties"].get("source"), account),
        ("dead-letter account", dead.get("properties", {}).get("resourceId"), account),
        (
            "dead-letter container",
            dead.get("properties", {}).get("blobContainerName"),
            "dead-letters",
        ),
        ("retries", body.get("retryPolicy", {}).get("eventTimeToLiveInMinutes"), 1440),
    )
    wrong = [
        f"subscription.bicep: {what} is {is_!r}, not {want!r}"
        for what, is_, want in comparisons
        if is_ != want
    ]
    text = (infra / "modules/subscription.bicep").read_text(encoding="utf-8")
    if not re.search(r"var key = guid\(\w+\.listKeys\(\)", text):
        wrong.append("subscription.bicep: the webhook's key does not come from a secret")
    main = bicep.parse(infra / "main.bicep").declarations["subscription"].node.text or b""
    if not re.search(rb"dependsOn: \[[^\]]*\bcode\b", main):
        wrong.append("main.bicep: the subscription does not wait for the code")
    return wrong


def threads(infra: Path) -> list[str]:
    """The worker has a thread for each invocation that host.json lets run at a time."""
    extensions = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))["extensions"]
    queues = extensions["queues"]["batchSize"] + extensions["queues"]["newBatchThreshold"]
    wanted = max(queues, extensions["blobs"]["maxDegreeOfParallelism"])
    has = int(_app_settings(_whole(infra)).get("PYTHON_THREADPOOL_THREAD_COUNT", 0))
    return (
        []
        if has >= wanted
        else [f"PYTHON_THREADPOOL_THREAD_COUNT is {has}; host.json wants {wanted}"]
    )


# -- permissions and safety -----------------------------------------------------------------------


def permissions(infra: Path) -> list[str]:
    """Every call's permission is granted where it is needed, by the narrowest role that does, and no more."""
    code = [*(ROOT / "functions").glob("*.py"), *(ROOT / "shared").glob("*.py")]
    ours, wrong = roles.needs_of(code)
    triggers = set().union(*(roles.HOST_NEEDS[t["type"]] for t in _triggers().values()))
    for name, given in VARIANTS.items():
        deployment = bicep.deploy(infra / "main.bicep", given)
        found = _app_settings(deployment)
        data = _data_account(deployment)
        host = _account(found.get("AzureWebJobsStorage__blobServiceUri"), "blob")
        app = f"{_only(deployment, 'Microsoft.ManagedIdentity/userAssignedIdentities').id}.properties.principalId"
        topic = f"{_only(deployment, 'Microsoft.EventGrid/systemTopics').id}.identity.principalId"
        insights = _only(deployment, "Microsoft.Insights/components").id
        dead = data.replace("storageAccounts/", "storageAccounts/blobServices/containers/").rstrip(
            ">"
        )
        needs: dict[tuple[str, str], set[str]] = {
            (app, host): set(roles.HOST_STORAGE),
            (app, data): ours | triggers,
            (app, insights): set(roles.TELEMETRY),
            (topic, f"{dead}/default/dead-letters>"): set(roles.DEAD_LETTERS),
        }
        if own := given.get("d365ClientObjectId"):
            needs[own, data] = ours
            needs[app, _only(deployment, "Microsoft.KeyVault/vaults").id] = set(roles.SECRETS)
        assigned = _assigned(deployment)
        for who, where in needs.keys() | assigned.keys():
            place = f"{name}: {_short(who)} on {_short(where)}"
            wrong += roles.compare(
                place, needs.get((who, where), set()), assigned.get((who, where), [])
            )
    return wrong


def _assigned(deployment: Deployment) -> dict[tuple[str, str], list[str]]:
    """(principal, scope) -> role ids."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in deployment.of("Microsoft.Authorization/roleAssignments"):
        where = str(each.scope.id) if each.scope else "<the whole resource group>"
        role = str(each.body["properties"]["roleDefinitionId"]).strip("<>").rpartition("/")[2]
        found.setdefault((str(each.body["properties"]["principalId"]), where), []).append(role)
    return found


def _short(text: str) -> str:
    return text.replace("<Microsoft.", "").replace(">", "")


SAFE: Final = (
    ("Microsoft.Storage/storageAccounts", "properties.allowSharedKeyAccess", False),
    ("Microsoft.Storage/storageAccounts", "properties.allowBlobPublicAccess", False),
    ("Microsoft.Storage/storageAccounts", "properties.supportsHttpsTrafficOnly", True),
    ("Microsoft.Storage/storageAccounts", "properties.minimumTlsVersion", "TLS1_2"),
    ("Microsoft.Web/sites", "properties.httpsOnly", True),
    ("Microsoft.Web/sites", "properties.siteConfig.minTlsVersion", "1.2"),
    ("Microsoft.Web/sites", "properties.siteConfig.scmMinTlsVersion", "1.2"),
    ("Microsoft.Web/sites", "properties.siteConfig.ftpsState", "Disabled"),
    ("Microsoft.Web/sites", "properties.functionAppConfig.runtime.name", "python"),
    ("Microsoft.Web/sites", "properties.functionAppConfig.runtime.version", "3.13"),
    ("Microsoft.Web/sites/basicPublishingCredentialsPolicies", "properties.allow", False),
    ("Microsoft.Insights/components", "properties.DisableLocalAuth", True),
    ("Microsoft.OperationalInsights/workspaces", "properties.features.disableLocalAuth", True),
)


def safety(infra: Path) -> list[str]:
    """Entra only, TLS 1.2, no passwords, no public blobs; deleted data can be brought back; no secret comes out."""
    wrong = []
    for name, given in VARIANTS.items():
        deployment = bicep.deploy(infra / "main.bicep", given)
        for kind, path, want in SAFE:
            found = [each for each in deployment.of(kind) if not each.existing]
            if not found:
                wrong.append(f"{name}: no {kind} is deployed")
            for each in found:
                if (is_ := _at(each.body, path)) != want:
                    wrong.append(
                        f"{name}: {each.file}: {each.symbol}.{path} is {is_!r}, not {want!r}"
                    )
        policies = deployment.of("Microsoft.Web/sites/basicPublishingCredentialsPolicies")
        if {each.name.rpartition("/")[2] for each in policies} != {"ftp", "scm"}:
            wrong.append(f"{name}: passwords are not off for both ftp and scm")
        data = _data_account(deployment).strip("<>").rpartition("/")[2]
        for each in deployment.of("Microsoft.Storage/storageAccounts/blobServices"):
            if each.name.startswith(f"{data}/") and not each.existing:
                if not _at(each.body, "properties.deleteRetentionPolicy.enabled"):
                    wrong.append(f"{name}: soft delete is off in the data account")
                flat = not given.get("hierarchicalNamespace")
                if _at(each.body, "properties.isVersioningEnabled") != flat:
                    wrong.append(
                        f"{name}: versioning is {'off' if flat else 'on'} in the data account"
                    )
        if given.get("privateNetwork"):
            wrong += [
                f"{name}: {each.id} can be reached from outside"
                for each in deployment.of("Microsoft.Storage/storageAccounts")
                if not each.existing
                and _at(each.body, "properties.publicNetworkAccess") != "Disabled"
            ]
    for path in sorted(infra.rglob("*.bicep")):
        wrong += _secrets(path)
    return wrong


def _secrets(path: Path) -> Iterator[str]:
    """Parameters that hold a secret and do not say so, and outputs with one: these stay in the deployment's history."""
    file = bicep.parse(path)
    for each in file.of("param"):
        if re.search(r"[Ss]ecret$|packageUri$", each.name) and "secure" not in each.decorators:
            yield f"{path.name}: param {each.name} is not @secure()"
    secure = [each.name for each in file.of("param") if "secure" in each.decorators]
    for each in file.outputs.values():
        text = (each.node.text or b"").decode()
        if re.search(rf"\b({'|'.join([r'list[A-Z]\w+', *secure])})\b", text):
            yield f"{path.name}: output {each.name} gives a secret away"


def _at(body: object, path: str) -> Any:
    for part in path.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body


def next_steps(infra: Path) -> list[str]:
    """The outputs name the client id, and the steps left in D365 with it."""
    outputs = _whole(infra).outputs
    client = outputs.get("identityClientId")
    steps = "\n".join(outputs.get("nextSteps", []))
    wanted = [
        str(client),
        _BASIC["d365Url"],
        "Microsoft Entra applications",
        "Authorization policy",
        "jobs.json",
    ]
    if not isinstance(client, Runtime) or not client.endswith(".properties.clientId"):
        return [f"main.bicep: identityClientId is {client!r}"]
    return [f"main.bicep: nextSteps do not say {each}" for each in wanted if each not in steps]


# -- telemetry ------------------------------------------------------------------------------------


def queries_in(deployment: Deployment) -> Iterator[tuple[str, str]]:
    """Every query that is deployed, with its name: those of the alert rules and those of the workbook."""
    for rule in deployment.of("Microsoft.Insights/scheduledQueryRules"):
        yield rule.name, rule.body["properties"]["criteria"]["allOf"][0]["query"]
    for workbook in deployment.of("Microsoft.Insights/workbooks"):
        for item in json.loads(workbook.body["properties"]["serializedData"])["items"]:
            if query := item["content"].get("query"):
                yield item["name"], query


def queries(infra: Path) -> list[str]:
    """Events and fields in the queries are those of shared/telemetry.py; alerts reach somebody."""
    wrong = []
    for name, query in queries_in(_whole(infra)):
        used = kql.events_in(query)
        if not used:
            wrong.append(f"{name}: names no event")
        wrong += [
            f"{name}: there is no event {each}" for each in sorted(used - telemetry.EVENTS.keys())
        ]
        carried = {field for each in used for field in telemetry.EVENTS.get(each, ())}
        for field in sorted(kql.fields_in(query) - carried):
            wrong.append(f"{name}: none of {', '.join(sorted(used))} always carries {field}")
        wrong += [f"{name}: {each}" for each in kql.mistakes(query)]
    for variant in ("in one deployment", "with every option"):
        deployment = bicep.deploy(infra / "main.bicep", VARIANTS[variant])
        given = VARIANTS[variant]
        groups = [each.id for each in deployment.of("Microsoft.Insights/actionGroups")]
        groups += [given["actionGroupId"]] if "actionGroupId" in given else []
        for rule in deployment.of("Microsoft.Insights/scheduledQueryRules"):
            if rule.body["properties"]["actions"]["actionGroups"] != groups:
                wrong.append(f"{variant}: {rule.name} does not tell {groups}")
        for rule in deployment.of("Microsoft.Insights/metricAlerts"):
            if [each["actionGroupId"] for each in rule.body["properties"]["actions"]] != groups:
                wrong.append(f"{variant}: {rule.name} does not tell {groups}")
    return wrong


# -- azd ------------------------------------------------------------------------------------------


def azd(infra: Path) -> list[str]:
    """azd finds the app by its tag, and its hook sets the variable that main.bicepparam reads."""
    text = (infra.parent / "azure.yaml").read_text(encoding="utf-8")
    tag = _only(_whole(infra), "Microsoft.Web/sites").body.get("tags", {}).get("azd-service-name")
    wrong = []
    if not re.search(rf"(?m)^  {tag}:$", text):
        wrong.append(f"azure.yaml: has no service {tag}")
    read = set(
        re.findall(
            r"readEnvironmentVariable\('(\w+)'", (infra / "main.bicepparam").read_text("utf-8")
        )
    )
    for name in re.findall(r"azd env set (\w+)", text):
        if name not in read:
            wrong.append(f"azure.yaml: sets {name}, which main.bicepparam does not read")
    if "azd env set SUBSCRIBE_TO_EVENTS true" not in text:
        wrong.append("azure.yaml: the hook does not subscribe to events")
    return wrong


CHECKS: Final[Mapping[str, Callable[[Path], list[str]]]] = {
    check.__name__: check
    for check in (
        files,
        deploys,
        parameter_file,
        types,
        app_settings,
        identity_settings,
        containers_and_queues,
        connections,
        events,
        threads,
        permissions,
        safety,
        next_steps,
        queries,
        azd,
    )
}


def run(name: str, infra: Path = INFRA) -> list[str]:
    """What a check finds; a file that can't be evaluated is what it finds."""
    try:
        return list(dict.fromkeys(CHECKS[name](infra)))
    except Mistake as mistake:
        return [str(mistake)]
    except (KeyError, IndexError, StopIteration, AttributeError, TypeError) as error:
        return [f"not what this check expects: {error!r}"]
