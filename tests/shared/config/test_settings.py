"""The app settings: read once, every mistake named with what to set."""

from datetime import timedelta
from pathlib import Path

import pytest

from shared.config import jobs, settings

GOOD = {
    "D365_URL": "https://contoso.operations.dynamics.com/",
    "DataStorage": "UseDevelopmentStorage=true",
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "jobs.json").write_text("{}")
    return tmp_path


def test_the_url_loses_its_slash_and_keeps_its_port(app: Path) -> None:
    """So that `{url}/.default` is the right scope."""
    assert settings.load(GOOD, app).d365_url == "https://contoso.operations.dynamics.com"
    for url in (
        "https://contoso.operations.dynamics.com:443",
        "https://Contoso.Operations.Dynamics.com",
    ):
        assert (
            settings.load({**GOOD, "D365_URL": url}, app).d365_url
            == settings.load(GOOD, app).d365_url
        )
    local = settings.load({**GOOD, "D365_URL": "http://127.0.0.1:8080/"}, app)
    assert local.d365_url == "http://127.0.0.1:8080"


def test_identity_based_storage_needs_both_services(app: Path) -> None:
    """The Functions convention: blob and queue service URI."""
    uris = {
        "DataStorage__blobServiceUri": "https://x.blob.core.windows.net",
        "DataStorage__queueServiceUri": "https://x.queue.core.windows.net",
        "DataStorage__clientId": "c",
    }
    found = settings.load({"D365_URL": GOOD["D365_URL"], **uris}, app).storage
    assert (found.blob_service_uri, found.client_id) == (uris["DataStorage__blobServiceUri"], "c")


def test_all_mistakes_are_told_at_once(app: Path) -> None:
    """One start, one list."""
    with pytest.raises(settings.InvalidSettings) as caught:
        settings.load({"AzureFunctionsJobHost__functionTimeout": "-1"}, app)
    for name in (
        "D365_URL: missing",
        "DataStorage__blobServiceUri: missing",
        "DataStorage__queueServiceUri: missing",
        "AzureFunctionsJobHost__functionTimeout",
    ):
        assert name in str(caught.value)


def test_mistakes_of_the_jobs_file_are_told_with_those_of_the_settings(app: Path) -> None:
    """And its own alone where the settings are right."""
    (app / "jobs.json").write_text('{"imports": [{"name": "a/b"}], "more": 1}')
    mistakes = ("imports[0].name: must be", "imports[0].activityId: missing", "more: unknown")
    with pytest.raises(settings.InvalidSettings) as caught:
        settings.load({**GOOD, "D365_URL": "", "EXPORT_SCHEDULE": "every day"}, app)
    for text in ("D365_URL: missing", "EXPORT_SCHEDULE: it must be NCRONTAB", *mistakes):
        assert text in str(caught.value)
    with pytest.raises(jobs.InvalidJobs):
        settings.load(GOOD, app)


def test_a_schedule_that_the_host_would_not_take_is_told(app: Path) -> None:
    """Before the host refuses to start the app, and of both timers at once."""
    wrong = {"EXPORT_SCHEDULE": "0 0 8 * * 7", "RECONCILE_SCHEDULE": "00:05:00"}
    with pytest.raises(settings.InvalidSettings) as caught:
        settings.load({**GOOD, **wrong}, app)
    assert "EXPORT_SCHEDULE: the day of week '7' must be" in str(caught.value)
    assert "RECONCILE_SCHEDULE: it must be NCRONTAB with six fields" in str(caught.value)


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        " 0 */5 * * * * ",
        "30 */5 * * * *",
        "0 0 0 1 1 *",
        "0 0 9-17/2 * * 1-5",
        "0 5,10,55 * 1-15,31 Jan,July Mon-Fri",
        "0 0 9 * * Fri,Sat,Sun",
    ],
)
def test_a_schedule_may_be_all_that_ncrontab_is(schedule: str, app: Path) -> None:
    """Lists, ranges, steps and names; none stands for the default."""
    settings.load({**GOOD, "EXPORT_SCHEDULE": schedule, "RECONCILE_SCHEDULE": schedule}, app)


@pytest.mark.parametrize(
    "url",
    [
        "http://contoso.operations.dynamics.com",
        "http://127.0.0.1.evil.example",
        "contoso.operations.dynamics.com",
        "https://",
        "https://host/path",
        "https://host?x=1",
        "https://user:pass@host",
        "https://host:port",
        "https://[::1",
        "ftp://host",
    ],
)
def test_a_url_that_the_token_must_not_go_to_is_refused(url: str, app: Path) -> None:
    """The token goes to one host over TLS; http is for a loopback host alone (A1)."""
    with pytest.raises(settings.InvalidSettings, match="D365_URL"):
        settings.load({**GOOD, "D365_URL": url}, app)


def test_the_time_limit_is_the_hosts(app: Path) -> None:
    """host.json says it, the app setting overrides it, and without both the plan's default holds."""
    assert settings.load(GOOD, app).function_timeout == timedelta(minutes=30)
    (app / "host.json").write_text('{"functionTimeout": "00:10:00"}')
    assert settings.load(GOOD, app).function_timeout == timedelta(minutes=10)
    overridden = {**GOOD, "AzureFunctionsJobHost__functionTimeout": "1.02:00:05"}
    assert settings.load(overridden, app).function_timeout == timedelta(days=1, hours=2, seconds=5)
