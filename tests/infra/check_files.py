"""The files by themselves: the language, the parameters, Azure's types, azd."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.infra import bicep, pages, schema
from tests.infra.bicep import Mistake
from tests.infra.roles import ROLES
from tests.infra.variants import D365, at, variants, whole


def files(infra: Path) -> Iterator[str]:
    """Every file parses and is used; names are declared and used; parameters are described."""
    for path in sorted(infra.rglob("*.bicep*")):
        yield from bicep.lint(path)
    text = "".join(path.read_text(encoding="utf-8") for path in infra.rglob("*.bicep"))
    for path in sorted([*infra.glob("modules/*"), *infra.glob("queries/*")]):
        if f"/{path.name}'" not in text:
            yield f"{path.name}: no Bicep file names it"


def deploys(infra: Path) -> Iterator[str]:
    """Every variant evaluates: module parameters match, nothing is made twice, what is referred to is made."""
    for variant in variants(infra):
        made: set[str] = set()
        try:
            resources = variant.deployment.resources
        except Mistake as mistake:
            yield f"{variant.name}: {mistake}"
            continue
        for each in resources:
            if not each.existing:
                if each.id in made:
                    yield f"{variant.name}: {each.id} is deployed twice"
                made.add(each.id)
        for each in resources:
            if each.existing and each.id not in made:
                yield f"{variant.name}: {each.file}: {each.symbol}: {each.id} is not deployed by us"


def parameter_file(infra: Path) -> Iterator[str]:
    """main.bicepparam parses, gives what must be given and nothing unknown, and knows when to subscribe."""
    path = infra / "main.bicepparam"
    usual = {"alertEmails": [], "extraSettings": {}, "d365ClientId": "", "d365ClientSecret": ""}
    for more, wanted, subscribed in (
        ({}, {}, False),
        ({"ALERT_EMAILS": "a@b.org,c@d.org"}, {"alertEmails": ["a@b.org", "c@d.org"]}, False),
        ({"PACKAGE_URI": "https://example.org/app.zip"}, {}, True),
        ({"SUBSCRIBE_TO_EVENTS": "true"}, {}, True),
        ({"EXTRA_SETTINGS": '{"NAME": "value"}'}, {"extraSettings": {"NAME": "value"}}, False),
        ({"D365_CLIENT_ID": "some"}, {"d365ClientId": "some"}, False),
        ({"D365_CLIENT_SECRET": "some"}, {"d365ClientSecret": "some"}, False),
        ({"D365_TENANT_ID": "some"}, {"d365TenantId": "some"}, False),
    ):
        target, given = bicep.parameters(path, {"D365_URL": D365, **more})
        if target != infra / "main.bicep":
            yield f"{path.name}: is for {target}"
        for name, value in (usual | wanted).items():
            if given.get(name) != value:
                yield f"{path.name}: with {more}, {name} is {given.get(name)!r}"
        if bicep.deploy(target, given).outputs["eventsSubscribed"] != subscribed:
            yield f"{path.name}: with {more}, events subscribed: {not subscribed}"


def types(infra: Path) -> Iterator[str]:
    """Azure's types have every property that is set; required ones are there; values are allowed."""
    schemas = schema.load()
    for variant in variants(infra):
        for resource in variant.deployment.resources:
            if not resource.existing:
                yield from schema.check(resource, schemas)


def documented(infra: Path) -> Iterator[str]:
    """docs/deploy.md and the workflow name the parameters, variables, alerts and roles that there are; no page
    is torn, and what a command of docs/deploy.md uses is set before, with azd and with the Azure CLI."""
    root = infra.parent
    for path in sorted((root / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        yield from (f"{path.name}: {wrong}" for wrong in pages.torn(text))
    page = (root / "docs/deploy.md").read_text(encoding="utf-8")
    yield from (f"deploy.md: {wrong}" for wrong in pages.unset(page))
    workflow = (root / ".github/workflows/deploy.yml").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in infra.rglob("*.bicep*"))
    read = set(re.findall(r"readEnvironmentVariable\('(\w+)'", code))
    for name in re.findall(r"`(?:param )?([a-z]+\d*[A-Z]\w*)", page):
        if not re.search(rf"\b{name}\b", code):
            yield f"deploy.md: names {name}, which is nowhere in infra"
    for name in sorted(read):
        for where, text in (("deploy.md", page), ("deploy.yml", workflow)):
            if not re.search(rf"\b{name}\b", text) and (where, name) != (
                "deploy.yml",
                "PACKAGE_URI",
            ):
                yield f"{where}: does not name the variable {name}"
    for name in re.findall(r"(?m)(?:export|azd env set|env:) ([A-Z0-9_]+)", page):
        if name not in read:
            yield f"deploy.md: sets {name}, which main.bicepparam does not read"
    variant = whole(infra)
    rules = [
        *variant.made("Microsoft.Insights/scheduledQueryRules"),
        *variant.made("Microsoft.Insights/metricAlerts"),
    ]
    for rule in rules:
        row = re.search(rf"\| `…-{rule.name.removeprefix('bridge-')}` \|.*\| ([\w ]+) \|", page)
        every = {"PT15M": "every 15 minutes", "PT1H": "hourly"}
        if not row:
            yield f"deploy.md: does not list the alert {rule.name}"
        elif row[1] != every.get(str(often := at(rule.body, "properties.evaluationFrequency"))):
            yield f"deploy.md: {rule.name} is looked at {row[1]}, it says; it is {often}"
    for deployed in variants(infra):
        for each in deployed.made("Microsoft.Authorization/roleAssignments"):
            guid = str(each.body["properties"]["roleDefinitionId"]).strip("<>").rpartition("/")[2]
            if (role := ROLES[guid].name if guid in ROLES else guid) not in page:
                yield f"deploy.md: does not say what {role} is for"
    packed = {
        where: sorted(
            {*re.findall(r"[\w./]+", re.findall(r"app\.zip HEAD (.*)\n", text)[0])} & _TOP
        )
        for where, text in (("deploy.md", page), ("deploy.yml", workflow))
    }
    if packed["deploy.md"] != packed["deploy.yml"] or len(packed["deploy.md"]) != len(_TOP):
        yield f"the code package differs: {packed}"


_TOP = {"function_app.py", "functions", "shared", "host.json", "requirements.txt"}
"""What the app consists of, beside its jobs file."""


def azd(infra: Path) -> Iterator[str]:
    """azd finds the app by its tag and has Azure build it; its hook sets a variable that main.bicepparam reads,
    and sets it back where the app does not run."""
    text = (infra.parent / "azure.yaml").read_text(encoding="utf-8")
    tag = whole(infra).the("Microsoft.Web/sites").body.get("tags", {}).get("azd-service-name")
    if not re.search(rf"(?m)^  {tag}:$", text):
        yield f"azure.yaml: has no service {tag}"
    elif not re.search(rf"(?m)^  {tag}:\n(?:    .*\n)*    remoteBuild: true\b", text):
        yield f"azure.yaml: Azure does not build the service {tag}"
    parameters = (infra / "main.bicepparam").read_text(encoding="utf-8")
    for system in ("posix", "windows"):
        hook = "".join(re.findall(rf"(?m)^    {system}:\n(?:      .*\n)+", text))
        name = re.search(r"azd env set (\w+) true", hook)
        if not name or "azd provision" not in hook:
            yield f"azure.yaml: the hook for {system} does not subscribe to events"
        elif f"readEnvironmentVariable('{name[1]}'" not in parameters:
            yield f"azure.yaml: sets {name[1]}, which main.bicepparam does not read"
        elif not re.search(rf"azd env set {name[1]} false\s*;?\s*exit 1", hook):
            yield f"azure.yaml: after the hook for {system} has failed, azd up never deploys again"
