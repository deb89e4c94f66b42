"""The operator's page as HTML: no script, readable in light, dark and on a phone.

The templates are in `html/`, one for each view. Jinja2 escapes what they print. The page's links carry `?code=`
on, the function key that the viewer came with, since the host asks for it each time; no other secret is on it.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlencode

import jinja2
from markupsafe import Markup

from shared import __version__, clock
from shared.config.environments import Environment
from shared.operations import charts, units, views
from shared.storage import names

REFRESH: Final = 30
"""Seconds after which a view of `_REFRESHED` is loaded again."""

_REFRESHED: Final[Mapping[str, str]] = {"jobs": "on", "recent": "on", "files": "off"}
"""The views that can refresh by themselves, and whether they do before the viewer chooses. A list has a form,
which may be half filled in."""

METADATA: Final[Mapping[str, str]] = {
    "resentby": "Resent by",
    "resentwhy": "Why",
    "resendof": "Of",
    "resent": "On",
    "redeliveredby": "Copy delivered by",
    "redeliveredwhy": "Why",
    "redeliveryof": "Of",
    "redelivered": "On",
}
"""What `actions` keeps with a file or package that it makes, in words. There is one kind of it or the other."""

HTML: Final = Path(__file__).with_name("html")

CSS: Final = (HTML / "page.css").read_text(encoding="utf-8")

HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src data:; "
    f"style-src 'sha256-{b64encode(sha256(CSS.encode()).digest()).decode()}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # Not no-referrer: with that a browser sends `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every page: nothing runs, nothing is loaded, nothing is kept, nobody frames it."""


@dataclass(frozen=True)
class Links:
    """Makes the addresses of the page's views."""

    root: str
    """The path of the first page, such as `/api/operate`."""
    code: str
    """The function key that the viewer came with, or ""."""
    environments: Sequence[Environment]
    refresh: str = ""
    """What the viewer has chosen: on, off, or nothing."""

    @property
    def kept(self) -> dict[str, str]:
        """What every link and every form carries on."""
        return {
            key: value for key, value in (("refresh", self.refresh), ("code", self.code)) if value
        }

    def to(self, view: str = "", /, **query: object) -> str:
        """The address of a view. A part of the query that is empty is left out."""
        parts = {**{key: value for key, value in query.items() if value}, **self.kept}
        return f"{self.root}{f'/{view}' if view else ''}{f'?{urlencode(parts)}' if parts else ''}"

    def colour(self, environment: str) -> int:
        """The number of an environment's colour, by its place in the jobs file: page.css has six."""
        names = [each.name for each in self.environments]
        return names.index(environment) % 6 if environment in names else 5

    def d365(self, environment: str) -> str:
        """The address of D365: of the environment of that name, or of the only one. "" where it is neither."""
        named = (each.url for each in self.environments if each.name == environment)
        only = self.environments[0].url if len(self.environments) == 1 else ""
        return next(named, only)

    def file(self, container: str, name: str, view: str = "file") -> str:
        """The address of one file."""
        return self.to(view, **{"in": container, "name": name})


@dataclass(frozen=True)
class Refresh:
    """How the viewer switches refreshing on or off."""

    on: bool
    switch: str
    """The address of the same page with the other choice."""


def render(
    template: str,
    links: Links,
    data: Mapping[str, Any],
    view: str = "",
    query: Mapping[str, str] | None = None,
) -> str:
    """A page from its template and its data. Where a view is shown, `query` is its query."""
    return (
        _templates()
        .get_template(f"{template}.html")
        .render(
            data,
            links=links,
            view=view,
            now=clock.now(),
            refresh=_refresh(links, view, query or {}),
        )
    )


def _refresh(links: Links, view: str, query: Mapping[str, str]) -> Refresh | None:
    default = _REFRESHED.get(view)
    if default is None:
        return None
    on = (links.refresh or default) == "on"
    other = "off" if on else "on"
    links = replace(links, refresh="" if other == default else other)
    rest = {key: value for key, value in query.items() if key not in ("code", "refresh")}
    return Refresh(on, links.to("" if view == "jobs" else view, **rest))


@cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HTML),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Callable[..., str]] = {
        "iso": clock.text,
        "utc": _utc,
        "thousands": "{:,}".format,
        "duration": _duration,
        "size": units.size,
        "unquote": unquote,
        "unstamped": names.unstamped,
    }
    templates.filters |= filters
    templates.globals |= {
        "css": Markup(CSS),
        "METADATA": METADATA,
        "REFRESH": REFRESH,
        "charts": charts,
        "views": views,
        "version": __version__,
    }
    return templates


def _utc(moment: datetime | str) -> str:
    """A time, or the text of one in a file's metadata: 2026-11-23 20:41:38Z. "" stays ""."""
    if isinstance(moment, str):
        if not moment:
            return ""
        moment = clock.parse(moment)
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else units.duration(seconds)
