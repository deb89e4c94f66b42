"""The commands that people copy from the pages and the workflows run: the shells and the Azure CLI take them.

A block is for Bash and PowerShell alike, but where one for PowerShell comes right after one for Bash
(`tests/markdown.py`). A command is one line, since the two go on in the next line by different signs.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree_sitter import Node

from tests.markdown import POWERSHELL, read_in

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
PROGRAMS = {"az", "azcopy", "azd", "cd", "d365-blob-bridge", "git", "pipx", "python", "python3"}
"""What a command starts. Everything else is one shell's own (`export`), or another thing in PowerShell, where
`curl` is Invoke-WebRequest."""

SHELLS = {"bash", "console", "powershell"}


def by_name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_commands_run_in_powershell(page: Path) -> None:
    """Each block parses there, also in Windows PowerShell 5.1, and starts nothing that is Bash's alone."""
    text = page.read_text(encoding="utf-8")
    blocks = [part for part in read_in("powershell", text) if part.language in SHELLS]
    assert [wrong for part in blocks for wrong in not_powershell(part.text, part.language)] == []


@pytest.mark.parametrize(
    "code",
    [
        "az group create \\\n  --name x\n",
        "NAME=value az group list\n",
        "export NAME=value\n",
        "for NAME in a b; do\n  az group show --name $NAME\ndone\n",
        'az group show --name "a\\"b"\n',
        "az group list && az account list\n",
        "az group create --tags @tags.json\n",
        """azd env set NAME '{"key": "value"}'\n""",
        "curl --get https://example.com\n",
    ],
)
def test_what_only_bash_takes_is_refused(code: str) -> None:
    assert list(not_powershell(code, "bash"))


@pytest.mark.parametrize("page", PAGES, ids=by_name)
@pytest.mark.skipif(not shutil.which("bash"), reason="there is no Bash here to parse them")
def test_commands_parse_in_bash(page: Path) -> None:
    for part in read_in("bash", page.read_text(encoding="utf-8")):
        if part.language == "bash":
            parsed = subprocess.run(
                ["bash", "-n"], input=part.text, capture_output=True, text=True, check=False
            )
            assert not parsed.stderr, f"line {part.line}: {parsed.stderr}"


def test_each_shell_gets_the_same_az_commands() -> None:
    """Where there are two forms of a block, they do the same."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        in_bash, in_powershell = (
            [
                words
                for part in read_in(shell, text)
                if part.language
                for words in az_commands(part.text)
            ]
            for shell in ("bash", "powershell")
        )
        assert in_bash == in_powershell, page.name


def test_az_takes_each_command(tmp_path: Path) -> None:
    """The Azure CLI knows every command, flag and query. It only parses them, and runs none."""
    az = shutil.which("az")
    if not az:
        pytest.skip("There is no az: pip install azure-cli (700 MB) into an environment of its own")
    environment = {
        **os.environ,
        "AZURE_CONFIG_DIR": str(tmp_path),
        "AZURE_CORE_COLLECT_TELEMETRY": "no",
    }
    version = subprocess.run(
        [az, "--version"], capture_output=True, text=True, env=environment, check=True
    ).stdout
    python = re.findall(r"(?m)^Python location '(.*)'$", version)[0]
    commands = [words for path in [*PAGES, *WORKFLOWS] for words in az_lines(path)]
    assert len(commands) > 20
    # It reads this file. A `>` of Windows PowerShell 5.1 writes UTF-16.
    (tmp_path / "credential.json").write_text("{}", encoding="utf-16")
    parsed = subprocess.run(
        [python, "-c", AZ_PARSER],
        cwd=tmp_path,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    refused = [
        words for words, taken in zip(commands, json.loads(parsed.stdout), strict=True) if not taken
    ]
    assert refused == [], parsed.stderr


AZ_PARSER = """
import contextlib, io, json, sys
from azure.cli.core import get_default_cli
from knack.events import EVENT_INVOKER_POST_PARSE_ARGS

class Parsed(BaseException):
    pass

def stop(*_, **__):
    raise Parsed

cli = get_default_cli()
cli.register_event(EVENT_INVOKER_POST_PARSE_ARGS, stop)
taken = []
with contextlib.redirect_stdout(io.StringIO()):  # of --help
    for words in json.load(sys.stdin):
        try:
            taken.append(cli.invoke(words) == 0)
        except Parsed:
            taken.append(True)
        except SystemExit as error:
            taken.append(error.code == 0)
json.dump(taken, sys.stdout)
"""
"""Run by the CLI's own Python: whether it takes each command, up to the point where it would run it."""


def not_powershell(code: str, language: str | None) -> Iterator[str]:
    """What PowerShell would refuse, or read otherwise than it is meant."""
    tree = POWERSHELL.parse(code.encode())
    if tree.root_node.has_error:
        yield f"does not parse: {code}"
        return
    for node in descendants(tree.root_node):
        text = (node.text or b"").decode()
        match node.type:
            case "command_name" if text not in PROGRAMS and not (
                language == "powershell" and re.fullmatch("[A-Z][a-z]+-[A-Z][A-Za-z]+", text)
            ):
                yield f"no program, or another one: {text}"
            case "pipeline_chain_tail":
                yield f"Windows PowerShell 5.1 has no {text}"
            case "variable" if text.startswith("@"):
                yield f"PowerShell puts a variable's values there: {text}"
            case "verbatim_string_characters" if language == "bash" and '"' in text:
                yield f"Windows PowerShell 5.1 takes these quotes away: {text}"


def descendants(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from descendants(child)


def az_lines(path: Path) -> Iterator[list[str]]:
    """The az commands of a page or a workflow, without the word `az`."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yml":
        yield from az_commands(text)
        return
    for part in read_in("bash", text):
        if part.language in SHELLS:
            yield from az_commands(part.text)
        elif part.language is None:
            for code in re.findall(r"`(az [a-z][^`]*)`", part.text):
                # In a sentence the name may stand for the command; it is to be one.
                yield from az_commands(code if "--" in code else f"{code} --help")


def az_commands(code: str) -> Iterator[list[str]]:
    """The words of each, with x for what a variable or another command fills in."""
    for line in code.splitlines():
        if not line.lstrip().startswith("#"):
            yield from az_of(line)


def az_of(line: str) -> Iterator[list[str]]:
    while inner := re.search(r"\$\(([^()]*)\)", line):
        yield from az_of(inner[1])
        line = line[: inner.start()] + "x" + line[inner.end() :]
    line = re.sub(r"\$\w+", "x", line)
    if command := re.search(r"(?<![\w./-])az (?=[a-z])(.*)", line):
        words = shlex.shlex(command[1], posix=True, punctuation_chars=True)
        words.whitespace_split = True
        yield list(itertools.takewhile(lambda word: not set(word) <= set("();<>|&"), words))
