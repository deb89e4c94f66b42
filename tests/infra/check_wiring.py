"""What has to fit together for any of it to run: ids, identities, order, and the outputs that people read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.infra import bicep
from tests.infra.variants import ROOT, Variant, at, variants, whole

_PACKAGE = "properties.functionAppConfig.deployment.storage"
_EVENTS = "Microsoft.EventGrid/systemTopics/eventSubscriptions"
_NETWORK = "Microsoft.Network/virtualNetworks"
_RULE, _METRIC = "properties.criteria.allOf.0", "Microsoft.Insights/metricAlerts"

WIRED: Final = (
    ("Microsoft.Web/serverfarms", "sku.name", "FC1"),
    ("Microsoft.Web/serverfarms", "sku.tier", "FlexConsumption"),
    ("Microsoft.Web/serverfarms", "properties.reserved", True),
    ("Microsoft.Web/sites", "kind", "functionapp,linux"),
    ("Microsoft.Web/sites", "identity.type", "UserAssigned"),
    ("Microsoft.Web/sites", "properties.publicNetworkAccess", "Enabled"),
    ("Microsoft.Web/sites", "properties.serverFarmId", "{plan}"),
    ("Microsoft.Web/sites", "properties.keyVaultReferenceIdentity", "{identity}"),
    ("Microsoft.Web/sites", f"{_PACKAGE}.type", "blobContainer"),
    ("Microsoft.Web/sites", f"{_PACKAGE}.value", "{host}.properties.primaryEndpoints.blobcode"),
    ("Microsoft.Web/sites", f"{_PACKAGE}.authentication.type", "UserAssignedIdentity"),
    (
        "Microsoft.Web/sites",
        f"{_PACKAGE}.authentication.userAssignedIdentityResourceId",
        "{identity}",
    ),
    ("Microsoft.Insights/components", "properties.WorkspaceResourceId", "{workspace}"),
    ("Microsoft.Authorization/roleAssignments", "properties.principalType", "ServicePrincipal"),
    ("Microsoft.Storage/storageAccounts", "properties.networkAcls.bypass", "AzureServices"),
    ("Microsoft.EventGrid/systemTopics", "identity.type", "SystemAssigned"),
    (
        "Microsoft.EventGrid/systemTopics",
        "properties.topicType",
        "Microsoft.Storage.StorageAccounts",
    ),
    (_EVENTS, "properties.eventDeliverySchema", "EventGridSchema"),
    (_EVENTS, "properties.retryPolicy.maxDeliveryAttempts", 30),
    (_EVENTS, "properties.deadLetterWithResourceIdentity.identity.type", "SystemAssigned"),
    ("Microsoft.Insights/scheduledQueryRules", "properties.scopes.0", "{workspace}"),
    ("Microsoft.Insights/scheduledQueryRules", "properties.enabled", True),
    ("Microsoft.Insights/scheduledQueryRules", "properties.skipQueryValidation", True),
    ("Microsoft.Insights/scheduledQueryRules", f"{_RULE}.timeAggregation", "Count"),
    ("Microsoft.Insights/scheduledQueryRules", f"{_RULE}.operator", "GreaterThan"),
    ("Microsoft.Insights/scheduledQueryRules", f"{_RULE}.threshold", 0),
    (_METRIC, "properties.scopes.0", "{topic}"),
    (_METRIC, "properties.enabled", True),
    (_METRIC, "properties.windowSize", "PT1H"),
    (_METRIC, f"{_RULE}.metricName", "DeadLetteredCount"),
    (_METRIC, f"{_RULE}.timeAggregation", "Total"),
    (_METRIC, f"{_RULE}.operator", "GreaterThan"),
    (_METRIC, f"{_RULE}.threshold", 0),
    ("Microsoft.Insights/workbooks", "kind", "shared"),
    ("Microsoft.Insights/workbooks", "properties.sourceId", "{workspace}"),
    ("Microsoft.KeyVault/vaults", "properties.enableRbacAuthorization", True),
    ("Microsoft.KeyVault/vaults", "properties.enableSoftDelete", True),
    (_NETWORK, "properties.addressSpace.addressPrefixes.0", "10.20.0.0/24"),
    (_NETWORK, "properties.subnets.0.properties.addressPrefix", "10.20.0.0/26"),
    (_NETWORK, "properties.subnets.1.properties.addressPrefix", "10.20.0.64/26"),
    ("Microsoft.Network/privateDnsZones", "location", "global"),
    ("Microsoft.Network/privateDnsZones/virtualNetworkLinks", "location", "global"),
)
"""What a property must be; in braces the id of a resource."""

WAITS: Final = (
    ("main.bicep", "app", {"roles", "endpoints"}),
    ("main.bicep", "endpoints", {"storage"}),
    ("main.bicep", "subscription", {"code", "roles"}),
    ("modules/subscription.bicep", "subscription", {"systemKey"}),
    ("modules/storage.bicep", "lifecycle", {"dataBlobs"}),
)
"""What a declaration does not refer to and must wait for."""


def wiring(infra: Path) -> Iterator[str]:
    """Resources refer to each other as they must, and wait for each other where no reference says so."""
    for variant in variants(infra):
        yield from (f"{variant.name}: {wrong}" for wrong in _loose(variant))
    for file, symbol, wanted in WAITS:
        text = (bicep.parse(infra / file).declarations[symbol].node.text or b"").decode()
        waits = set(re.findall(r"\w+", "".join(re.findall(r"dependsOn: \[(.*)\]", text))))
        for each in sorted(wanted - waits):
            yield f"{file}: {symbol} does not wait for {each}"


def _loose(variant: Variant) -> Iterator[str]:
    ids = {
        "host": variant.host_account,
        "identity": variant.the("Microsoft.ManagedIdentity/userAssignedIdentities").id,
        "plan": variant.the("Microsoft.Web/serverfarms").id,
        "topic": variant.the("Microsoft.EventGrid/systemTopics").id,
        "workspace": variant.the("Microsoft.OperationalInsights/workspaces").id,
    }
    for kind, path, value in WIRED:
        wanted = value.format(**ids) if isinstance(value, str) else value
        for each in variant.made(kind):
            if (found := at(each.body, path)) != wanted:
                yield f"{each.file}: {each.symbol}.{path} is {found!r}, not {wanted!r}"
    if "code" not in variant.in_account("blobServices/containers", variant.host_account):
        yield "the container for the code package is not made"


def outputs(infra: Path) -> Iterator[str]:
    """What the pages, the workflow and azd's hook read is an output; another tenant's credential is whole."""
    root = infra.parent
    there = whole(infra).deployment.outputs
    for name in (
        "docs/deploy.md",
        "docs/operations.md",
        ".github/workflows/deploy.yml",
        "azure.yaml",
    ):
        text = (root / name).read_text(encoding="utf-8")
        read = re.findall(r"azd env get-value (\w+)|\boutputs\.(\w+)\.value", text)
        for each in sorted({azd or az for azd, az in read} - there.keys()):
            if not each.startswith("AZURE_"):  # azd's own
                yield f"{name}: reads {each}, which is no output"
    asked = (ROOT / "shared/identity.py").read_text(encoding="utf-8")
    for variant in variants(infra):
        identity = variant.the("Microsoft.ManagedIdentity/userAssignedIdentities").id
        wanted = {
            "issuer": "https://login.microsoftonline.com/<tenant>/v2.0",
            "subject": f"{identity}.properties.principalId",
            "audience": "api://AzureADTokenExchange",
        }
        found = variant.deployment.outputs["federatedCredential"]
        if found != (wanted if variant.given.get("d365TenantId") else {}):
            yield f"{variant.name}: federatedCredential is {found}"
        if f'"{wanted["audience"]}/.default"' not in asked:
            yield f"identity.py: asks for another audience than {wanted['audience']}"
