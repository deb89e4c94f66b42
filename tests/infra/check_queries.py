"""The queries of the alerts and the workbook against what the app reports."""

import json
from collections.abc import Iterator
from pathlib import Path

from shared import telemetry
from tests.infra import kql
from tests.infra.variants import Variant, at, variants, whole


def queries_in(variant: Variant) -> Iterator[tuple[str, str]]:
    """Every query that is deployed, with its name: those of the alert rules and those of the workbook."""
    for rule in variant.made("Microsoft.Insights/scheduledQueryRules"):
        yield rule.name, at(rule.body, "properties.criteria.allOf.0.query")
    for workbook in variant.made("Microsoft.Insights/workbooks"):
        for item in json.loads(at(workbook.body, "properties.serializedData"))["items"]:
            if query := item["content"].get("query"):
                yield item["name"], query


def workbook(infra: Path) -> Iterator[str]:
    """A chart of the workbook has a title and a shape, and asks the workspace for the chosen time."""
    variant = whole(infra)
    workspace = variant.the("Microsoft.OperationalInsights/workspaces").id
    data = json.loads(
        at(variant.the("Microsoft.Insights/workbooks").body, "properties.serializedData")
    )
    if (data.get("version"), data.get("fallbackResourceIds")) != ("Notebook/1.0", [workspace]):
        yield f"workbook: is {data.get('version')} over {data.get('fallbackResourceIds')}"
    asked = {"queryType": 0, "resourceType": "microsoft.operationalinsights/workspaces"}
    times = set()
    for item in data["items"]:
        content = item["content"]
        chart = content["version"] == "KqlItem/1.0"
        wanted = asked | {"version": "KqlItem/1.0" if chart else "KqlParameterItem/1.0"}
        if chart:
            times.add(content.get("timeContextFromParameter"))
            wanted |= {"title": item["name"]}
            if content.get("visualization") not in ("barchart", "linechart", "table"):
                yield f"workbook: {item['name']} is shown as {content.get('visualization')}"
        if item.get("type") != (3 if chart else 9):
            yield f"workbook: {item['name']} is of the type {item.get('type')}"
        for name, value in wanted.items():
            if content.get(name) != value:
                yield f"workbook: {item['name']}: {name} is {content.get(name)!r}, not {value!r}"
    chosen = {
        each.get("name")
        for each in at(data, "items.0.content.parameters")
        if (each.get("type"), each.get("version")) == (4, "KqlParameterItem/1.0")
        and each.get("value")
    }
    if times != chosen:
        yield f"workbook: charts look at the times {times}, which are chosen as {chosen}"


def queries(infra: Path) -> Iterator[str]:
    """Events and fields in the queries are those of shared/telemetry.py, and each is KQL."""
    for name, query in queries_in(whole(infra)):
        used = kql.events_in(query)
        if not used:
            yield f"{name}: names no event"
        for event in sorted(used - telemetry.EVENTS.keys()):
            yield f"{name}: there is no event {event}"
        carried = {field for event in used for field in telemetry.EVENTS.get(event, ())}
        for field in sorted(kql.fields_in(query) - carried):
            yield f"{name}: none of {', '.join(sorted(used))} always carries {field}"
        yield from (f"{name}: {mistake}" for mistake in kql.mistakes(query))


def alerts(infra: Path) -> Iterator[str]:
    """Each alert tells the action group that is made for the e-mail addresses, and the one that is given; its
    e-mail names what it is about, and it sees, without a gap, as far as its query looks back."""
    longest = Variant("with the longest silence", infra, {"exportSilenceMinutes": 1440})
    for rule in longest.made("Microsoft.Insights/scheduledQueryRules"):
        window = str(at(rule.body, "properties.windowSize"))
        every = str(at(rule.body, "properties.evaluationFrequency"))
        query = at(rule.body, "properties.criteria.allOf.0.query") or ""
        if kql.period(window) < kql.looks_back(query):
            yield f"{longest.name}: {rule.name} looks back further than its window, {window}"
        if kql.period(every) >= kql.looks_back(query):
            yield f"{longest.name}: {rule.name} looks back less far than to its last run, {every} ago"
    for rule in whole(infra).made("Microsoft.Insights/scheduledQueryRules"):
        condition = at(rule.body, "properties.criteria.allOf.0")
        query = condition.get("query") or ""
        about = condition.get("dimensions") or []
        if at(rule.body, "properties.autoMitigate") != ("ingested >" not in query):
            yield f"{rule.name}: a state ends by itself, and something that happened does not"
        if not about:
            yield f"{rule.name}: its e-mail does not say what it is about"
        for each in about:
            if (each["operator"], each["values"]) != ("Include", ["*"]):
                yield f"{rule.name}: not told for every {each['name']}"
            if not query or each["name"] not in kql.columns(query):
                yield f"{rule.name}: {each['name']} is no column of its query"
    for variant in variants(infra):
        groups = [each.id for each in variant.made("Microsoft.Insights/actionGroups")]
        if len(groups) != bool(variant.given.get("alertEmails")):
            yield f"{variant.name}: {len(groups)} action groups"
        wanted = [*groups, *filter(None, [variant.given.get("actionGroupId")])]
        told = {
            rule.name: at(rule.body, "properties.actions.actionGroups")
            for rule in variant.made("Microsoft.Insights/scheduledQueryRules")
        } | {
            rule.name: [each["actionGroupId"] for each in at(rule.body, "properties.actions")]
            for rule in variant.made("Microsoft.Insights/metricAlerts")
        }
        for name, found in told.items():
            if found != wanted:
                yield f"{variant.name}: {name} tells {found}, not {wanted}"
