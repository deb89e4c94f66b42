"""What stops or misleads a first deployment, and what people expect to be able to say about one."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.infra import compiler
from tests.infra.variants import Variant, at, variants, whole

FLEX_REFUSES: Final = {
    # Named by Azure in refusals (51021): Azure/terraform-azurerm-avm-res-web-site, issues 283 and 360
    "ftpsState",
    "functionsRuntimeScaleMonitoringEnabled",
    "linuxFxVersion",
    "netFrameworkVersion",
    "preWarmedInstanceCount",
    "use32BitWorkerProcess",
    # Microsoft Learn, "App settings reference for Azure Functions", section Flex Consumption plan deprecations
    "javaVersion",
    "minimumElasticInstanceCount",
    "nodeVersion",
    "phpVersion",
    "powerShellVersion",
    "pythonVersion",
    "vnetRouteAllEnabled",
    "windowsFxVersion",
    # Not offered for this plan: microsoft/azure-skills, Azure Functions, Reliability
    "healthCheckPath",
}
"""Properties of `siteConfig` that Flex Consumption does not take."""

NOT_ON_FLEX: Final = {
    "ENABLE_ORYX_BUILD",
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_WORKER_RUNTIME",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
    "WEBSITE_CONTENTSHARE",
    "WEBSITE_RUN_FROM_PACKAGE",
    "WEBSITE_TIME_ZONE",
    "WEBSITE_VNET_ROUTE_ALL",
}
"""App settings that are deprecated or without effect there (the same section)."""


def flex(infra: Path) -> Iterator[str]:
    """Nothing is set that Flex Consumption refuses; the host knows its account by name too; main.bicep, which
    restarts the app, does not ask it for Event Grid's confirmation."""
    for variant in variants(infra):
        for name in sorted(
            at(variant.the("Microsoft.Web/sites"), "properties.siteConfig").keys() & FLEX_REFUSES
        ):
            yield f"{variant.name}: Flex Consumption refuses siteConfig.{name}"
        for name in sorted(variant.app_settings.keys() & NOT_ON_FLEX):
            yield f"{variant.name}: {name} is no setting of Flex Consumption"
        # With the addresses alone a host is unhealthy now and then: azure-functions-host issues 11782, 11787.
        account = str(variant.app_settings.get("AzureWebJobsStorage__accountName"))
        if not variant.host_account.endswith(f"/{account}"):
            yield f"{variant.name}: AzureWebJobsStorage__accountName is {account}"
        if variant.resources("Microsoft.EventGrid/systemTopics/eventSubscriptions"):
            yield f"{variant.name}: main.bicep subscribes an app that it restarts"


def next_steps(infra: Path) -> Iterator[str]:
    """What is left to do in D365 is one text, a step a line: azd prints a list as JSON, with `>` escaped."""
    steps = whole(infra).snapshot.outputs["nextSteps"]
    if not isinstance(steps, str):
        yield f"nextSteps is a {type(steps).__name__}, which azd prints as JSON"
    elif not all(line.endswith(".") for line in steps.splitlines()) or len(steps.splitlines()) < 4:
        yield f"nextSteps is not a sentence or more in each line: {steps!r}"


NAMES: Final[Mapping[str, str]] = {
    "Microsoft.EventGrid/systemTopics": r"[a-zA-Z0-9-]{3,50}",
    "Microsoft.ManagedIdentity/userAssignedIdentities": r"[a-zA-Z0-9][\w-]{2,127}",
    "Microsoft.Network/virtualNetworks": r"[a-zA-Z0-9][\w.-]{0,62}\w",
    "Microsoft.OperationalInsights/workspaces": r"[a-zA-Z0-9][a-zA-Z0-9-]{2,61}[a-zA-Z0-9]",
    "Microsoft.Storage/storageAccounts": r"[a-z0-9]{3,24}",
    "Microsoft.Web/serverfarms": r"[a-zA-Z0-9-]{1,60}",
    "Microsoft.Web/sites": r"[a-zA-Z0-9][a-zA-Z0-9-]{0,58}[a-zA-Z0-9]",
}
"""Microsoft Learn, "Naming rules and restrictions for Azure resources"."""

LONG: Final = {"name": "b" * 24, "location": "swedencentral", "privateNetwork": True}
DIGIT: Final = {"name": "3-pl", "location": "", "privateNetwork": True}


def names(infra: Path) -> Iterator[str]:
    """Azure takes the name of each resource, also where `name` begins with a digit or is a long one."""
    for parameters in (LONG, DIGIT):
        for kind, pattern in NAMES.items():
            for each in _variant(infra, parameters).resources(kind):
                if not re.fullmatch(pattern, each["name"]):
                    yield f"{parameters['name']}: {kind} can't be called {each['name']}"


def region(infra: Path) -> Iterator[str]:
    """Everything is in the region that was said, or else in the resource group's."""
    for parameters in (LONG, DIGIT):
        location = parameters["location"] or compiler.LOCATION
        for each in _variant(infra, parameters).snapshot.resources:
            if each.get("location", location) not in (location, "global"):
                yield f"location {parameters['location']!r}: {each['id']} is in {each['location']}"


def without_a_url(infra: Path) -> Iterator[str]:
    """azd looks at main.bicep without D365_URL, for checks of its own; a deployment says that it is missing."""
    variant = _variant(infra, {"d365Url": ""})
    try:
        if not variant.resources("Microsoft.Authorization/roleAssignments"):
            yield "without D365_URL: azd sees no role assignments"
        refusal = str(variant.app_settings.get("D365_URL"))
        if not re.match(r"fail\(.*set D365_URL", refusal):
            yield f"without D365_URL: a deployment sets it to {refusal!r}"
        named = _variant(infra, {"d365Url": "", "d365InJobsFile": True})
        if named.app_settings.get("D365_URL") != "":
            yield "with the environments in the jobs file: D365_URL is set"
        if "each environment of jobs.json" not in str(named.snapshot.outputs["nextSteps"]):
            yield "with the environments in the jobs file: what is left to do names one of them"
    except compiler.NotCompiled as error:
        yield f"without D365_URL: azd leaves out its checks: {error}"


def settings_stay(infra: Path) -> Iterator[str]:
    """A deployment starts from the app settings that are there, so those made in the portal stay; ours go
    before them. Only Azure knows them, so this reads the text."""
    text = (infra / "modules/app.bicep").read_text(encoding="utf-8")
    if (
        "var otherSettings = list('${app.id}/config/appsettings', app.apiVersion).properties\n"
        not in text
    ):
        yield "app.bicep: the app settings that are there are not read"
    elif not re.search(r"'appsettings'\n  properties: union\(\n    otherSettings,\n    \{", text):
        yield "app.bicep: the app settings that are there do not stay, or go before ours"


_SITE, _PLAN = "Microsoft.Web/sites", "Microsoft.Web/serverfarms"
_ACCOUNT, _ENDPOINT = "Microsoft.Storage/storageAccounts", "Microsoft.Network/privateEndpoints"
_TOPIC, _ALERT = "Microsoft.EventGrid/systemTopics", "Microsoft.Insights/metricAlerts"
_RECORD, _NETWORK = f"{_ENDPOINT}/privateDnsZoneGroups", "Microsoft.Network/virtualNetworks"
_SCALE = "properties.functionAppConfig.scaleAndConcurrency"
_ZONE = "properties.privateDnsZoneConfigs.0.properties.privateDnsZoneId"
_HUB: Final = f"/subscriptions/s/resourceGroups/hub/providers/{_NETWORK}/hub/subnets"
_DNS: Final = "/subscriptions/s/resourceGroups/dns"

TAGGED: Final = {
    "location": "westus",
    "tags": {"owner": "erp"},
    "zoneRedundant": True,
    "alwaysReadyInstances": 2,
    "maximumInstanceCount": 1,
    "sftp": True,
    "deleteExportsAfterDays": 90,
    "alertEmails": ["erp@example.org"],
    "grantDeployerDataAccess": True,
    "eventTopicName": "theirs",
}
THEIR_NETWORK: Final = {
    "location": "West Europe",
    "hostRedundancy": "Standard_GRS",
    "privateNetwork": True,
    "appSubnetId": f"{_HUB}/app",
    "endpointsSubnetId": f"{_HUB}/endpoints",
    "privateDnsGroupId": _DNS,
}
OPTIONS: Final[tuple[tuple[dict[str, Any], tuple[tuple[str, str, str, list[Any]], ...]], ...]] = (
    (
        TAGGED,
        (
            (_PLAN, "", "properties.zoneRedundant", [True]),
            (_ACCOUNT, "host", "sku.name", ["Standard_ZRS"]),
            (_ACCOUNT, "data", "sku.name", ["Standard_LRS"]),
            (_ACCOUNT, "host", "properties.isLocalUserEnabled", [False]),
            (_ACCOUNT, "data", "properties.isLocalUserEnabled", [True]),
            (_ACCOUNT, "data", "properties.isSftpEnabled", [True]),
            (_ACCOUNT, "data", "properties.isHnsEnabled", [True]),
            (_SITE, "", f"{_SCALE}.alwaysReady", [[{"name": "blob", "instanceCount": 2}]]),
            (_SITE, "", f"{_SCALE}.maximumInstanceCount", [1]),
            (_TOPIC, "", "name", []),
            (_ALERT, "", "properties.scopes", [[f"{_TOPIC}/theirs"]]),
        ),
    ),
    (
        {},
        (
            (_PLAN, "", "properties.zoneRedundant", [False]),
            (_ACCOUNT, "host", "sku.name", ["Standard_LRS"]),
            (_ACCOUNT, "data", "sku.name", ["Standard_ZRS"]),
            (_ACCOUNT, "", "properties.isLocalUserEnabled", [False, False]),
            (_SITE, "", f"{_SCALE}.alwaysReady", [[]]),
            (_SITE, "", f"{_SCALE}.maximumInstanceCount", [40]),
            (_SITE, "", "properties.siteConfig.http20Enabled", [True]),
            (_SITE, "", "properties.virtualNetworkSubnetId", [None]),
        ),
    ),
    (
        THEIR_NETWORK,
        (
            (_ACCOUNT, "host", "sku.name", ["Standard_GRS"]),
            (_ACCOUNT, "data", "sku.name", ["Standard_ZRS"]),
            (_NETWORK, "", "name", []),
            ("Microsoft.Network/privateDnsZones", "", "name", []),
            (_SITE, "", "properties.virtualNetworkSubnetId", [f"{_HUB}/app"]),
            (_ENDPOINT, "", "properties.subnet.id", [f"{_HUB}/endpoints"] * 5),
            (
                _RECORD,
                "data",
                _ZONE,
                [
                    f"{_DNS}/providers/Microsoft.Network/privateDnsZones/privatelink.{service}.core.windows.net"
                    for service in ("blob", "queue")
                ],
            ),
        ),
    ),
    (
        THEIR_NETWORK | {"privateDnsGroupId": "", "dataRedundancy": "Standard_GZRS"},
        ((_RECORD, "", "name", []), (_ACCOUNT, "data", "sku.name", ["Standard_GZRS"])),
    ),
    (
        {"appSubnetId": f"{_HUB}/app"},
        (
            (_SITE, "", "properties.virtualNetworkSubnetId", [f"{_HUB}/app"]),
            (_ENDPOINT, "", "name", []),
        ),
    ),
)
"""Parameters; then, of the resources of a type with a part in their names, what a property is with them."""

REFUSED: Final[tuple[dict[str, Any], ...]] = (
    {"sftp": True, "hierarchicalNamespace": False},
    {"endpointsSubnetId": f"{_HUB}/endpoints"},
    {"maximumInstanceCount": 0},
    {"hostRedundancy": "Premium_LRS"},
)


def options(infra: Path) -> Iterator[str]:
    """What people expect to be able to say has its effect, each default is what the pages say, and what can't
    be is refused before anything is made."""
    yield from _with_tags(_variant(infra, TAGGED))
    for parameters, properties in OPTIONS:
        variant = _variant(infra, parameters)
        for kind, part, path, expected in properties:
            actual = [at(each, path) for each in variant.resources(kind) if part in each["name"]]
            if actual != expected:
                yield f"{parameters}: {kind} {part}: {path} is {actual}, not {expected}"
    for parameters in REFUSED:
        try:
            resources = _variant(infra, parameters).snapshot.resources
            yield f"{parameters} is not refused: {len(resources)} resources are made"
        except compiler.NotCompiled:
            pass


TAKES_NO_TAGS: Final = re.compile(
    r"Microsoft\.(Storage/storageAccounts|Web/sites)/|Microsoft\.Authorization/"
)


def _with_tags(variant: Variant) -> Iterator[str]:
    for each in variant.snapshot.resources:
        if not TAKES_NO_TAGS.match(each["type"]) and each.get("tags", {}).get("owner") != "erp":
            yield f"{each['id']} has not the tags that were said"
    rules = at(variant.the(f"{_ACCOUNT}/managementPolicies"), "properties.policy.rules")
    days = {
        at(rule, "definition.filters.prefixMatch.0"): at(
            rule, "definition.actions.baseBlob.delete.daysAfterModificationGreaterThan"
        )
        for rule in rules
    }
    if days.get("exports/") != 90:
        yield f"exported packages are deleted after {days.get('exports/')} days"
    granted = [
        (at(each, "properties.principalId"), each["id"])
        for each in variant.resources("Microsoft.Authorization/roleAssignments")
    ]
    for principal, where in (
        ("deployer().objectId", variant.data_account),
        (f"{_TOPIC}/theirs.identity.principalId", "dead-letters"),
    ):
        if len([each for who, each in granted if who == principal and where in each]) != 1:
            yield f"{principal} has no role on {where}"
    if variant.snapshot.outputs.get("topicName") != "theirs":
        yield "events.bicep is not told of the topic that is there"


def _variant(infra: Path, parameters: Mapping[str, Any]) -> Variant:
    return Variant(str(parameters), infra, parameters)


def packed(infra: Path) -> Iterator[str]:
    """azd packs the app: not the zip of the other way to deploy, nor what only develops and sets up."""
    ignored = (infra.parent / ".funcignore").read_text(encoding="utf-8").splitlines()
    for each in ("app.zip", "azure.yaml", "infra", "tests", "tools", "local", "docs"):
        if each not in ignored:
            yield f".funcignore: azd packs {each}"
