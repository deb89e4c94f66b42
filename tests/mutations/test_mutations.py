"""Each row of the tables changes one place, and tests see what it breaks."""

import ast
import re

import pytest

from tests.mutations import table
from tests.mutations.anchors import NoAnchor, changed
from tests.mutations.table import CODE, INFRA, ROOT, Mutation

ONE_EACH = {each.breaks: each for each in reversed(CODE)}.values()

SOURCE = """
import json


def send(file, body):
    # a comment
    length = len(body)
    if length not in (0, file.size):
        raise ValueError("length")
    return json.dumps(body, indent=length, sort_keys=True)


def receive(name):
    for each in name:
        print(each)
"""


@pytest.mark.parametrize("mutation", [*CODE, *INFRA], ids=str)
def test_a_row_changes_one_place(mutation: Mutation) -> None:
    """A row whose place is gone would prove nothing; and what it makes of a module can still be read."""
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    new = changed(mutation.file, text, mutation.old, mutation.new)
    assert new != text
    if mutation.file.endswith(".py"):
        ast.parse(new)


@pytest.mark.parametrize("mutation", CODE, ids=str)
def test_a_row_names_a_test_that_there_is(mutation: Mutation) -> None:
    """By its file and function."""
    path, _, test = mutation.test.partition("::")
    function = test.partition("[")[0]
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^ *def {function}\(", text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mutation", ONE_EACH, ids=str)
def test_a_mutation_is_caught(mutation: Mutation) -> None:
    """Tests that can't fail prove nothing; one row of each promise here, all in `dev.py faults`."""
    assert table.caught(mutation)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("n not in (0, f.size)", "False", "    if (False):"),
        ("n not in (0, f.size)", "n > f.size", "    if (length > file.size):"),
        ("if n not in (0, f.size):\n    raise ValueError('length')", "", "    pass\n    return"),
        ("x = len(data)", "x = 0", "    length = 0\n"),
        ("sort_keys=True", "", "indent=length, )"),
        ("indent=n, sort_keys=True", "indent=n + 1", "json.dumps(body, indent=length + 1,)"),
        ("print(x)", "", "        None\n"),
    ],
)
def test_a_local_may_have_any_name(old: str, new: str, expected: str) -> None:
    """And so does what is put there; comments and layout stay."""
    text = changed("module.py", SOURCE, old, new)
    assert expected in text
    assert "# a comment" in text


@pytest.mark.parametrize(
    ("name", "old", "times"),
    [
        ("module.py", "yaml.dumps(x, indent=n, sort_keys=True)", 0),
        ("module.py", "json.dumps(x, indent=x, sort_keys=True)", 0),
        ("module.py", "sort_keys=False", 0),
        ("module.py", "json", 1),
        ("module.py", "len(body)", 1),
        ("module.py", "body", 3),
        ("module.md", "length", 5),
    ],
)
def test_a_place_that_is_not_one_is_refused(name: str, old: str, times: int) -> None:
    """Else a row would break something else, or nothing."""
    if times == 1:
        changed(name, SOURCE, old, "None")
        return
    with pytest.raises(NoAnchor, match="times, not once"):
        changed(name, SOURCE, old, "None")
