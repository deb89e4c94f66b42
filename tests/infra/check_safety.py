"""Who may do what, what is closed, what can be brought back."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.infra import roles
from tests.infra.check_app import CODE, triggers
from tests.infra.variants import ROOT, Variant, account, at, variants


def permissions(infra: Path) -> Iterator[str]:
    """Every call's permission is granted where it is needed, by the narrowest role that does, and no more."""
    ours, unknown = roles.needs_of(CODE)
    yield from unknown
    hosts = set[str]().union(*(roles.HOST_NEEDS[each["type"]] for each in triggers().values()))
    for variant in variants(infra):
        identity = variant.the("Microsoft.ManagedIdentity/userAssignedIdentities")["id"]
        app = f"{identity}.properties.principalId"
        topic = f"{variant.the('Microsoft.EventGrid/systemTopics')['id']}.identity.principalId"
        data = variant.data_account
        needs = {
            (app, variant.host_account): roles.HOST_STORAGE,
            (app, data): ours | hosts,
            (app, variant.the("Microsoft.Insights/components")["id"]): roles.TELEMETRY,
            (topic, f"{data}/blobServices/default/containers/dead-letters"): roles.DEAD_LETTERS,
        }
        assigned = _assigned(variant)
        for who, where in needs.keys() | assigned.keys():
            place = f"{variant.name}: {who} on {where}"
            granted = assigned.get((who, where), [])
            yield from roles.compare(place, needs.get((who, where), set()), granted)


def _assigned(variant: Variant) -> dict[tuple[str, str], list[str]]:
    """(principal, scope) -> role ids."""
    role_ids: dict[tuple[str, str], list[str]] = {}
    for each in variant.resources("Microsoft.Authorization/roleAssignments"):
        where, of_one, _ = each["id"].partition("/providers/Microsoft.Authorization/")
        where = where if of_one else "the whole resource group"
        role = str(at(each, "properties.roleDefinitionId")).rpartition("/")[2]
        role_ids.setdefault((str(at(each, "properties.principalId")), where), []).append(role)
    return role_ids


NO_KEYS: Final = (
    ("Microsoft.Storage/storageAccounts", "properties.allowSharedKeyAccess", False),
    ("Microsoft.Web/sites/basicPublishingCredentialsPolicies", "properties.allow", False),
    ("Microsoft.Insights/components", "properties.DisableLocalAuth", True),
    ("Microsoft.OperationalInsights/workspaces", "properties.features.disableLocalAuth", True),
)
"""Entra alone opens what we deploy: no account key, no password, no instrumentation key."""


def safety(infra: Path) -> Iterator[str]:
    """No key or password opens anything; deletions can be undone; the code runs on the Python that it was
    checked with."""
    for variant in variants(infra):
        yield from (f"{variant.name}: {wrong}" for wrong in _open(variant))
        yield from (f"{variant.name}: {wrong}" for wrong in _unrecoverable(variant))


def _open(variant: Variant) -> Iterator[str]:
    for kind, path, expected in NO_KEYS:
        for each in variant.resources(kind):
            if (actual := at(each, path)) != expected:
                yield f"{each['id']}: {path} is {actual!r}, not {expected!r}"
    policies = variant.resources("Microsoft.Web/sites/basicPublishingCredentialsPolicies")
    if {each["name"].rpartition("/")[2] for each in policies} != {"ftp", "scm"}:
        yield "passwords are not off for both ftp and scm"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = at(variant.the("Microsoft.Web/sites"), "properties.functionAppConfig.runtime")
    if runtime != {"name": "python", "version": project["tool"]["mypy"]["python_version"]}:
        yield f"the app runs on {runtime}"
    if variant.parameters.get("privateNetwork"):
        for each in variant.resources("Microsoft.Storage/storageAccounts"):
            if at(each, "properties.publicNetworkAccess") != "Disabled":
                yield f"{each['id']} can be reached from outside"


def _unrecoverable(variant: Variant) -> Iterator[str]:
    flat = not variant.parameters.get("hierarchicalNamespace")
    for each in variant.resources("Microsoft.Storage/storageAccounts"):
        namespace = bool(at(each, "properties.isHnsEnabled"))
        if namespace != (each["id"] == variant.data_account and not flat):
            yield f"{each['id']}: a hierarchical namespace is {'on' if namespace else 'off'}"
    for each in variant.resources("Microsoft.Storage/storageAccounts/blobServices"):
        if each["id"].startswith(variant.data_account):
            if not at(each, "properties.deleteRetentionPolicy.enabled"):
                yield "soft delete is off in the data account"
            if not at(each, "properties.containerDeleteRetentionPolicy.enabled"):
                yield "soft delete of containers is off in the data account"
            if at(each, "properties.isVersioningEnabled") != flat:
                yield f"versioning is {'off' if flat else 'on'} in the data account"


def private_network(infra: Path) -> Iterator[str]:
    """With a private network: an endpoint and its name for each service that is used, and the app within."""
    for variant in variants(infra):
        if variant.parameters.get("privateNetwork"):
            yield from (f"{variant.name}: {wrong}" for wrong in _unreachable(variant))
        elif network := [
            each["id"] for each in variant.resources("Microsoft.Network/virtualNetworks")
        ]:
            yield f"{variant.name}: {network} was not asked for"


def _unreachable(variant: Variant) -> Iterator[str]:
    network = variant.the("Microsoft.Network/virtualNetworks")
    subnets = {each["name"]: each["properties"] for each in at(network, "properties.subnets")}
    place = f"{network['id']}/subnets"
    app = variant.the("Microsoft.Web/sites")["properties"]
    if app.get("virtualNetworkSubnetId") != f"{place}/app":
        yield "the app is not in the network"
    delegated = [
        at(each, "properties.serviceName") for each in subnets["app"].get("delegations", [])
    ]
    if delegated != ["Microsoft.App/environments"]:
        yield f"the app's subnet is delegated to {delegated}"
    services = ("blob", "queue", "table")
    used = {
        (of, service)
        for uri in variant.app_settings.values()
        for service in services
        if (of := account(uri, service))
    }
    if variant.parameters.get("hierarchicalNamespace"):
        used.add((variant.data_account, "dfs"))
    linked = {
        each["name"].split("/")[0]: at(each, "properties.virtualNetwork.id")
        for each in variant.resources("Microsoft.Network/privateDnsZones/virtualNetworkLinks")
    }
    zones = {
        each["name"].split("/")[0]: at(each, "properties.privateDnsZoneConfigs")
        for each in variant.resources("Microsoft.Network/privateEndpoints/privateDnsZoneGroups")
    }
    endpoints = set()
    for each in variant.resources("Microsoft.Network/privateEndpoints"):
        link = at(each, "properties.privateLinkServiceConnections")[0]["properties"]
        endpoints |= {
            (link["privateLinkServiceId"], service) for service in link.get("groupIds", [])
        }
        zone = f"privatelink.{''.join(link.get('groupIds', []))}.core.windows.net"
        ids = [at(config, "properties.privateDnsZoneId") for config in zones.get(each["name"], [])]
        if ids != [f"Microsoft.Network/privateDnsZones/{zone}"]:
            yield f"{each['name']} has its name in {ids}, not in {zone}"
        if linked.get(zone) != network["id"]:
            yield f"{zone} is not linked to the network"
        if at(each, "properties.subnet.id") != f"{place}/endpoints":
            yield f"{each['name']} is not in the network"
    for of, service in sorted(used ^ endpoints):
        need = "is used and has no" if (of, service) in used else "is not used and has a"
        yield f"{service} of {of} {need} private endpoint"
