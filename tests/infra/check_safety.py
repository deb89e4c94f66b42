"""Who may do what, what is closed, and what is told at the end."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.infra import bicep, roles
from tests.infra.bicep import Runtime
from tests.infra.check_app import CODE, triggers
from tests.infra.variants import D365, Variant, at, variants, whole


def permissions(infra: Path) -> Iterator[str]:
    """Every call's permission is granted where it is needed, by the narrowest role that does, and no more."""
    ours, unknown = roles.needs_of(CODE)
    yield from unknown
    hosts = set[str]().union(*(roles.HOST_NEEDS[each["type"]] for each in triggers().values()))
    for variant in variants(infra):
        identity = variant.the("Microsoft.ManagedIdentity/userAssignedIdentities").id
        app = f"{identity}.properties.principalId"
        topic = f"{variant.the('Microsoft.EventGrid/systemTopics').id}.identity.principalId"
        data = variant.data_account
        dead = data.replace("Accounts/", "Accounts/blobServices/containers/").rstrip(">")
        needs = {
            (app, variant.host_account): roles.HOST_STORAGE,
            (app, data): ours | hosts,
            (app, str(variant.the("Microsoft.Insights/components").id)): roles.TELEMETRY,
            (topic, f"{dead}/default/dead-letters>"): roles.DEAD_LETTERS,
        }
        if variant.registration:
            needs[app, str(variant.the("Microsoft.KeyVault/vaults").id)] = roles.SECRETS
        assigned = _assigned(variant)
        for who, where in needs.keys() | assigned.keys():
            place = f"{variant.name}: {_short(who)} on {_short(where)}"
            granted = assigned.get((who, where), [])
            yield from roles.compare(place, needs.get((who, where), set()), granted)


def _assigned(variant: Variant) -> dict[tuple[str, str], list[str]]:
    """(principal, scope) -> role ids."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in variant.made("Microsoft.Authorization/roleAssignments"):
        where = str(each.scope.id) if each.scope else "<the whole resource group>"
        role = str(at(each.body, "properties.roleDefinitionId")).strip("<>").rpartition("/")[2]
        found.setdefault((str(at(each.body, "properties.principalId")), where), []).append(role)
    return found


def _short(text: str) -> str:
    return text.replace("<Microsoft.", "").replace(">", "")


CLOSED: Final = (
    ("Microsoft.Storage/storageAccounts", "properties.allowSharedKeyAccess", False),
    ("Microsoft.Storage/storageAccounts", "properties.allowBlobPublicAccess", False),
    ("Microsoft.Storage/storageAccounts", "properties.allowCrossTenantReplication", False),
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


def safety(infra: Path) -> Iterator[str]:
    """Entra only, TLS 1.2, no passwords or public blobs; deletions can be undone; no secret gets out."""
    for variant in variants(infra):
        yield from (f"{variant.name}: {wrong}" for wrong in _open(variant))
        yield from (f"{variant.name}: {wrong}" for wrong in _unrecoverable(variant))
    for path in sorted(infra.rglob("*.bicep")):
        yield from _given_away(path)


def _open(variant: Variant) -> Iterator[str]:
    for kind, path, wanted in CLOSED:
        if not variant.made(kind):
            yield f"no {kind} is deployed"
        for each in variant.made(kind):
            if (found := at(each.body, path)) != wanted:
                yield f"{each.file}: {each.symbol}.{path} is {found!r}, not {wanted!r}"
    policies = variant.made("Microsoft.Web/sites/basicPublishingCredentialsPolicies")
    if {each.name.rpartition("/")[2] for each in policies} != {"ftp", "scm"}:
        yield "passwords are not off for both ftp and scm"
    if variant.given.get("privateNetwork"):
        for each in variant.made("Microsoft.Storage/storageAccounts"):
            if at(each.body, "properties.publicNetworkAccess") != "Disabled":
                yield f"{each.id} can be reached from outside"


def private_network(infra: Path) -> Iterator[str]:
    """With a private network: an endpoint and its name for each service that is used, and the app within."""
    for variant in variants(infra):
        if variant.given.get("privateNetwork"):
            yield from (f"{variant.name}: {wrong}" for wrong in _unreachable(variant))
        elif network := [each.id for each in variant.made("Microsoft.Network/virtualNetworks")]:
            yield f"{variant.name}: {network} was not asked for"


def _unreachable(variant: Variant) -> Iterator[str]:
    network = variant.the("Microsoft.Network/virtualNetworks")
    subnets = {each["name"]: each["properties"] for each in at(network.body, "properties.subnets")}
    place = network.id.rstrip(">").replace("Networks/", "Networks/subnets/")
    app = variant.the("Microsoft.Web/sites").body["properties"]
    if app.get("virtualNetworkSubnetId") != f"{place}/app>":
        yield "the app is not in the network"
    delegated = [
        at(each, "properties.serviceName") for each in subnets["app"].get("delegations", [])
    ]
    if delegated != ["Microsoft.App/environments"]:
        yield f"the app's subnet is delegated to {delegated}"
    used = {(of, service) for uri in variant.app_settings.values() for of, service in _service(uri)}
    if variant.given.get("hierarchicalNamespace"):
        used.add((variant.data_account, "dfs"))
    linked = {
        each.name.split("/")[0]: at(each.body, "properties.virtualNetwork.id")
        for each in variant.made("Microsoft.Network/privateDnsZones/virtualNetworkLinks")
    }
    zones = {
        each.name.split("/")[0]: at(each.body, "properties.privateDnsZoneConfigs")
        for each in variant.made("Microsoft.Network/privateEndpoints/privateDnsZoneGroups")
    }
    made = set()
    for each in variant.made("Microsoft.Network/privateEndpoints"):
        link = at(each.body, "properties.privateLinkServiceConnections")[0]["properties"]
        made |= {(link["privateLinkServiceId"], service) for service in link.get("groupIds", [])}
        zone = f"privatelink.{''.join(link.get('groupIds', []))}.core.windows.net"
        ids = [at(config, "properties.privateDnsZoneId") for config in zones.get(each.name, [])]
        if ids != [f"<Microsoft.Network/privateDnsZones/{zone}>"]:
            yield f"{each.name} has its name in {ids}, not in {zone}"
        if linked.get(zone) != network.id:
            yield f"{zone} is not linked to the network"
        if at(each.body, "properties.subnet.id") != f"{place}/endpoints>":
            yield f"{each.name} is not in the network"
    for account, service in sorted(used ^ made):
        need = "is used and has no" if (account, service) in used else "is not used and has a"
        yield f"{service} of {_short(account)} {need} private endpoint"


def _service(uri: object) -> list[tuple[str, str]]:
    """The account and service that a setting names, if it does."""
    return re.findall(r"^(<[^>]+>)\.properties\.primaryEndpoints\.(\w+)", str(uri))


def _unrecoverable(variant: Variant) -> Iterator[str]:
    for each in variant.made("Microsoft.KeyVault/vaults/secrets"):
        if not at(each.body, "properties.value"):
            yield f"{each.file}: an empty secret is written over the one that is there"
    data = variant.data_account.strip("<>").rpartition("/")[2]
    flat = not variant.given.get("hierarchicalNamespace")
    for each in variant.made("Microsoft.Storage/storageAccounts"):
        namespace = bool(at(each.body, "properties.isHnsEnabled"))
        if namespace != (each.name == data and not flat):
            yield f"{each.symbol}: a hierarchical namespace is {'on' if namespace else 'off'}"
    for each in variant.made("Microsoft.Storage/storageAccounts/blobServices"):
        if each.name.startswith(f"{data}/"):
            if not at(each.body, "properties.deleteRetentionPolicy.enabled"):
                yield "soft delete is off in the data account"
            if not at(each.body, "properties.containerDeleteRetentionPolicy.enabled"):
                yield "soft delete of containers is off in the data account"
            if at(each.body, "properties.isVersioningEnabled") != flat:
                yield f"versioning is {'off' if flat else 'on'} in the data account"


def _given_away(path: Path) -> Iterator[str]:
    """A secret in a plain parameter or in an output stays in the deployment's history."""
    file = bicep.parse(path)
    for each in file.of("param"):
        if (
            re.search(r"[Ss]ecret$|packageUri$|extraSettings$", each.name)
            and "secure" not in each.decorators
        ):
            yield f"{path.name}: param {each.name} is not @secure()"
    secret = [each.name for each in file.of("param") if "secure" in each.decorators]
    for each in file.outputs.values():
        text = (each.node.text or b"").decode()
        if re.search(rf"\b({'|'.join([r'list[A-Z]\w+', *secret])})\b", text):
            yield f"{path.name}: output {each.name} gives a secret away"


def next_steps(infra: Path) -> Iterator[str]:
    """The outputs name the client id, and the steps left in D365 with it."""
    outputs = whole(infra).deployment.outputs
    client = outputs.get("identityClientId")
    if not isinstance(client, Runtime) or not client.endswith(".properties.clientId"):
        yield f"main.bicep: identityClientId is {client!r}"
    steps = "\n".join(outputs.get("nextSteps", []))
    for each in (str(client), D365, "Entra applications", "Authorization policy", "jobs.json"):
        if each not in steps:
            yield f"main.bicep: nextSteps do not say {each}"
