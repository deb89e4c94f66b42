"""The app settings, read once from the environment into one value, every mistake listed.

The storage settings follow the Functions convention for connections, so that a trigger's binding and our
own clients read the same ones (Microsoft Learn, "Azure Blob storage trigger and bindings", section
Connections): `DataStorage` is a connection string (local only); in Azure `DataStorage__blobServiceUri` and
`DataStorage__queueServiceUri` name the services, and the identity comes from `azure-identity`'s environment.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec.structs import replace

from shared.config import jobs, ncrontab
from shared.config.environments import ONLY, Environment, InvalidUrl, is_loopback, normalized
from shared.config.jobs import ExportJob, ImportJob

EXPORT_SCHEDULE: Final = "0 */5 * * * *"
RECONCILE_SCHEDULE: Final = "30 */5 * * * *"
EXPORT_PARALLELISM: Final = 8
"""Modest: D365 allows 52 requests at once and 6,000 in five minutes (Microsoft Learn, "Service protection API
limits"), and others work there too."""
FUNCTION_TIMEOUT: Final = timedelta(minutes=30)
"""Flex Consumption's default, for a host.json that names none."""


class InvalidSettings(ValueError):
    """An app setting is missing or wrong. The message lists every mistake and says what to set."""


@dataclass(frozen=True)
class Storage:
    """Where the data account is: a connection string, or the two service URIs with an identity."""

    connection_string: str | None
    blob_service_uri: str | None
    queue_service_uri: str | None
    client_id: str | None


@dataclass(frozen=True)
class Registration:
    """An app registration that trusts the managed identity, and is of the identity's own tenant: another is
    refused (AADSTS700236). For a D365 in another tenant it is multi-tenant."""

    tenant_id: str
    """D365's, which issues the token."""
    client_id: str
    identity: str
    """The client id of the managed identity that it trusts."""


@dataclass(frozen=True)
class Settings:
    """Everything that the app reads from its environment."""

    environments: tuple[Environment, ...]
    """At least one; the addresses are `https://host`, without a slash at the end. One that is to be asked as an
    app registration has its `tenant_id` and `client_id`."""
    storage: Storage
    jobs: jobs.Jobs
    export_parallelism: int
    """So many messages of export queues are served at once, over all jobs of an environment."""
    function_timeout: timedelta
    """After this the host ends an invocation: no run may last longer, and a claim older than this is dead."""
    exports_telemetry: bool = False
    """Whether traces and metrics go to a collector of OpenTelemetry's."""
    identity: str = ""
    """The client id of the managed identity that app registrations trust."""

    def environment_of(self, job: ExportJob | ImportJob) -> Environment:
        """The environment that a job names, or the only one there is."""
        named = (each for each in self.environments if each.name == job.environment)
        return next(named, self.environments[0])

    def url_setting(self, environment: Environment) -> str:
        """Where a person finds an environment's address, for the text of an error."""
        in_file = bool(self.jobs.environments)
        return f"the url of {environment.name} in the jobs file" if in_file else "D365_URL"

    def registration(self, environment: Environment) -> Registration | None:
        """Who we are to an environment, where that is not the managed identity itself."""
        if not environment.tenant_id or not environment.client_id:
            return None
        return Registration(environment.tenant_id, environment.client_id, self.identity)


def schedule(name: str, default: str) -> str:
    """The NCRONTAB text of a timer: the app setting as it is, or the default where that is blank."""
    text = os.environ.get(name, "")
    return text if text.strip() else default


def load(environment: Mapping[str, str] = os.environ, app: Path | None = None) -> Settings:
    """Read the settings and the jobs file that they name.

    `app` is the folder of host.json and of a relative JOBS_FILE. Raises `InvalidSettings` with every
    mistake of the settings and of the jobs file, and `jobs.InvalidJobs` where that alone is wrong.
    """
    app = app or Path(__file__).resolve().parents[2]
    mistakes: list[str] = []
    url = _d365_url(environment.get("D365_URL", ""), mistakes)
    storage = _storage(environment, mistakes)
    timeout = _function_timeout(environment, app, mistakes)
    parallelism = environment.get("EXPORT_PARALLELISM", "").strip() or str(EXPORT_PARALLELISM)
    if not parallelism.isdecimal() or not 1 <= int(parallelism) <= 52:
        mistakes.append(f"EXPORT_PARALLELISM: must be a number from 1 to 52, not {parallelism}")
    registration = _registration(environment, mistakes)
    for name in ("EXPORT_SCHEDULE", "RECONCILE_SCHEDULE"):
        _check_schedule(name, environment.get(name, ""), mistakes)
    missing = not environment.get("D365_URL", "").strip()
    try:
        served = jobs.load(app / (environment.get("JOBS_FILE", "").strip() or "jobs.json"))
    except jobs.InvalidJobs as error:
        if missing and not error.names_environments:
            mistakes.append(_NO_ENVIRONMENT)
        if mistakes:
            raise InvalidSettings(f"{_listed(mistakes)}\n{error}") from error
        raise
    environments = _environments(served, url, registration, mistakes)
    if missing and not environments:
        mistakes.append(_NO_ENVIRONMENT)
    if mistakes:
        raise InvalidSettings(_listed(mistakes))
    collector = bool(environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip())
    identity = environment.get("AZURE_CLIENT_ID", "").strip()
    return Settings(environments, storage, served, int(parallelism), timeout, collector, identity)


_NO_ENVIRONMENT: Final = (
    "D365_URL: missing; set it to your environment, https://….dynamics.com, or name environments in the jobs "
    "file"
)


def _listed(mistakes: list[str]) -> str:
    return "app settings:" + "".join(f"\n  - {mistake}" for mistake in mistakes)


def _check_schedule(name: str, text: str, mistakes: list[str]) -> None:
    """With a schedule that it can't read the host does not start the app."""
    if not text.strip():
        return  # the default
    try:
        ncrontab.check(text)
    except ncrontab.InvalidSchedule as error:
        mistakes.append(f"{name}: {error}")


def _registration(environment: Mapping[str, str], mistakes: list[str]) -> Registration | None:
    names = ("D365_TENANT_ID", "D365_CLIENT_ID")
    tenant, client = (environment.get(name, "").strip() for name in names)
    if bool(tenant) != bool(client):
        mistakes.append("D365_TENANT_ID and D365_CLIENT_ID: set both, or neither")
    if not tenant or not client:
        return None
    return Registration(tenant, client, environment.get("AZURE_CLIENT_ID", "").strip())


def _environments(
    served: jobs.Jobs, url: str, registration: Registration | None, mistakes: list[str]
) -> tuple[Environment, ...]:
    """The jobs file's environments, or the one of D365_URL; each with its app registration, if it has one."""
    own = served.environments or ((Environment(ONLY, url),) if url else ())
    if url and url not in (each.url for each in own):
        names = ", ".join(each.name for each in own)
        mistakes.append(f"D365_URL: leave it empty; the jobs file names the environments {names}")
    tenant, client = (
        (registration.tenant_id, registration.client_id) if registration else (None, None)
    )
    return tuple(
        each if each.client_id else replace(each, tenant_id=tenant, client_id=client)
        for each in own
    )


def _d365_url(text: str, mistakes: list[str]) -> str:
    """The setting's address, "" where there is none."""
    try:
        return normalized(text) if text.strip() else ""
    except InvalidUrl as error:
        mistakes.append(f"D365_URL: {error}")
        return ""


def _storage(environment: Mapping[str, str], mistakes: list[str]) -> Storage:
    def get(name: str) -> str | None:
        return environment.get(name, "").strip() or None

    storage = Storage(
        connection_string=get("DataStorage"),
        blob_service_uri=get("DataStorage__blobServiceUri"),
        queue_service_uri=get("DataStorage__queueServiceUri"),
        client_id=get("DataStorage__clientId"),
    )
    if storage.connection_string:
        return storage
    for name, value in (
        ("DataStorage__blobServiceUri", storage.blob_service_uri),
        ("DataStorage__queueServiceUri", storage.queue_service_uri),
    ):
        if not value:
            mistakes.append(f"{name}: missing (or set DataStorage to a connection string, locally)")
        elif urlsplit(value).scheme != "https" and not is_loopback(urlsplit(value).hostname or ""):
            mistakes.append(f"{name}: must be https")
    return storage


def _function_timeout(environment: Mapping[str, str], app: Path, mistakes: list[str]) -> timedelta:
    """host.json's functionTimeout, or the app setting that overrides it (Microsoft Learn, "host.json
    reference for Azure Functions 2.x and later", section Override host.json values)."""
    name = "AzureFunctionsJobHost__functionTimeout"
    text = environment.get(name, "").strip()
    if not text:
        name = "host.json functionTimeout"
        try:
            host = json.loads((app / "host.json").read_text(encoding="utf-8"))
            text = str(host.get("functionTimeout", ""))
        except FileNotFoundError:
            text = ""
        except ValueError as error:
            mistakes.append(f"host.json: not valid JSON: {error}")
    if not text:
        return FUNCTION_TIMEOUT
    match = re.fullmatch(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})", text)
    if not match:
        mistakes.append(f"{name}: must be hh:mm:ss, not {text}; an unbounded one is not supported")
        return FUNCTION_TIMEOUT
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
