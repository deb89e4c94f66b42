"""What has to fit together for any of it to run: the order, and the outputs that people read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.infra import compiler
from tests.infra.variants import ROOT, variants, whole

WAITS: Final = {
    "main.bicep": {
        "app": {"roles", "endpoints"},  # or the host fails with 403, and starts again only later
        "endpoints": {"storage"},
        "topic": {"storage"},
        "roles": {"identity", "topic", "storage", "monitoring"},
        "code": {"app"},
        "alerts": {"topic"},
    },
    "modules/storage.bicep": {"lifecycle": {"dataBlobs"}},  # versioning, of which its rules speak
}
"""File -> declaration -> what it must wait for, though it need not refer to it."""


def order(infra: Path) -> Iterator[str]:
    """Modules and resources wait for each other where no reference makes them."""
    for file, declarations in WAITS.items():
        waits = compiler.waits_for(infra / file)
        for symbol, expected in declarations.items():
            for each in sorted(expected - waits.get(symbol, set())):
                yield f"{file}: {symbol} does not wait for {each}"


def outputs(infra: Path) -> Iterator[str]:
    """What the pages, the workflow and azd's hook read is an output; the steps left in D365 name the client id;
    another tenant's credential is whole; the app finds its code."""
    root = infra.parent
    github = compiler.snapshot(infra / "github.bicep", {"repository": "owner/name"})
    there = whole(infra).snapshot.outputs | github.outputs
    for name in (
        "docs/deploy.md",
        "docs/operations.md",
        ".github/workflows/deploy.yml",
        "azure.yaml",
    ):
        text = (root / name).read_text(encoding="utf-8")
        read = re.findall(r"azd env get-value (\w+)|\boutputs\.(\w+)\.value", text)
        names = {azd or az for azd, az in read}
        if name == "azure.yaml":  # azd hands the outputs to its hooks as variables
            names |= set(re.findall(r"\$(?:env:)?([a-z]\w+)", text)) - {"env"}
        for each in sorted(names - there.keys()):
            if not each.startswith("AZURE_"):  # azd's own
                yield f"{name}: reads {each}, which is no output"
    audience = "api://AzureADTokenExchange"
    if f'"{audience}/.default"' not in (ROOT / "shared/identity.py").read_text(encoding="utf-8"):
        yield f"identity.py: asks for another audience than {audience}"
    for variant in variants(infra):
        identity = variant.the("Microsoft.ManagedIdentity/userAssignedIdentities")["id"]
        outputs = variant.snapshot.outputs
        expected = {
            "name": "d365-blob-bridge",
            "issuer": f"https://login.microsoftonline.com/{compiler.TENANT}/v2.0",
            "subject": f"{identity}.properties.principalId",
            "audiences": [audience],
        }
        if (actual := outputs["federatedCredential"]) != expected:
            yield f"{variant.name}: federatedCredential is {actual}"
        client = variant.parameters.get("d365ClientId") or f"{identity}.properties.clientId"
        if outputs["identityClientId"] != client:
            yield f"{variant.name}: identityClientId is {outputs['identityClientId']}"
        if str(outputs["nextSteps"]).count(client) < 2:  # for the registration, and for each job
            yield f"{variant.name}: nextSteps do not say {client} in both places"
        if "code" not in variant.in_account("blobServices/containers", variant.host_account):
            yield f"{variant.name}: the container for the code package is not made"
