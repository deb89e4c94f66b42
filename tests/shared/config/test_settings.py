"""The app settings: read once, every mistake named with what to set."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from shared.config import jobs, settings
from tests.helpers import APP_SETTINGS

TWO = [
    {"name": "production", "url": "https://contoso.operations.dynamics.com"},
    {"name": "test", "url": "https://test.example", "tenantId": "t2", "clientId": "c2"},
]
STORAGE = {"DataStorage": APP_SETTINGS["DataStorage"]}


def test_the_jobs_file_may_name_the_environments(app: Path) -> None:
    """Then no setting need. An environment without a registration of its own has the setting's."""
    (app / "jobs.json").write_text(json.dumps({"environments": TWO}))
    identity = {"D365_TENANT_ID": "t1", "D365_CLIENT_ID": "c1", "AZURE_CLIENT_ID": "i"}
    app_settings = settings.load({**STORAGE, **identity}, app)
    production, test = app_settings.environments
    assert (production.name, production.url) == ("production", TWO[0]["url"])
    assert app_settings.registration(production) == settings.Registration("t1", "c1", "i")
    assert app_settings.registration(test) == settings.Registration("t2", "c2", "i")
    app_settings = settings.load(STORAGE, app)
    assert app_settings.registration(app_settings.environments[0]) is None


def test_a_url_beside_the_jobs_files_environments_must_be_one_of_theirs(app: Path) -> None:
    """In any spelling; another would be asked by no job."""
    (app / "jobs.json").write_text(json.dumps({"environments": TWO}))
    assert len(settings.load(APP_SETTINGS, app).environments) == 2
    with pytest.raises(settings.InvalidSettings, match=r"D365_URL: .*production, test"):
        settings.load({**APP_SETTINGS, "D365_URL": "https://other.example"}, app)


def test_the_setting_is_not_missed_where_the_jobs_file_is_wrong_but_names_environments(
    app: Path,
) -> None:
    """Only what is wrong is told."""
    (app / "jobs.json").write_text(json.dumps({"environments": TWO, "more": 1}))
    with pytest.raises(jobs.InvalidJobs):
        settings.load(STORAGE, app)


def test_a_job_has_the_environment_that_it_names_or_the_only_one(app: Path) -> None:
    """By whichever setting it came."""
    job = {"name": "a", "activityId": "0a1b2c3d-0000-4000-8000-000000000001"}
    (app / "jobs.json").write_text(json.dumps({"exports": [job]}))
    app_settings = settings.load(APP_SETTINGS, app)
    assert app_settings.environment_of(app_settings.jobs.exports[0]).name == "default"
    named = {"environments": TWO, "exports": [{**job, "environment": "test"}]}
    (app / "jobs.json").write_text(json.dumps(named))
    app_settings = settings.load(STORAGE, app)
    assert app_settings.environment_of(app_settings.jobs.exports[0]).url == "https://test.example"


def test_identity_based_storage_needs_both_services(app: Path) -> None:
    """The Functions convention: blob and queue service URI."""
    uris = {
        "DataStorage__blobServiceUri": "https://x.blob.core.windows.net",
        "DataStorage__queueServiceUri": "https://x.queue.core.windows.net",
        "DataStorage__clientId": "c",
    }
    storage = settings.load({"D365_URL": APP_SETTINGS["D365_URL"], **uris}, app).storage
    assert (storage.blob_service_uri, storage.client_id) == (
        uris["DataStorage__blobServiceUri"],
        "c",
    )


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
        settings.load({**APP_SETTINGS, "D365_URL": "", "EXPORT_SCHEDULE": "every day"}, app)
    for text in ("D365_URL: missing", "EXPORT_SCHEDULE: it must be NCRONTAB", *mistakes):
        assert text in str(caught.value)
    with pytest.raises(jobs.InvalidJobs):
        settings.load(APP_SETTINGS, app)


def test_a_schedule_that_the_host_would_not_take_is_told(app: Path) -> None:
    """Before the host refuses to start the app, and of both timers at once."""
    wrong = {"EXPORT_SCHEDULE": "0 0 8 * * 7", "RECONCILE_SCHEDULE": "00:05:00"}
    with pytest.raises(settings.InvalidSettings) as caught:
        settings.load({**APP_SETTINGS, **wrong}, app)
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
    settings.load(
        {**APP_SETTINGS, "EXPORT_SCHEDULE": schedule, "RECONCILE_SCHEDULE": schedule}, app
    )


def test_the_time_limit_is_the_hosts(app: Path) -> None:
    """host.json says it, the app setting overrides it, and without both the plan's default holds."""
    assert settings.load(APP_SETTINGS, app).function_timeout == timedelta(minutes=30)
    (app / "host.json").write_text('{"functionTimeout": "00:10:00"}')
    assert settings.load(APP_SETTINGS, app).function_timeout == timedelta(minutes=10)
    overridden = {**APP_SETTINGS, "AzureFunctionsJobHost__functionTimeout": "1.02:00:05"}
    assert settings.load(overridden, app).function_timeout == timedelta(days=1, hours=2, seconds=5)
