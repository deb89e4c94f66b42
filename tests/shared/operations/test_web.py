"""What the page and its JSON answer to a request."""

import pytest
from azure.core.exceptions import ServiceRequestError

from shared import deadline
from shared.bridge import Bridge
from shared.operations import views, web
from shared.operations.web import Request


def test_a_screen_on_a_wall_goes_on_after_an_error(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What refreshes does so in its error's place too."""
    monkeypatch.setattr(web, "bridge", lambda: bridge)

    def broken(*_: object) -> None:
        raise ServiceRequestError("not reached")

    for name in ("overview", "recent", "listing"):
        monkeypatch.setattr(views, name, broken)
    url = "https://app.example/api/operate"

    def refreshes(view: str, **query: str) -> bool:
        request = Request("GET", f"{url}/{view}", view, {"view": "x", **query}, {}, b"")
        response = web.page(request)
        assert (response.status, "not reached" in response.body) == (502, True)
        return 'http-equiv="refresh"' in response.body

    assert refreshes("")
    assert refreshes("recent")
    assert not refreshes("", refresh="off")
    assert not refreshes("files", state="held")
    assert refreshes("files", state="held", refresh="on")


@pytest.mark.parametrize(("answer", "part"), [("page", "_page"), ("api", "_api")])
def test_a_request_to_the_page_has_less_time_than_azure_waits_for_it(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, answer: str, part: str
) -> None:
    """230 seconds, each time anew."""
    left: list[float] = []
    monkeypatch.setattr(web, "bridge", lambda: bridge)
    monkeypatch.setattr(web, part, lambda *_: left.append(deadline.left()))
    request = web.Request("GET", "https://x/api/operate", "jobs", {}, {}, b"")
    for _ in range(2):
        getattr(web, answer)(request)
    assert [100 < seconds < 230 for seconds in left] == [True, True]
