"""What `infra/` deploys, in each of the ways that the checks look at: options off, on, and in between."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

from tests.infra import compiler
from tests.infra.compiler import Snapshot

ROOT: Final = Path(__file__).resolve().parents[2]
INFRA: Final = ROOT / "infra"

D365: Final = "https://contoso.operations.dynamics.com"
ON_CALL: Final = (
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Insights/actionGroups/on-call"
)
_PACKAGE: Final = {"packageUri": "https://example.org/app.zip"}
PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "with every option": _PACKAGE
    | {
        "privateNetwork": True,
        "d365ClientId": "11111111-1111-4111-8111-111111111111",
        "deleteSucceededAfterDays": 365,
        "alertEmails": ["erp@example.org"],
        "actionGroupId": ON_CALL,
        "extraSettings": {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret"},
    },
    "as azd deploys first": {},
    "in one deployment": _PACKAGE | {"alertEmails": ["erp@example.org"]},
    "for a D365 in another tenant": {
        "d365ClientId": "11111111-1111-4111-8111-111111111111",
        "d365TenantId": "44444444-4444-4444-8444-444444444444",
    },
    "with a hierarchical namespace": {
        "hierarchicalNamespace": True,
        "privateNetwork": True,
        "coolSucceededAfterDays": 0,
    },
}

type Resource = dict[str, Any]
"""As in `Snapshot.resources`."""


class Missing(Exception):
    """A variant does not deploy what a check looks at."""


@dataclass(frozen=True)
class Variant:
    """One way to deploy, compiled once. Its properties raise `NotCompiled` where the files have errors."""

    name: str
    infra: Path
    parameters: Mapping[str, Any]

    @cached_property
    def snapshot(self) -> Snapshot:
        """What main.bicep deploys."""
        return compiler.snapshot(self.infra / "main.bicep", {"d365Url": D365, **self.parameters})

    @cached_property
    def events(self) -> Snapshot:
        """What events.bicep deploys, beside that."""
        names = ("functionAppName", "dataAccountName", "topicName")
        outputs = self.snapshot.outputs
        parameters = {name: outputs[name] for name in names}
        return compiler.snapshot(self.infra / "events.bicep", parameters)

    def resources(self, kind: str) -> list[Resource]:
        """The resources of a type."""
        return [each for each in self.snapshot.resources if each["type"].lower() == kind.lower()]

    def the(self, kind: str) -> Resource:
        """The one resource of a type. Raises `Missing` where there is none, or more."""
        resources = self.resources(kind)
        if len(resources) != 1:
            raise Missing(f"{self.name}: {kind}: {len(resources)} are deployed, not one")
        return resources[0]

    @cached_property
    def app_settings(self) -> dict[str, Any]:
        """The app's settings."""
        return {
            key: value
            for each in self.resources("Microsoft.Web/sites/config")
            if each["name"].endswith("/appsettings")
            for key, value in each["properties"].items()
        }

    @property
    def d365_tenant(self) -> str:
        """The tenant in which the app registration that trusts the app asks for tokens, or "" without one."""
        own = compiler.TENANT if self.parameters.get("d365ClientId") else ""
        return str(self.parameters.get("d365TenantId", own))

    @property
    def data_account(self) -> str:
        """The id of the account that the app takes for the data account."""
        return account(self.app_settings.get("DataStorage__blobServiceUri"), "blob")

    @property
    def host_account(self) -> str:
        """The id of the account that the Functions host uses."""
        return account(self.app_settings.get("AzureWebJobsStorage__blobServiceUri"), "blob")

    def in_account(self, kind: str, of: str) -> set[str]:
        """The names of an account's children: `blobServices/containers`, `queueServices/queues`."""
        return {
            each["name"].rpartition("/")[2]
            for each in self.resources(f"Microsoft.Storage/storageAccounts/{kind}")
            if each["id"].startswith(f"{of}/")
        }


@cache
def variant(infra: Path, name: str) -> Variant:
    """A way to deploy the files of a folder, by its name in `PARAMETERS`."""
    return Variant(name, infra, PARAMETERS[name])


def variants(infra: Path) -> Iterator[Variant]:
    """Each way to deploy the files of a folder."""
    for name in PARAMETERS:
        yield variant(infra, name)


def whole(infra: Path) -> Variant:
    """The usual one, in one deployment."""
    return variant(infra, "in one deployment")


def account(uri: object, service: str) -> str:
    """The id of the account that a service URI belongs to, or ""."""
    symbolic = rf"(Microsoft\.Storage/storageAccounts/\w+)\.properties\.primaryEndpoints\.{service}"
    if match := re.fullmatch(symbolic, str(uri)):
        return match[1]
    match = re.fullmatch(rf"https://(\w+)\.{service}\.core\.windows\.net/?", str(uri))
    return f"Microsoft.Storage/storageAccounts/{match[1]}" if match else ""


def at(body: object, path: str) -> Any:
    """The value at a path, `properties.policy`, `allOf.0`, or None."""
    for part in path.split("."):
        if isinstance(body, list):
            body = body[int(part)] if int(part) < len(body) else None
        else:
            body = body.get(part) if isinstance(body, dict) else None
    return body
