"""What the checks ask the Bicep compiler, and how they read its answers."""

from pathlib import Path

import pytest

from tests.infra import arm, compiler
from tests.infra.compiler import NotCompiled
from tests.infra.variants import D365, INFRA

BICEP = """
@minLength(3)
param name string
@secure()
param settings object = {}
param unused string = ''

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: name
}

resource queues 'Microsoft.Storage/storageAccounts/queueServices@2025-01-01' = if (!empty(settings)) {
  parent: account
  name: 'default'
}

output settings object = union({ URI: account.properties.primaryEndpoints.queue }, settings)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.bicep"
    path.write_text(BICEP, encoding="utf-8")
    return path


@compiler.needed
def test_warnings_are_diagnostics_too(file: Path) -> None:
    """With file, line and code."""
    diagnostics = compiler.diagnostics(file)
    assert any(each.startswith("some.bicep:6: no-unused-params: ") for each in diagnostics), (
        diagnostics
    )


@compiler.needed
def test_a_snapshot_has_what_these_parameters_deploy(file: Path) -> None:
    """A secure parameter decides like any other; what only Azure knows is named by its resource."""
    parameters = {"name": "abcde", "settings": {"OF": "mine, it's ${true}"}}
    snapshot = compiler.snapshot(file, parameters)
    assert [each["id"] for each in snapshot.resources] == [
        "Microsoft.Storage/storageAccounts/abcde/queueServices/default"
    ]
    assert snapshot.outputs["settings"] == {
        "URI": "Microsoft.Storage/storageAccounts/abcde.properties.primaryEndpoints.queue",
        "OF": "mine, it's ${true}",
    }
    assert compiler.snapshot(file, {"name": "abcde"}).resources == []


@compiler.needed
@pytest.mark.parametrize(
    ("parameters", "says"), [({"name": "ab"}, "BCP333"), ({}, "BCP258"), ({"names": ""}, "BCP259")]
)
def test_a_wrong_parameter_is_said(file: Path, parameters: dict[str, str], says: str) -> None:
    """In the compiler's own words."""
    with pytest.raises(NotCompiled, match=says):
        compiler.snapshot(file, parameters)


@compiler.needed
def test_parameters_come_from_the_environment_that_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each time from its own, and never from the machine's; one that is wrong is no trouble for the others."""
    monkeypatch.setenv("BRIDGE_NAME", "of-this-machine")
    unset, wrong, named = compiler.parameters(
        INFRA / "main.bicepparam",
        [
            {"D365_URL": D365},
            {"D365_URL": D365, "BRIDGE_NAME": "one name that is much too long"},
            {"D365_URL": D365, "BRIDGE_NAME": "erp"},
        ],
    )
    assert isinstance(unset, dict)
    assert (unset["d365Url"], unset["name"]) == (D365, "bridge")
    assert isinstance(wrong, NotCompiled)
    assert "main.bicepparam" in str(wrong)
    assert isinstance(named, dict)
    assert named["name"] == "erp"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("plain [text]", "plain [text]"),
        ("[[not an expression]", "[[not an expression]"),
        ("[format('{1}-{0}', 'it''s', 1)]", "1-it's"),
        ("[reference('A/b/c', '2025').x.y]", "A/b/c.properties.x.y"),
        ("[reference('A/b/c', '2025', 'full').identity.id]", "A/b/c.identity.id"),
        ("[listKeys('A/b/c', '2025').keys[0].value]", "listKeys(A/b/c, 2025).keys[0].value"),
        ("[resourceId('s', 'g', 'A/b/c', 'one', 'two')]", "A/b/one/c/two"),
        ("[if(empty(''), createObject('a', createArray(true(), null())), 1)]", {"a": [True, None]}),
        ("[environment().suffixes.storage]", "core.windows.net"),
        ("[union(createObject('a', 1, 'b', 2), createObject('a', 3))]", {"a": 3, "b": 2}),
    ],
)
def test_expressions_are_read(expression: str, value: object) -> None:
    """As Azure would, but for what only Azure knows."""
    assert arm.read([expression]) == [value]
