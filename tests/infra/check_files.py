"""The files by themselves: the compiler's diagnostics, the parameters, azd, the pages."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests import markdown
from tests.infra import compiler
from tests.infra.roles import ROLES
from tests.infra.variants import D365, at, variants, whole


def compiles(infra: Path) -> Iterator[str]:
    """The compiler and its linter (bicepconfig.json) have nothing to say, not even a warning; each rule that is
    off has its reason; each file is written as `bicep format` does, and each parameter is described."""
    rules = (infra / "bicepconfig.json").read_text(encoding="utf-8").splitlines()
    for before, line in pairwise(rules):
        if '"off"' in line and not before.strip().startswith("//"):
            yield f"bicepconfig.json: no reason for {line.strip()}"
    for path in sorted(infra.glob("*.bicep"), key=lambda path: path.stem != "main"):
        yield from compiler.diagnostics(path)  # with the modules that it uses
    for path in sorted(infra.rglob("*.bicep*")):
        if path.suffix == ".bicep":
            for name in compiler.parameters_without_description(path):
                yield f"{path.name}: the parameter {name} has no description"
        if path.suffix != ".json" and not compiler.is_formatted(path):
            yield f"{path.name}: not as `bicep format` writes it"


def used(infra: Path) -> Iterator[str]:
    """Each module and each query is used."""
    infra = infra.resolve()
    files = {*infra.rglob("*.bicep"), *infra.rglob("*.kql")}
    unused = files - {used for path in infra.glob("*.bicep") for used in compiler.files_used(path)}
    yield from (f"{path.name}: no Bicep file names it" for path in sorted(unused))


_INSIDE: Final = re.compile(r"(/host/default|/subnets/\w+)$")
"""What is deployed as a part of its parent."""


def deploys(infra: Path) -> Iterator[str]:
    """Nothing is deployed twice, and whatever is referred to is deployed."""
    for variant in variants(infra):
        resources = [*variant.snapshot.resources, *variant.events.resources]
        counts = Counter(each["id"] for each in resources)
        for each, times in counts.items():
            if times > 1:
                yield f"{variant.name}: {each} is deployed twice"
        for each in sorted(variant.snapshot.refers | variant.events.refers):
            if _INSIDE.sub("", each) not in counts:
                yield f"{variant.name}: {each} is not deployed by us"


SET: Final = {
    "D365_URL": (D365, "d365Url", D365),
    "D365_IN_JOBS_FILE": ("true", "d365InJobsFile", True),
    "JOBS_FILE": ("erp.json", "jobsFile", "erp.json"),
    "BRIDGE_NAME": ("erp", "name", "erp"),
    "AZURE_LOCATION": ("norwayeast", "location", "norwayeast"),
    "ALERT_EMAILS": (" a@b.org, c@d.org,", "alertEmails", ["a@b.org", "c@d.org"]),
    "EXTRA_SETTINGS": ('{"NAME": "value"}', "extraSettings", {"NAME": "value"}),
    "D365_CLIENT_ID": ("id", "d365ClientId", "id"),
    "D365_TENANT_ID": ("tenant", "d365TenantId", "tenant"),
    "PACKAGE_URI": ("https://example.org/app.zip", "packageUri", "https://example.org/app.zip"),
}
"""Variable -> its text, the parameter that it sets, and that parameter's value."""


def parameter_file(infra: Path) -> Iterator[str]:
    """main.bicepparam reads each variable that is set; one that is empty is one that is not."""
    path = infra / "main.bicepparam"
    read = variables_read(infra)
    for name in sorted(read ^ SET.keys()):
        yield f"{path.name}: {name} is {'read' if name in read else 'not read'}"
    states: dict[str, dict[str, str]] = {
        "set": {name: text for name, (text, _, _) in SET.items()},
        "unset": {},
        "empty": dict.fromkeys(SET, ""),
    }
    values = dict[str, dict[str, Any]]()
    for state, parameters in zip(
        states, compiler.parameters(path, [*states.values()]), strict=True
    ):
        if isinstance(parameters, compiler.NotCompiled):
            yield f"{path.name}: with all variables {state}: {parameters}"
            return
        values[state] = parameters
    if not (infra.parent / values["unset"]["jobsFile"]).is_file():
        yield f"{path.name}: there is no jobs file {values['unset']['jobsFile']!r}"
    for name, (_, parameter, value) in SET.items():
        if (actual := values["set"].get(parameter)) != value:
            yield f"{path.name}: with {name} set, {parameter} is {actual!r}"
        if (empty := values["empty"].get(parameter)) != (unset := values["unset"].get(parameter)):
            yield f"{path.name}: {parameter} is {empty!r} with {name} empty, {unset!r} with it unset"


def variables_read(infra: Path) -> set[str]:
    """The names of the environment variables that main.bicepparam reads."""
    text = (infra / "main.bicepparam").read_text(encoding="utf-8")
    return set(re.findall(r"readEnvironmentVariable\('(\w+)'", text))


def documented(infra: Path) -> Iterator[str]:
    """docs/deploy.md and the workflow name the parameters, variables, alerts and roles that there are; no page
    is torn, and what a command of docs/deploy.md uses is set before, with azd and with the Azure CLI."""
    root = infra.parent
    for path in sorted((root / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        yield from (f"{path.name}: {wrong}" for wrong in markdown.torn(text))
    page = (root / "docs/deploy.md").read_text(encoding="utf-8")
    yield from (f"deploy.md: {wrong}" for wrong in markdown.unset(page))
    workflow = (root / ".github/workflows/deploy.yml").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in infra.rglob("*.bicep*"))
    read = variables_read(infra)
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
        *variant.resources("Microsoft.Insights/scheduledQueryRules"),
        *variant.resources("Microsoft.Insights/metricAlerts"),
    ]
    for rule in rules:
        name = rule["name"]
        row = re.search(rf"\| `…-{name.removeprefix('bridge-')}` \|.*\| ([\w ]+) \|", page)
        every = {"PT15M": "every 15 minutes", "PT1H": "hourly"}
        if not row:
            yield f"deploy.md: does not list the alert {name}"
        elif row[1] != every.get(str(often := at(rule, "properties.evaluationFrequency"))):
            yield f"deploy.md: {name} is looked at {row[1]}, it says; it is {often}"
    for deployed in variants(infra):
        for each in deployed.resources("Microsoft.Authorization/roleAssignments"):
            guid = str(each["properties"]["roleDefinitionId"]).rpartition("/")[2]
            if (role := ROLES[guid].name if guid in ROLES else guid) not in page:
                yield f"deploy.md: does not say what {role} is for"
    packed = {
        where: sorted({*re.findall(r"[\w./]+", re.findall(r"\.zip HEAD (.*)\n", text)[0])} & _TOP)
        for where, text in (("deploy.md", page), ("deploy.yml", workflow))
    }
    if packed["deploy.md"] != packed["deploy.yml"] or len(packed["deploy.md"]) != len(_TOP):
        yield f"the code package differs: {packed}"


_TOP = {"function_app.py", "functions", "shared", "host.json", "requirements.txt"}
"""What the app consists of, beside its jobs file."""


def azd(infra: Path) -> Iterator[str]:
    """azd finds the app by its tag, and has Azure build it. tests/infra/test_subscribe.py runs its hooks."""
    text = (infra.parent / "azure.yaml").read_text(encoding="utf-8")
    tag = whole(infra).the("Microsoft.Web/sites").get("tags", {}).get("azd-service-name")
    if not re.search(rf"(?m)^  {tag}:$", text):
        yield f"azure.yaml: has no service {tag}"
    elif not re.search(rf"(?m)^  {tag}:\n(?:    .*\n)*    remoteBuild: true\b", text):
        yield f"azure.yaml: Azure does not build the service {tag}"
