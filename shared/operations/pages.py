"""The operator's page as HTML: no script, no request beside itself, readable in light, dark and on a phone.

Everything that comes from outside goes through `_e`. The page's links carry `?code=` on, the function key that
the viewer came with, since the host asks for it each time; no other secret is ever on the page.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlencode

from shared import clock
from shared.operations import actions, plots, views
from shared.operations.health import Line, Verdict
from shared.operations.views import Detail, Ended, Failing, Filter, Job, Listing, Overview, Row
from shared.storage import names
from shared.storage.account import FAILED

REFRESH: Final = 30
"""Seconds after which a page of `_REFRESHED` loads anew."""

_REFRESHED: Final[Mapping[str, str]] = {"": "on", "lately": "on", "files": "off"}
"""Views that load anew by themselves, and whether they do before the viewer says so: a list has a form, which
may be half filled in."""

CSS: Final = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")

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

STATES: Final[Mapping[str, str]] = {
    "failed": "Failed or held",
    "held": "Held",
    "dismissed": "Dismissed",
    "waiting": "Waiting to be taken",
    "processing": "On the way to D365",
    "succeeded": "Succeeded",
    "exported": "Exported packages",
}

_STATE_WORDS: Final[Mapping[str, str]] = {
    "waiting": "waiting",
    "claimed": "waiting to be sent",
    "sending": "being sent",
    "sent": "with D365",
}


@dataclass(frozen=True)
class Place:
    """Where the page is served, for its links."""

    root: str
    """The path of the first page, such as `/api/operate`."""
    code: str
    """The function key that the viewer came with, or ""."""
    d365_url: str
    refresh: str = ""
    """What the viewer has said about loading anew: on, off, or nothing."""

    def address(self, view: str = "", /, **query: str) -> str:
        """The address of a view."""
        code = {"code": self.code} if self.code else {}
        told = {"refresh": self.refresh} if self.refresh else {}
        given = urlencode({**{k: v for k, v in query.items() if v}, **told, **code})
        return f"{self.root}{'/' if view else ''}{view}{'?' if given else ''}{given}"

    def link(self, view: str = "", /, **query: str) -> str:
        """The same, escaped for an attribute."""
        return _e(self.address(view, **query))

    def hidden(self) -> str:
        """The same for a form that is sent with GET."""
        fields = {"code": self.code, "refresh": self.refresh}
        return "".join(
            f'<input type="hidden" name="{name}" value="{_e(value)}">'
            for name, value in fields.items()
            if value
        )


def _e(value: object) -> str:
    return escape(str(value), quote=True)


def _page(
    place: Place,
    title: str,
    here: str,
    body: str,
    query: Mapping[str, str] | None = None,
) -> str:
    links = (("", "Jobs"), ("lately", "Lately"), ("files", "Files"), ("check", "Check"))
    nav = "".join(
        f'<a href="{place.link(view)}"{" aria-current=page" if view == here else ""}>{text}</a>'
        for view, text in links
    )
    meta, switch = "", ""
    if usual := _REFRESHED.get(here):
        on = (place.refresh or usual) == "on"
        other = "off" if on else "on"
        to = replace(place, refresh=other if other != usual else "")
        link = to.link(here, **(query or {}))
        if on:
            meta = f'<meta http-equiv="refresh" content="{REFRESH}">'
            switch = f' · loads anew every {REFRESH} s (<a href="{link}">stop</a>)'
        else:
            switch = f' · <a href="{link}">load anew every {REFRESH} s</a>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="robots" content="noindex">{meta}<link rel="icon" href="data:,">'
        f"<title>{_e(title)} · d365-blob-bridge</title><style>{CSS}</style></head><body>"
        '<a class="skip" href="#main">To the content</a>'
        f'<header><strong>d365-blob-bridge</strong><nav aria-label="Pages">{nav}</nav>'
        f'<span class="dim small">{_e(place.d365_url)} · {_time(clock.now())}{switch}</span></header>'
        f'<main id="main">{body}</main></body></html>'
    )


def _time(moment: datetime | None) -> str:
    if moment is None:
        return '<span class="dim">–</span>'
    return f'<time datetime="{_e(clock.text(moment))}">{moment:%Y-%m-%d %H:%M:%S}Z</time>'


def _when(text: str) -> str:
    """A time of the metadata as text, or ""."""
    return f"{clock.parse(text):%Y-%m-%d %H:%M:%S}Z" if text else ""


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else _e(plots.duration(seconds))


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _state(state: str) -> str:
    return f'<span class="state {_e(state)}">{_e(_STATE_WORDS.get(state, state))}</span>'


# -- the first page -------------------------------------------------------------------------------


_ELSEWHERE: Final = 10
"""Folders that are none of a job's, of which so many are named."""


def overview(place: Place, found: Overview) -> str:
    """Jobs, plots, what went wrong outside of every job."""
    body = ["<h1>Jobs</h1>"]
    if not found.counted_all:
        body.append(
            f'<p class="note">≥: of more than {views.COUNTED:,} files the first were counted.</p>'
        )
    if found.elsewhere:
        links = ", ".join(
            f'<a href="{place.link("files", name=begins)}">{_e(begins)}</a> ({number:,})'
            for begins, number in found.elsewhere.most_common(_ELSEWHERE)
        )
        more = " and elsewhere" if len(found.elsewhere) > _ELSEWHERE else ""
        body.append(
            f'<p class="note bad">Files failed outside of these jobs\' folders: {links}{more}.</p>'
        )
    body.append(_jobs(place, found.jobs, whole=found.recent.complete))
    if any(job.kind == "export" for job in found.jobs):
        when = _time(found.next_export) if found.next_export else "never, by its schedule"
        body.append(f'<p class="dim small">Next run of the export jobs: {when}</p>')
    if failing := views.failing(found.recent):
        body.append(_failing(failing))
    body.append(f"<h2>The last {views.HOURS} hours</h2>")
    if not found.recent.complete:
        body.append('<p class="dim small">≥: of busy hours, the first part is left out.</p>')
    body.append(plots.both(views.ended(found.recent), found.recent.since))
    return _page(place, "Jobs", "", "".join(body))


def _jobs(place: Place, jobs: Sequence[Job], *, whole: bool) -> str:
    """`whole` where the journal's hours are; else what is counted from it is at least so much."""
    if not jobs:
        return "<p>The jobs file names no job.</p>"
    rows = []
    for job in jobs:
        imports = job.kind == "import"

        def count(number: int, state: str, style: str = "", job: Job = job) -> str:
            if job.kind != "import":
                return '<span class="dim">–</span>'
            mark = f' class="{style}"' if number and style else ""
            link = place.link("files", state=state, job=job.name)
            return f'<a href="{link}"{mark}>{_number(number, state not in job.at_least)}</a>'

        no = "" if imports else " none"
        state = "succeeded" if imports else "exported"
        link, lately = (
            place.link("files", state=state, job=job.name),
            place.link("lately", job=job.name),
        )
        no_data = (job.no_data and f' <span class="dim small">+ {job.no_data} no data</span>') or ""
        bad = job.last_outcome if job.last_outcome in ("failed", "held") else ""
        paused = "" if job.enabled else ' <span class="held">paused</span>'
        texts = " · ".join(_e(each) for each in (job.group, job.description) if each)
        about = f'<br><span class="dim small">{texts}</span>' if texts else ""
        rows.append(
            "<tr>"
            f'<th scope="row" data-label="Job"><span><a href="{link}">{_e(job.name)}</a> '
            f"<span class=dim>{job.kind}</span>{paused}{about}</span></th>"
            f'<td class="n{no}" data-label="Waiting">{count(job.waiting, "waiting")}{no_data}</td>'
            f'<td class="n{no}" data-label="On the way">{count(job.processing, "processing")}</td>'
            f'<td class="n{no}" data-label="Failed">{count(job.failed, "failed", "failed")}</td>'
            f'<td class="n{no}" data-label="Held">{count(job.held, "held", "held")}</td>'
            f'<td class="n" data-label="Last hour">{_number(job.last_hour, whole)}</td>'
            f'<td class="n" data-label="24 hours"><a href="{lately}">{_number(job.ended, whole)}</a></td>'
            f'<td data-label="Last run"><span>{_time(job.last)} '
            f'<span class="error {bad}">{_e(job.last_text)}</span></span></td></tr>'
        )
    head = "".join(
        f'<th scope="col"{" class=n" if number else ""}>{text}</th>'
        for text, number in (
            ("Job", False),
            ("Waiting", True),
            ("On the way", True),
            ("Failed", True),
            ("Held", True),
            ("Last hour", True),
            ("24 hours", True),
            ("Last run", False),
        )
    )
    return (
        f'<table class="stack jobs"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        '<p class="dim small">How many packages wait in D365 can\'t be asked without taking them. '
        "Runs that found nothing are noted every quarter of an hour.</p>"
    )


def _package(job: str, correlation_id: str) -> str:
    return f'<span>{_e(job)} <span class="dim">{_e(correlation_id)}</span></span>'


def _failing(packages: Sequence[Failing]) -> str:
    rows = "".join(
        f'<tr><th scope="row" class="name" data-label="Package">{_package(each.job, each.correlation_id)}</th>'
        f'<td class="n" data-label="Tries">{each.tries}</td>'
        f'<td data-label="Last try">{_time(each.at)}</td>'
        f'<td class="error" data-label="Error"><span>{_e(each.error)}</span></td></tr>'
        for each in packages
    )
    head = "".join(
        f'<th scope="col"{" class=n" if text == "Tries" else ""}>{text}</th>'
        for text in ("Package", "Tries", "Last try", "Error")
    )
    return (
        '<h2 class="failed">Packages that fail</h2>'
        f'<table class="stack"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f'<p class="dim small">In the last {views.HOURS} hours, and not exported since.</p>'
    )


def _number(number: int, whole: bool) -> str:
    return f"{'' if whole else '≥ '}{number:,}"


# -- what came lately -----------------------------------------------------------------------------


def lately(place: Place, ended: Sequence[Ended], job: str) -> str:
    """What ended last, the newest first."""
    rows = []
    for each in ended:
        link = place.link("file", **{"in": each.container, "name": each.name})
        name = f'<a href="{link}" title="{_e(each.name)}">{_e(names.unstamped(each.name))}</a>'
        if not each.container:
            name = _package(each.job, each.name)
        message = _e(each.message_id) or '<span class="dim">–</span>'
        error = f"<span>{_e(each.error)}</span>" if each.error else ""
        rows.append(
            f'<tr><td data-label="Ended">{_time(each.at)}</td>'
            f'<td data-label="State">{_state(each.outcome)}</td>'
            f'<th scope="row" class="name" data-label="Name">{name}</th>'
            f'<td class="n" data-label="Took">{_duration(each.seconds)}</td>'
            f'<td class="name small" data-label="Message id"><span>{message}</span></td>'
            f'<td class="error{"" if error else " none"}" data-label="Error">{error}</td></tr>'
        )
    head = "".join(
        f'<th scope="col"{" class=n" if text == "Took" else ""}>{text}</th>'
        for text in ("Ended", "State", "Name", "Took", "Message id", "Error")
    )
    title = f"Lately: {job}" if job else "Lately"
    table = (
        f'<table class="stack"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    all_jobs = f' · <a href="{place.link("lately")}">All jobs</a>' if job else ""
    body = (
        f"<h1>{_e(title)}</h1>{table if rows else '<p>None.</p>'}"
        f'<p class="dim small">What ended in the last {views.HOURS} hours, the newest first, at most '
        f"{views.ROWS}. A file may have gone on since.{all_jobs}</p>"
    )
    return _page(place, title, "lately", body, {"job": job})


# -- the list -------------------------------------------------------------------------------------


def listing(place: Place, wanted: Filter, found: Listing, jobs: Iterable[str]) -> str:
    """The files of a filter."""
    body = [f"<h1>{_e(STATES[wanted.state])}</h1>", _filter(place, wanted, jobs)]
    if found.rows:
        body.append(_table(place, found.rows))
    else:
        body.append("<p>None" + (" among these." if found.next_token else ".") + "</p>")
    shown = (
        f"{len(found.rows):,} shown, {found.looked_at:,} looked at, in the order of their names."
    )
    body.append(f'<p class="dim small">{shown}</p>')
    query = _query(wanted)
    if wanted.token:
        body.append(f'<p><a href="{place.link("files", **query)}">To the first page</a></p>')
    if found.next_token:
        more = place.link("files", **query, token=found.next_token)
        body.append(f'<p><a rel="next" href="{more}">Next page</a></p>')
    here = {**query, "token": wanted.token}
    return _page(place, STATES[wanted.state], "files", "".join(body), here)


def _query(wanted: Filter) -> dict[str, str]:
    return {
        "state": wanted.state,
        "job": wanted.job,
        "name": wanted.name,
        "since": str(wanted.since or ""),
        "until": str(wanted.until or ""),
    }


def _filter(place: Place, wanted: Filter, jobs: Iterable[str]) -> str:
    def options(values: Mapping[str, str], chosen: str) -> str:
        return "".join(
            f'<option value="{_e(value)}"{" selected" if value == chosen else ""}>{_e(text)}</option>'
            for value, text in values.items()
        )

    names = {"": "All", **{name: name for name in jobs}}
    if wanted.job and wanted.job not in names:
        names[wanted.job] = wanted.job
    return (
        f'<form class="filter" method="get" action="{_e(place.root)}/files" aria-label="Filter">'
        f'<div><label for="state">State</label><select id="state" name="state">'
        f"{options(STATES, wanted.state)}</select></div>"
        f'<div><label for="job">Job</label><select id="job" name="job">{options(names, wanted.job)}'
        "</select></div>"
        '<div><label for="name">Name</label><input id="name" name="name" type="search" '
        f'value="{_e(wanted.name)}" aria-describedby="name-help"></div>'
        '<div><label for="since">From (UTC)</label><input id="since" name="since" type="date" '
        f'value="{_e(wanted.since or "")}"></div>'
        '<div><label for="until">To (UTC)</label><input id="until" name="until" type="date" '
        f'value="{_e(wanted.until or "")}"></div>'
        f"{place.hidden()}<button>Show</button>"
        '<p id="name-help" class="dim small">Name: a part of it; with a slash, the beginning of the path.</p>'
        "</form>"
    )


def _table(place: Place, rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        link = place.link("file", **{"in": row.container, "name": row.name})
        message = _e(row.message_id) or '<span class="dim">–</span>'
        error = f"{_e(row.error)}" if row.error else ""
        reason = f'<span class="dim">{_e(row.reason)}</span> ' if row.container == FAILED else ""
        said = f"<span>{reason}{error}</span>" if reason or error else ""
        name = f'<a href="{link}" title="{_e(row.name)}">{_e(row.path)}</a>'
        lines.append(
            f'<tr><td data-label="State">{_state(row.state)}</td>'
            f'<th scope="row" class="name" data-label="Name">{name}</th>'
            f'<td class="n" data-label="Size">{_size(row.size)}</td>'
            f'<td data-label="Dropped">{_time(row.dropped)}</td>'
            f'<td data-label="Changed">{_time(row.changed)}</td>'
            f'<td class="n" data-label="Took">{_duration(row.seconds)}</td>'
            f'<td class="name small" data-label="Message id"><span>{message}</span></td>'
            f'<td class="error{"" if said else " none"}" data-label="Error">{said}</td></tr>'
        )
    head = "".join(
        f'<th scope="col"{" class=n" if text in ("Size", "Took") else ""}>{text}</th>'
        for text in (
            "State",
            "Name",
            "Size",
            "Dropped",
            "Changed",
            "Took",
            "Message id",
            "Error",
        )
    )
    return f'<table class="stack"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


# -- one file -------------------------------------------------------------------------------------

_ACTIONS: Final[Mapping[str, tuple[str, str, str]]] = {
    "resend": (
        "Send it again",
        "The file goes back to imports as a new version and is sent to D365 once more, as it is.",
        "Send it again",
    ),
    "receive": (
        "D365 has it",
        "You have found the file in D365. It is tracked under its message id until D365 says how it ended.",
        "Mark it as received",
    ),
    "ask": (
        "Ask D365 again",
        "D365 is asked after the file once more, until it says how it ended, for up to three days.",
        "Ask again",
    ),
    "dismiss": (
        "It is dealt with",
        "The file stays where it is, marked as dismissed. It stops its job no longer.",
        "Dismiss it",
    ),
    "redeliver": (
        "Hand it over again",
        "The package is copied beside itself under a fresh name, for whoever picks packages up; in a job that "
        "unzips, its files lie in a fresh folder of that name too.",
        "Copy it",
    ),
}


_TOLD: Final[Mapping[str, str]] = {
    "resentby": "Sent again by",
    "resentwhy": "Why",
    "resendof": "Of",
    "resent": "On",
    "redeliveredby": "Handed over again by",
    "redeliveredwhy": "Why",
    "redeliveryof": "Of",
    "redelivered": "On",
}
"""What `actions` writes in the metadata of what it makes; a file has the one kind or the other."""


def _told(theirs: Mapping[str, str]) -> dict[str, str]:
    """Metadata that is not a file's record, what is ours in words and first."""
    ours = {label: unquote(theirs[key]) for key, label in _TOLD.items() if key in theirs}
    rest = {key: value for key, value in sorted(theirs.items()) if key not in _TOLD}
    return {**ours, **rest}


def file(place: Place, found: Detail, by: str) -> str:
    """One file: what is known of it, what D365 said, what can be done."""
    row, record = found.row, found.file.record
    body = [f"<h1>{_e(row.name)}</h1>", f"<p>{_state(row.state)} in {_e(row.container)}</p>"]
    if row.error:
        body.append(f'<p class="note bad">{_e(row.error)}</p>')
    if todo := found.todo:
        body.append(f"<p><strong>What to do:</strong> {_e(todo)}</p>")
        if "Manage messages" in todo:  # no address of that form is documented
            body.append(
                f'<p><a href="{_e(place.d365_url)}">D365</a>: workspace System administration &gt; Data '
                "management IT &gt; tab Recurring data job &gt; the job &gt; Manage messages</p>"
            )
    if record.resolution:
        body.append(
            f'<p class="note">{_e(record.resolution)} by {_e(record.resolvedby)} on {_when(record.resolved)}: '
            f"{_e(record.resolvedwhy)}"
            + (
                ". That was not finished; sending it once more looks first whether it was sent."
                if record.resolution == "resending"
                else ""
            )
            + "</p>"
        )
    facts: dict[str, object] = {
        "Job": row.job,
        "Company": row.company,
        "Company in D365": record.d365company,
        "Reason": row.reason if row.container == FAILED else "",
        "Dropped as": record.source,
        "Size": _size(row.size),
        "Dropped": row.dropped and _when(clock.text(row.dropped)),
        "Taken": _when(record.claimed),
        "Sent": _when(record.sent),
        "Ended": _when(record.ended),
        "Took": _duration(row.seconds) if row.seconds is not None else "",
        "External identifier": record.externalid,
        "Message id": record.messageid,
        "Status in D365": record.status,
        "Records imported": record.entities or record.records,
        "Attempts": record.attempts or "",
        "Status checks": f"{record.checks}, the last {_when(record.checked)}"
        if record.checks
        else "",
        "Next look": _when(record.due),
        "SHA-256": record.sha256 or found.file.theirs.get("sha256", ""),
        **{key: value for key, value in _told(found.file.theirs).items() if key != "sha256"},
    }
    items = "".join(
        f"<dt>{_e(key)}</dt><dd>{_e(value)}</dd>" for key, value in facts.items() if value
    )
    body.append(f"<dl>{items}</dl>")
    if row.message_id:
        link = place.link("d365", **{"in": row.container, "name": row.name})
        body.append(f'<p><a href="{link}">Execution summary in D365</a></p>')
    if possible := actions.possible(found.file):
        body.append("<h2>What you can do</h2>")
        body += [_action(place, found, name, by) for name in possible]
    body += _said_by_d365(found.report)
    if done_before := found.report.get("resolutions"):
        lines = "".join(
            f"<li>{_e(each.get('at'))} {_e(each.get('did'))} by {_e(each.get('by'))}: "
            f"{_e(each.get('why'))}</li>"
            for each in done_before
            if isinstance(each, dict)
        )
        body.append(f"<h2>What was done</h2><ul>{lines}</ul>")
    return _page(place, row.name.rsplit("/", 1)[-1], "file", "".join(body))


def _action(place: Place, found: Detail, name: str, by: str) -> str:
    title, text, button = _ACTIONS[name]
    risk = actions.risk(found.file) if name == "resend" else ""
    warning = f'<p class="note">{_e(risk)}</p>' if risk else ""
    message_id = (
        f'<div><label for="{name}-message">Message id in D365 (GUID)</label>'
        f'<input type="text" id="{name}-message" name="message_id" required autocomplete="off"></div>'
        if name == "receive"
        else ""
    )
    hidden = {
        "do": name,
        "in": found.row.container,
        "name": found.row.name,
        "etag": found.row.etag,
    }
    fields = "".join(
        f'<input type="hidden" name="{key}" value="{_e(value)}">' for key, value in hidden.items()
    )
    return (
        f"<details><summary>{_e(title)}</summary><p>{_e(text)}</p>{warning}"
        f'<form method="post" action="{place.link("act")}">{fields}{message_id}'
        f'<div><label for="{name}-by">Who you are</label><input type="text" id="{name}-by" name="by" '
        f'required maxlength="100" autocomplete="name" value="{_e(by)}"{" readonly" if by else ""}></div>'
        f'<div><label for="{name}-why">Why</label><input type="text" id="{name}-why" name="why" '
        'required maxlength="300" autocomplete="off"></div>'
        f'<label class="check"><input type="checkbox" name="confirm" value="yes" required>'
        "Yes, I have looked at the file and in D365</label>"
        f"<button>{_e(button)}</button></form></details>"
    )


def _said_by_d365(report: Mapping[str, Any]) -> list[str]:
    said = report.get("d365")
    if not isinstance(said, dict) or not said:
        return []
    parts = ["<h2>What D365 says</h2>"]
    errors = said.get("errors")
    if isinstance(errors, list) and errors:
        parts.append("<ul>" + "".join(f"<li>{_e(error)}</li>" for error in errors[:50]) + "</ul>")
    if said.get("executionId"):
        parts.append(f"<p>Execution id: {_e(said['executionId'])}</p>")
    if said.get("log"):
        parts.append(f"<pre>{_e(str(said['log'])[:10_000])}</pre>")
    return parts


# -- the rest -------------------------------------------------------------------------------------


def message(
    place: Place,
    title: str,
    text: str,
    view: str = "message",
    query: Mapping[str, str] | None = None,
) -> str:
    """A page that says one thing, such as why something was not done.

    In place of a `view` with its `query` it loads anew as that does, so that a screen on a wall goes on.
    """
    body = f'<h1>{_e(title)}</h1><p class="note bad" role="alert">{_e(text)}</p>'
    return _page(place, title, view, body, query)


_DONE: Final[Mapping[str, tuple[str, str]]] = {
    "resend": ("It goes to D365 again, as a new version of", "processing"),
    "receive": ("It is tracked under its message id:", "processing"),
    "ask": ("D365 is asked again after", "processing"),
    "dismiss": ("Dismissed:", "dismissed"),
    "redeliver": ("The package lies there once more, as", "exported"),
}


def done(place: Place, do: str, name: str) -> str:
    """What came of a form."""
    text, state = _DONE.get(do, ("Done:", "failed"))
    links = "".join(
        f'<li><a href="{place.link("files", state=each)}">{_e(STATES[each])}</a></li>'
        for each in dict.fromkeys((state, "succeeded", "failed"))
    )
    said = f'<p class="note done" role="status">{_e(text)} {_e(name)}</p><ul>{links}</ul>'
    return _page(place, "Done", "done", f"<h1>Done</h1>{said}")


def check(place: Place, lines: Sequence[Line]) -> str:
    """What the check found."""
    wrong = sum(line.verdict == "wrong" for line in lines)
    unsure = sum(line.verdict == "can't tell" for line in lines)
    said = f"{wrong} wrong" if wrong else "Nothing is wrong"
    said += f", {unsure} can't be told yet" if unsure else ""
    rows = "".join(
        f'<tr><td data-label="Verdict"><span class="state {_e(_VERDICTS[line.verdict])}">'
        f"{_e(line.verdict)}</span></td>"
        f'<th scope="row" data-label="What">{_e(line.what)}</th>'
        f'<td class="wide" data-label="Finding"><span>{_e(line.text)}</span></td></tr>'
        for line in lines
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Verdict", "What", "Finding"))
    style = "bad" if wrong else "done"
    return _page(
        place,
        "Check",
        "check",
        f'<h1>Will it work?</h1><p class="note {style}" role="status">{said}.</p>'
        f'<table class="stack"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f'<p><a href="{place.link("check")}">Check again</a></p>',
    )


_VERDICTS: Final[Mapping[Verdict, str]] = {"ok": "ok", "wrong": "wrong", "can't tell": "unsure"}
