"""The benchmark's tables as text, as Markdown and as plots, and docs/performance.md, which holds them."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
BEGIN: Final = "<!-- measured: written by `dev.py bench --write` -->"
END: Final = "<!-- end of what was measured -->"


@dataclass(frozen=True)
class Table:
    """A table; `plot` is the column that is drawn too, if any."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    plot: int | None = None

    def text(self) -> str:
        """For a terminal."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(self.head))]
        shown = [
            "  ".join(
                cell.ljust(width) if n == 0 else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([self.title, *(f"  {line}" for line in shown), ""])

    def markdown(self) -> str:
        """For the docs, with its plot."""
        lines = [
            "| " + " | ".join(self.head) + " |",
            "| --- " + "| ---: " * (len(self.head) - 1) + "|",
        ]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        picture = f"![{self.title}](performance/{self.file})\n\n" if self.plot is not None else ""
        return f"### {self.title}\n\n{picture}" + "\n".join(lines) + "\n"

    @property
    def file(self) -> str:
        """The plot's file."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower()) + ".svg"

    def svg(self) -> str:
        """Bars, readable on light and dark pages."""
        assert self.plot is not None
        values = [float(row[self.plot].replace(",", "")) for row in self.rows]
        height, left, width = 34 * len(values) + 46, 150, 640
        scale = (width - left - 110) / max(values)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{escape(self.title)}" font-family="system-ui, sans-serif" font-size="14">',
            "<style>text{fill:#1b1f24}rect{fill:#7a8794}.ours{fill:#1f6feb}"
            "@media(prefers-color-scheme:dark){text{fill:#e6edf3}rect{fill:#8b98a5}.ours{fill:#58a6ff}}</style>",
            f'<text x="0" y="18" font-weight="600">{escape(self.title)}: {escape(self.head[self.plot])}</text>',
        ]
        for n, (row, value) in enumerate(zip(self.rows, values, strict=True)):
            y = 34 + 34 * n
            kind = ' class="ours"' if row[0] == "ours" or "side by side" in row[0] else ""
            parts += [
                f'<text x="{left - 10}" y="{y + 18}" text-anchor="end">{escape(row[0])}</text>',
                f'<rect{kind} x="{left}" y="{y + 2}" width="{value * scale:.1f}" height="24" rx="3"/>',
                f'<text x="{left + value * scale + 8:.1f}" y="{y + 19}">{escape(row[self.plot])}</text>',
            ]
        return "\n".join([*parts, "</svg>", ""])


def write(tables: Sequence[Table], figures: Mapping[str, float]) -> None:
    """Put what was measured into docs/performance.md, in place of what stands there."""
    page = DOCS / "performance.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    folder = DOCS / "performance"
    folder.mkdir(exist_ok=True)
    for table in tables:
        if table.plot is not None:
            (folder / table.file).write_text(table.svg(), encoding="utf-8")
    summary = Table(
        "Figures", ("figure", "value"), [(f"`{k}`", f"{v:.2f}") for k, v in figures.items()]
    )
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}"
    where = f"Measured on {datetime.now(UTC):%d %B %Y}, {machine}.\n"
    body = "\n".join([where, *(table.markdown() for table in tables), summary.markdown()])
    page.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", encoding="utf-8")
