"""The page's requests and responses: one table of views, as HTML or JSON; and who may change something.

A change comes by POST alone. As a form it must come from our own page (`Sec-Fetch-Site`, or else `Origin`), as
JSON it must say so in `Content-Type`, which no other site's form can. So a person who is signed in (Easy Auth)
can't be made to change something by a page elsewhere.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from azure.core.exceptions import AzureError

from shared import deadline
from shared.bridge import Bridge, bridge
from shared.d365.errors import D365Error
from shared.observability.events import redact
from shared.operations import actions, health, pages, views
from shared.operations.actions import Action, NotDone
from shared.operations.pages import Links
from shared.operations.views import Filter
from shared.storage.errors import explained


@dataclass(frozen=True)
class Request:
    """A request."""

    method: str
    url: str
    view: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Response:
    """What is sent back."""

    status: int
    headers: Mapping[str, str]
    body: str


class BadRequest(ValueError):
    """The request makes no sense, or may not be made from there."""


class NotFound(ValueError):
    """What is asked for is not there. The title says what that is, the text where it was looked for."""

    def __init__(self, title: str, text: str) -> None:
        super().__init__(text)
        self.title = title


IN_TIME: Final = 200.0
"""Seconds. After 230 nobody waits for the answer any more (Microsoft Learn, "Azure Functions HTTP trigger",
section Limits)."""

_JSON: Final[Mapping[str, str]] = {
    **pages.HEADERS,
    "Content-Type": "application/json; charset=utf-8",
}

type Query = Mapping[str, str]


# -- the views ------------------------------------------------------------------------------------


def _jobs(at: Bridge, _: Query) -> dict[str, Any]:
    overview = views.overview(at)
    return {
        "jobs": overview.jobs,
        "elsewhere": overview.elsewhere,
        "failing": views.failing(overview.recent),
        "countedAll": overview.counted_all,
        "nextExport": overview.next_export,
        "since": overview.recent.since,
        "endedAll": overview.recent.complete,
        "ended": views.ended(overview.recent),
    }


def _recent(at: Bridge, query: Query) -> dict[str, Any]:
    job = query.get("job", "")
    return {"job": job, "ended": views.recent(at, job)}


def _files(at: Bridge, query: Query) -> dict[str, Any]:
    filter_ = _filter(query)
    listing = views.listing(at, filter_)
    served = at.settings.jobs
    names = [job.name for job in served.imports] + [job.name for job in served.exports]
    return {
        "filter": filter_,
        "files": listing.rows,
        "lookedAt": listing.looked_at,
        "nextToken": listing.next_token,
        "jobNames": list(dict.fromkeys(names)),
    }


def _file(at: Bridge, query: Query) -> dict[str, Any]:
    container, name = query.get("in", ""), query.get("name", "")
    detail = views.detail(at, container, name)
    if detail is None:
        raise NotFound("File not found (it may have moved)", f"There is no {container}/{name}.")
    can = actions.possible(detail.file)
    return {
        **asdict(detail.row),
        "record": detail.file.record,
        "metadata": detail.file.user_metadata,
        "report": detail.report,
        "todo": detail.todo,
        "can": can,
        "risk": actions.risk(detail.file) if "resend" in can else "",
    }


def _check(at: Bridge, _: Query) -> dict[str, Any]:
    lines = list(health.check(at))
    return {"ok": not any(line.verdict == "wrong" for line in lines), "lines": lines}


def _export(at: Bridge, query: Query) -> dict[str, Any]:
    job = query.get("job", "")
    runs = views.runs(at, job)
    if runs is None:
        raise NotFound("Job not found", f"There is no job {job!r} that exports a data project.")
    return {**asdict(runs), "can": ["run"] if runs.etag and not runs.current.under_way else []}


VIEWS: Final[Mapping[str, Callable[[Bridge, Query], dict[str, Any]]]] = {
    "jobs": _jobs,
    "recent": _recent,
    "files": _files,
    "file": _file,
    "check": _check,
    "export": _export,
}
"""What each view shows. It is the JSON of that name, and what `html/{name}.html` is filled with."""


def _show(at: Bridge, view: str, query: Query) -> dict[str, Any]:
    """Raises `NotFound` where there is no such view, and what the view raises."""
    load = VIEWS.get(view)
    if load is None:
        raise NotFound(
            "Page not found", f"There is no page {view!r}. There are {', '.join(VIEWS)}."
        )
    return load(at, query)


# -- HTML -----------------------------------------------------------------------------------------


@deadline.within(IN_TIME)
def page(request: Request) -> Response:
    """A view as HTML, or what came of a form."""
    refresh = request.query.get("refresh", "")
    links = Links(
        root=urlsplit(request.url).path.partition("/operate")[0] + "/operate",
        code=request.query.get("code", ""),
        environments=bridge().settings.environments,
        refresh=refresh if refresh in ("on", "off") else "",
    )

    def message(status: int, title: str, text: str, view: str = "") -> Response:
        data = {"title": title, "text": text}
        return _html(pages.render("message", links, data, view, request.query), status)

    try:
        return _page(bridge(), request, links)
    except BadRequest as error:
        return message(400, "Invalid request", str(error))
    except NotFound as error:
        return message(404, error.title, str(error))
    except NotDone as error:
        return message(409, "Not done", f"{error}.")
    except (AzureError, D365Error) as error:
        # In place of a view the message refreshes as that does, so that a screen on a wall recovers.
        view = "" if request.method == "POST" else request.view or "jobs"
        return message(502, "Request failed", _short(error), view)


def _page(at: Bridge, request: Request, links: Links) -> Response:
    query = request.query
    if request.method == "POST":
        if request.view != "act":
            raise BadRequest("Only operate/act takes a POST.")
        _require_own_page(request.headers)
        fields = {k: v[0] for k, v in parse_qs(request.body.decode("utf-8", "replace")).items()}
        action, name = _act(at, request, fields)
        return _redirect(303, links.to("done", do=action, name=name))
    match request.view or "jobs":
        case "done":
            data = {"do": query.get("do", ""), "name": query.get("name", "")}
            return _html(pages.render("done", links, data))
        case "d365":
            return _redirect(302, _summary_url(at, query))
        case view:
            data = {**_show(at, view, query), "user": _signed_in(request.headers)}
            return _html(pages.render(view, links, data, view, query))


def _html(text: str, status: int = 200) -> Response:
    return Response(status, pages.HEADERS, text)


def _redirect(status: int, address: str) -> Response:
    return Response(status, {**pages.HEADERS, "Location": address}, "")


def _require_own_page(headers: Mapping[str, str]) -> None:
    site = headers.get("sec-fetch-site")
    origin = urlsplit(headers.get("origin", "")).netloc
    own = site == "same-origin" if site else bool(origin) and origin == headers.get("host")
    if not own:
        raise BadRequest("This form was not sent from this page. Nothing was done.")


def _signed_in(headers: Mapping[str, str]) -> str:
    """Who has signed in with Easy Auth, or ""."""
    return headers.get("x-ms-client-principal-name", "")


def _summary_url(at: Bridge, query: Query) -> str:
    """D365's own page on a file's execution, as D365 gives it."""
    detail = views.detail(at, query.get("in", ""), query.get("name", ""))
    job = at.settings.jobs.import_job(detail.row.job) if detail else None
    if detail is None or job is None or not detail.row.message_id:
        raise BadRequest("D365 has no execution of that file.")
    return views.summary_url(at, job, detail)


# -- JSON -----------------------------------------------------------------------------------------


@deadline.within(IN_TIME)
def api(request: Request) -> Response:
    """The same views as JSON; an error is `{"error": text}` with its status."""
    try:
        return _as_json(_api(bridge(), request))
    except BadRequest as error:
        return _as_json({"error": str(error)}, 400)
    except NotFound as error:
        return _as_json({"error": str(error)}, 404)
    except NotDone as error:
        return _as_json({"error": str(error)}, 409)
    except (AzureError, D365Error) as error:
        return _as_json({"error": _short(error)}, 502)


def _api(at: Bridge, request: Request) -> object:
    if request.method != "POST":
        return _show(at, request.view, request.query)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.view != "act" or kind != "application/json":
        raise BadRequest("A change is a POST of application/json to operate/api/act.")
    try:
        fields = json.loads(request.body)
    except ValueError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise BadRequest("The body is not a JSON object.")
    # null is as good as left out.
    action, name = _act(at, request, {k: str(v) for k, v in fields.items() if v is not None})
    return {"did": action, "name": name}


def _as_json(value: object, status: int = 200) -> Response:
    return Response(status, _JSON, json.dumps(value, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, (datetime, date)) else str(value)


# -- both -----------------------------------------------------------------------------------------


def _act(at: Bridge, request: Request, fields: Mapping[str, str]) -> tuple[str, str]:
    """Do an action in the name of who asks for it: the action and the file's name after it.

    Raises `BadRequest` and `NotDone`.
    """
    run = actions.ACTIONS.get(fields.get("do", ""))
    if run is None:
        raise BadRequest(f"do must be one of {', '.join(actions.ACTIONS)}.")
    if fields.get("confirm") not in ("yes", "True"):  # as a form says it, and JSON's true
        raise BadRequest("It was not confirmed. Nothing was done.")
    fields = {**fields, "by": _signed_in(request.headers) or fields.get("by", "")}
    missing = [name for name in ("name", "etag", "by", "why") if not fields.get(name, "").strip()]
    if missing:
        raise BadRequest(f"{' and '.join(missing)} missing. Nothing was done.")
    action = Action(
        fields["name"], fields["etag"], fields["by"], fields["why"], fields.get("message_id", "")
    )
    return fields["do"], run(at, action) or action.name


def _filter(query: Query) -> Filter:
    filter_ = Filter(
        state=query.get("state") or "failed",
        job=query.get("job", "").strip(),
        name=query.get("name", "")[:1024],
        since=_day(query.get("since", "")),
        until=_day(query.get("until", "")),
        token=query.get("token", ""),
    )
    if filter_.state not in views.STATES:
        raise BadRequest(f"state must be one of {', '.join(views.STATES)}.")
    return filter_


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise BadRequest(f"{text!r} is not a day such as 2026-11-23.") from error


def _short(error: Exception) -> str:
    """An error in one line, without secrets."""
    return redact(explained(error).split("\n", 1)[0])
