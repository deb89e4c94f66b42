"""The operator's guide against the code: whoever meets a code finds it there."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import dev
from shared.imports.outcome import TODO
from shared.observability.events import EVENTS

ROOT = Path(__file__).resolve().parents[1]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def rows(title: str) -> dict[str, list[str]]:
    """The table of a section: code -> its other cells."""
    section = OPERATIONS.split(f"\n## {title}\n")[1].split("\n## ")[0]
    table = re.findall(r"^\| \**`([^`]+)`\** \|(.*)\|$", section, re.MULTILINE)
    return {code: [cell.strip() for cell in rest.split("|")] for code, rest in table}


def test_every_reason_is_explained_and_none_that_is_gone() -> None:
    """With what happened and what to do."""
    reasons = rows("Reasons")
    assert set(reasons) == set(TODO)
    assert all(len(cells) == 2 and all(cells) for cells in reasons.values())


def test_every_event_is_explained_and_none_that_is_gone() -> None:
    """What it means, for each."""
    events = rows("Alerts and events")
    assert set(events) == set(EVENTS)
    assert all(cells[0] for cells in events.values())


def test_what_alerts_look_for_is_marked_and_says_what_to_do() -> None:
    """Each event that a query of an alert names."""
    queries = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "infra/queries").glob("alert-*.kql")
    )
    good = {"package.acknowledged", "package.empty", "export.unfinished", "export.idle"}
    good.add("execution.stored")
    alerted = {event for event in EVENTS if f'"{event}"' in queries} - good
    bold = set(re.findall(r"^\| \*\*`([^`]+)`\*\*", OPERATIONS, re.MULTILINE))
    assert bold == alerted
    assert all(rows("Alerts and events")[event][1] for event in alerted)


def test_every_alert_is_explained_under_the_name_that_an_e_mail_has() -> None:
    """With what it means and what to do, and none that is gone."""
    bicep = (ROOT / "infra/modules/alerts.bicep").read_text(encoding="utf-8")
    rules = set(re.findall(r"^    name: '([\w-]+)'$", bicep, re.MULTILINE))
    rules |= set(re.findall(r"/metricAlerts@.*\n  name: '\$\{name\}-([\w-]+)'", bicep))
    alerts = rows("Alerts")
    assert {"file-failed", "dead-letters"} < rules
    assert set(alerts) == rules
    assert all(len(cells) == 2 and all(cells) for cells in alerts.values())


def test_every_error_text_is_explained() -> None:
    """Each text with which the D365 client raises an error, each code that the check tells apart."""
    section = OPERATIONS.split("\n## Error texts\n")[1]
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    explained = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    modules = (ROOT / "shared/d365").glob("*.py")
    texts = [text for module in modules for text in error_texts(module)]
    assert len(texts) > 15
    checking = (ROOT / "shared/storage/errors.py").read_text(encoding="utf-8")
    codes = [
        code
        for line in re.findall(r"^ *case (.*):$", checking, re.MULTILINE)
        for code in re.findall(r'"(\w+)"', line)
    ]
    assert "AuthenticationFailed" in codes
    assert [text for text in texts if not any(matches(code, text) for code in explained)] == []
    assert set(codes) <= set(explained)


def error_texts(path: Path) -> Iterator[str]:
    """The texts of the errors that a module makes, … for what is filled in."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef):
            continue
        assigned = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            match node:
                case ast.Call(
                    func=ast.Name(id="Denied" | "Rejected" | "Unavailable" | "Uncertain"), args=args
                ):
                    yield template(args[1], assigned)
                case ast.Return(value=ast.Call(args=[ast.JoinedStr() as text])):
                    yield template(text, assigned)


def template(text: ast.expr, assigned: Mapping[str, ast.expr]) -> str:
    """A text of the source as a person sees it."""
    match text:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            parts = (v.value if isinstance(v, ast.Constant) else "…" for v in values)
            return "".join(map(str, parts))
        case ast.BinOp(left=left):
            return template(left, assigned)
        case ast.Call(args=[inner]):
            return template(inner, assigned)
        case ast.Name(id=name) if name in assigned:
            return template(assigned[name], assigned)
    return "…"


def matches(code: str, text: str) -> bool:
    """Whether a code of the table is in a text, … for anything."""
    return bool(re.match(".+".join(map(re.escape, code.split("…"))), text))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_commands_in_the_docs_exist(page: Path) -> None:
    """Each `dev.py NAME`."""
    named = set(re.findall(r"dev\.py (\w+)", page.read_text(encoding="utf-8")))
    assert named <= set(dev.COMMANDS)


def test_the_deployed_functions_are_those_that_the_page_lists() -> None:
    """docs/deploy.md, step 4: whoever sees others does not know whether the app runs."""
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    listed = page.split("\nIt lists `")[1].split(". ")[0]
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "functions").glob("*.py"))
    names = {name for text in sources for name in re.findall(r'function_name\("(\w+)"\)', text)}
    assert set(re.findall(r"\w+", listed)) - {"and"} == names


def test_the_journeys_name_functions_that_there_are() -> None:
    """Each `room/module.function` in the drawings of docs/architecture.md."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawings = "".join(re.findall(r"### Module by module.*?```\n(?=\n)", text, re.DOTALL))
    named = set(re.findall(r"\b([a-z\d]+/[a-z_]+)\.([a-z_\d]+)", drawings))
    assert len(named) > 25
    missing = [
        f"{module}.{function}"
        for module, function in sorted(named)
        if not re.search(
            rf"^ *(async )?def {function}\(",
            (ROOT / f"shared/{module}.py").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    ]
    assert missing == []
