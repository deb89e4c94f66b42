"""Markdown pages that people copy commands from: whether the text is whole, and its variables are set.

A page may show several ways to do a thing, in sections `### With …`; who follows one skips the others. A block
for PowerShell right after one for Bash takes its place there; every other block for Bash is for both.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import tree_sitter_powershell
from tree_sitter import Language, Parser

POWERSHELL: Final = Parser(Language(tree_sitter_powershell.language()))
"""What parses PowerShell."""

_SETS = {
    "bash": r"(?:(?<=[\s`])|^)(?:(?P<set>[A-Z][A-Z0-9_]*)=|for (?P<each>[A-Z]\w*) in )",
    "powershell": r"(?m:^) *\$(?P<set>[A-Z][A-Z0-9_]*) =",
}
_USED = r"\$\{?(?P<used>[A-Z][A-Z0-9_]*)"


@dataclass
class Part:
    """A fenced block with its language, or a paragraph (a list item, a row of a table), at its line."""

    line: int
    language: str | None
    text: str = ""
    ended: bool = True


def torn(page: str) -> Iterator[str]:
    """Where text is missing: a fence or a ` without its end, a parenthesis in a command that is not closed."""
    for part in _parts(page):
        place = f"line {part.line}: {part.text.strip()[:50]!r}"
        if not part.ended or (part.language is not None and re.search(r"(?m)^ *```", part.text)):
            yield f"{place}: this block of code has no end"
        elif part.language is None and part.text.count("`") % 2:
            yield f"{place}: a ` is without its other one"
        for code in _commands(part):
            if code.count("(") != code.count(")"):
                yield f"{place}: a parenthesis is not closed"


def unset(page: str) -> Iterator[str]:
    """Variables that a command uses before one has set them, for each way through the page in each shell."""
    for way, (shell, sets) in itertools.product(_ways(page), _SETS.items()):
        known: set[str | None] = set()
        for code in (code for part in read_in(shell, way) for code in _commands(part)):
            for match in re.finditer(f"{sets}|{_USED}", code):
                if match["used"] and match["used"] not in known:
                    yield f"{match['used']} is not set before {code[match.start() :][:50]!r}"
                known.update(match.groups())


def read_in(shell: str, page: str) -> Iterator[Part]:
    """What somebody follows who works in this shell, "bash" or "powershell"."""
    parts = [part for part in _parts(page) if part.text.strip()]
    for part, following in itertools.zip_longest(parts, parts[1:]):
        has_twin = part.language == "bash" and following and following.language == "powershell"
        if not (has_twin if shell == "powershell" else part.language == "powershell"):
            yield part


def _commands(part: Part) -> list[str]:
    """A block for a shell, or the code within a paragraph."""
    if part.language is None:
        return re.findall(r"`([^`]+)`", part.text)
    return [part.text] if part.language in ("bash", "console", "powershell") else []


def _parts(page: str) -> list[Part]:
    parts = [Part(1, None)]
    for number, line in enumerate(page.splitlines(), 1):
        inside = parts[-1].language is not None and not parts[-1].ended
        fence = re.fullmatch(r" *```(\w*)", line)
        if fence and inside and not fence[1]:
            parts[-1].ended = True
        elif fence and not inside:
            parts.append(Part(number, fence[1], ended=False))
        else:
            if not inside and (parts[-1].language is not None or _begins(line)):
                parts.append(Part(number, None))
            parts[-1].text += f"{line}\n"
    return parts


def _begins(line: str) -> bool:
    """A blank line, a heading, a list item or a row: the paragraph before it has ended."""
    return not line.strip() or bool(re.match(r" *(\||[-*] |\d+\. |#)", line))


def _ways(page: str) -> Iterator[str]:
    """The page once for each of its sections `### With …`, without the others."""
    sections = re.split(r"(?m)^(?=#{2,3} )", page)
    ways = [section for section in sections if section.startswith("### With ")]
    for way in ways or [""]:
        yield "".join(each for each in sections if each == way or each not in ways)
