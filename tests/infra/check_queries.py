"""The queries of the alerts and the workbook against what the app reports."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from shared.observability.events import EVENTS, EVERY
from tests.infra import kql
from tests.infra.variants import Variant, at, variants, whole


def queries_in(variant: Variant) -> Iterator[tuple[str, str]]:
    """Every query that is deployed, with its name: those of the alert rules and those of the workbook."""
    for rule in variant.resources("Microsoft.Insights/scheduledQueryRules"):
        yield rule["name"], at(rule, "properties.criteria.allOf.0.query")
    for workbook in variant.resources("Microsoft.Insights/workbooks"):
        for item in json.loads(at(workbook, "properties.serializedData"))["items"]:
            if query := item["content"].get("query"):
                yield item["name"], query


def queries(infra: Path) -> Iterator[str]:
    """Kusto takes each query, as deployed and in the pages; its events and fields are those of
    shared/observability/events.py."""
    for name, query in queries_in(whole(infra)):
        used = kql.events_in(query)
        if not used:
            yield f"{name}: names no event"
        for event in sorted(used - EVENTS.keys()):
            yield f"{name}: there is no event {event}"
        carried = {EVERY, *(field for event in used for field in EVENTS.get(event, ()))}
        for field in sorted(kql.fields_in(query) - carried):
            yield f"{name}: none of {', '.join(sorted(used))} always carries {field}"
        yield from (f"{name}: {mistake}" for mistake in kql.bind(query).mistakes)
    for page in sorted((infra.parent / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for query in re.findall(r"(?ms)^ *```kusto\n(.*?)^ *```", text):
            yield from (f"{page.name}: {mistake}" for mistake in kql.bind(query).mistakes)


@cache
def longest(infra: Path) -> Variant:
    """With the longest silence that may be set."""
    return Variant("with the longest silence", infra, {"exportSilenceMinutes": 1440})


def alerts(infra: Path) -> Iterator[str]:
    """Each alert tells the action group that is made for the e-mail addresses, and the one that is given; its
    e-mail names what it is about, and it sees, without a gap, as far as its query looks back."""
    for rule in longest(infra).resources("Microsoft.Insights/scheduledQueryRules"):
        window = str(at(rule, "properties.windowSize"))
        every = str(at(rule, "properties.evaluationFrequency"))
        query = at(rule, "properties.criteria.allOf.0.query")
        if kql.period(window) < kql.looks_back(query):
            yield f"{rule['name']} looks back further than its window, {window}"
        if kql.period(every) >= kql.looks_back(query):
            yield f"{rule['name']} looks back less far than to its last run, {every} ago"
    for rule in whole(infra).resources("Microsoft.Insights/scheduledQueryRules"):
        condition = at(rule, "properties.criteria.allOf.0")
        query = condition["query"]
        about = condition.get("dimensions") or []
        if at(rule, "properties.autoMitigate") != ("ingested >" not in query):
            yield f"{rule['name']}: a state ends by itself, and something that happened does not"
        if not about:
            yield f"{rule['name']}: its e-mail does not say what it is about"
        columns = kql.bind(query).columns
        for each in about:
            if each["name"] not in columns:
                yield f"{rule['name']}: {each['name']} is no column of its query"
    for variant in variants(infra):
        groups = [each["id"] for each in variant.resources("Microsoft.Insights/actionGroups")]
        if len(groups) != bool(variant.parameters.get("alertEmails")):
            yield f"{variant.name}: {len(groups)} action groups"
        expected = [*groups, *filter(None, [variant.parameters.get("actionGroupId")])]
        action_groups = {
            rule["name"]: at(rule, "properties.actions.actionGroups")
            for rule in variant.resources("Microsoft.Insights/scheduledQueryRules")
        } | {
            rule["name"]: [each["actionGroupId"] for each in at(rule, "properties.actions")]
            for rule in variant.resources("Microsoft.Insights/metricAlerts")
        }
        for name, actual in action_groups.items():
            if actual != expected:
                yield f"{variant.name}: {name} tells {actual}, not {expected}"
