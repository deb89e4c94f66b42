"""The page's requests and answers: which view, which filter, who may change something, HTML or JSON.

A change comes by POST alone. As a form it must come from our own page (`Sec-Fetch-Site`, or else `Origin`), as
JSON it must say so in `Content-Type`, which no other site's form can. So a person who is signed in (Easy Auth)
can't be made to change something by a page elsewhere.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from azure.core.exceptions import AzureError, HttpResponseError

from shared import deadline
from shared.bridge import Bridge, bridge
from shared.d365.errors import D365Error
from shared.observability.events import redact
from shared.operations import actions, health, pages, views
from shared.operations.actions import Action, NotDone
from shared.operations.pages import Place
from shared.operations.views import Filter
from shared.storage.errors import error_code


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    url: str
    view: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int
    headers: Mapping[str, str]
    body: str


class BadRequest(ValueError):
    """The request makes no sense, or may not be made from there."""


class NotThere(ValueError):
    """The file that is asked for is not there (any more)."""


IN_TIME: Final = 200.0
"""Seconds. After 230 nobody waits for the answer any more (Microsoft Learn, "Azure Functions HTTP trigger",
section Limits)."""

_JSON: Final[Mapping[str, str]] = {
    **pages.HEADERS,
    "Content-Type": "application/json; charset=utf-8",
}


# -- HTML -----------------------------------------------------------------------------------------


@deadline.within(IN_TIME)
def page(asked: Asked) -> Answer:
    """A view as HTML, or what came of a form."""
    refresh = asked.query.get("refresh", "")
    place = Place(
        root=urlsplit(asked.url).path.partition("/operate")[0] + "/operate",
        code=asked.query.get("code", ""),
        d365_url=bridge().settings.environments[0].url,
        refresh=refresh if refresh in ("on", "off") else "",
    )
    try:
        return _view(place, asked)
    except BadRequest as error:
        return _html(pages.message(place, "That can't be", str(error)), 400)
    except NotDone as error:
        return _html(pages.message(place, "Not done", f"{error}."), 409)
    except (AzureError, D365Error) as error:
        view = "message" if asked.method == "POST" else asked.view
        query = {k: v for k, v in asked.query.items() if k not in ("code", "refresh")}
        text = pages.message(place, "That did not work", _short(error), view, query)
        return _html(text, 502)


def _view(place: Place, asked: Asked) -> Answer:
    at, query = bridge(), asked.query
    if asked.method == "POST":
        if asked.view != "act":
            raise BadRequest("only operate/act takes a POST")
        _require_own_page(asked.headers)
        fields = {k: v[0] for k, v in parse_qs(asked.body.decode("utf-8", "replace")).items()}
        do, became = _act(at, asked, fields)
        to = place.address("done", do=do, name=became or fields["name"])
        return Answer(303, {**pages.HEADERS, "Location": to}, "")
    match asked.view:
        case "":
            return _html(pages.overview(place, views.overview(at)))
        case "lately":
            job = query.get("job", "")
            return _html(pages.lately(place, views.lately(at, job), job))
        case "files":
            wanted = _filter(query)
            names = [job.name for job in at.settings.jobs.imports]
            names += [job.name for job in at.settings.jobs.exports if job.name not in names]
            return _html(pages.listing(place, wanted, views.listing(at, wanted), names))
        case "file":
            found = views.detail(at, query.get("in", ""), query.get("name", ""))
            if found is None:
                text = f"{query.get('in')}/{query.get('name')} is not there (any more)."
                return _html(pages.message(place, "It has gone on", text), 404)
            return _html(pages.file(place, found, _signed_in(asked.headers)))
        case "check":
            return _html(pages.check(place, list(health.check(at))))
        case "done":
            return _html(pages.done(place, query.get("do", ""), query.get("name", "")))
        case "d365":
            return Answer(302, {**pages.HEADERS, "Location": _summary_url(at, query)}, "")
        case _:
            text = f"There is no page {asked.view!r}."
            return _html(pages.message(place, "Nothing is here", text), 404)


def _html(text: str, status: int = 200) -> Answer:
    return Answer(status, pages.HEADERS, text)


def _require_own_page(headers: Mapping[str, str]) -> None:
    site = headers.get("sec-fetch-site")
    origin = urlsplit(headers.get("origin", "")).netloc
    own = site == "same-origin" if site else bool(origin) and origin == headers.get("host")
    if not own:
        raise BadRequest("This form was not sent from this page. Nothing was done.")


def _signed_in(headers: Mapping[str, str]) -> str:
    """Who has signed in with Easy Auth, or ""."""
    return headers.get("x-ms-client-principal-name", "")


def _summary_url(at: Bridge, query: Mapping[str, str]) -> str:
    """D365's own page on a file's execution, as D365 gives it."""
    found = views.detail(at, query.get("in", ""), query.get("name", ""))
    job = at.settings.jobs.import_job(found.row.job) if found else None
    if found is None or job is None or not found.row.message_id:
        raise BadRequest("D365 has no execution of that file.")
    return views.summary_url(at, job, found)


# -- JSON -----------------------------------------------------------------------------------------


@deadline.within(IN_TIME)
def api(asked: Asked) -> Answer:
    """The same views as JSON; an error is `{"error": text}` with its status."""
    try:
        return _as_json(_api(asked))
    except BadRequest as error:
        return _as_json({"error": str(error)}, 400)
    except NotThere as error:
        return _as_json({"error": str(error)}, 404)
    except NotDone as error:
        return _as_json({"error": str(error)}, 409)
    except (AzureError, D365Error) as error:
        return _as_json({"error": _short(error)}, 502)


def _api(asked: Asked) -> object:
    at = bridge()
    if asked.method == "POST":
        kind = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
        if asked.view != "act" or kind != "application/json":
            raise BadRequest("a change is a POST of application/json to operate/api/act")
        try:
            fields = json.loads(asked.body)
        except ValueError as error:
            raise BadRequest(f"not valid JSON: {error}") from error
        if not isinstance(fields, dict):
            raise BadRequest("not an object")
        # null is as good as left out.
        do, became = _act(at, asked, {k: str(v) for k, v in fields.items() if v is not None})
        return {"did": do, "name": became or fields["name"]}
    match asked.view:
        case "jobs":
            found = views.overview(at)
            return {
                "jobs": [asdict(job) for job in found.jobs],
                "elsewhere": found.elsewhere,
                "failing": [asdict(each) for each in views.failing(found.recent)],
                "countedAll": found.counted_all,
                "nextExport": found.next_export,
                "since": found.recent.since,
                "endedAll": found.recent.complete,
                "ended": [asdict(each) for each in views.ended(found.recent)],
            }
        case "lately":
            lately = views.lately(at, asked.query.get("job", ""))
            return {"ended": [asdict(each) for each in lately]}
        case "files":
            listing = views.listing(at, _filter(asked.query))
            rows = [asdict(row) for row in listing.rows]
            return {
                "files": rows,
                "lookedAt": listing.looked_at,
                "nextToken": listing.next_token,
            }
        case "file":
            detail = views.detail(at, asked.query.get("in", ""), asked.query.get("name", ""))
            if detail is None:
                raise NotThere("that file is not there (any more)")
            return {
                **asdict(detail.row),
                "record": asdict(detail.file.record),
                "report": detail.report,
                "can": actions.possible(detail.file),
            }
        case "check":
            lines = list(health.check(at))
            wrong = any(line.verdict == "wrong" for line in lines)
            return {"ok": not wrong, "lines": [asdict(line) for line in lines]}
        case _:
            raise BadRequest("there are jobs, lately, files, file, check and act")


def _as_json(value: object, status: int = 200) -> Answer:
    return Answer(status, _JSON, json.dumps(value, default=_plain, ensure_ascii=False))


def _plain(value: object) -> Any:
    return value.isoformat() if isinstance(value, (datetime, date)) else str(value)


# -- both -----------------------------------------------------------------------------------------


def _act(at: Bridge, asked: Asked, fields: Mapping[str, str]) -> tuple[str, str | None]:
    """Do what was asked, with who asked for it. Raises `BadRequest` and `NotDone`."""
    do = actions.ACTIONS.get(fields.get("do", ""))
    if do is None:
        raise BadRequest(f"do must be one of {', '.join(actions.ACTIONS)}")
    if fields.get("confirm") not in ("yes", "True"):  # as a form says it, and JSON's true
        raise BadRequest("it was not confirmed; nothing was done")
    given = {**fields, "by": _signed_in(asked.headers) or fields.get("by", "")}
    missing = [name for name in ("name", "etag", "by", "why") if not given.get(name, "").strip()]
    if missing:
        raise BadRequest(f"{' and '.join(missing)} missing; nothing was done")
    action = Action(
        given["name"], given["etag"], given["by"], given["why"], given.get("message_id", "")
    )
    return fields["do"], do(at, action)


def _filter(query: Mapping[str, str]) -> Filter:
    found = Filter(
        state=query.get("state") or "failed",
        job=query.get("job", "").strip(),
        name=query.get("name", "")[:1024],
        token=query.get("token", ""),
    )
    if found.state not in views.STATES:
        raise BadRequest(f"state must be one of {', '.join(views.STATES)}")
    return replace(found, since=_day(query.get("since", "")), until=_day(query.get("until", "")))


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise BadRequest(f"{text!r} is not a day such as 2026-11-23") from error


def _short(error: Exception) -> str:
    """An error in a line: storage's own code for an error of storage."""
    if isinstance(error, HttpResponseError):
        denied = (
            ": the app's identity lacks a role on the data account"
            if error.status_code == 403
            else ""
        )
        return f"storage answered {error.status_code} ({error_code(error)}){denied}"
    return redact(str(unquote(str(error)).split("\n", 1)[0]))
