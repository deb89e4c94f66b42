"""The check: tries each thing that a file or a package needs, before the first one comes.

It tries what the app does, with what changes nothing: no message is taken from D365, nothing is sent there,
and what is written into storage is a probe, which every flow passes by. What can't be told without taking a
message is said to be so, with what the journal knows of it.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal
from uuid import uuid4

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)

from shared import clock, deadline
from shared.bridge import Bridge
from shared.config import ncrontab
from shared.config.environments import Environment
from shared.config.jobs import ExportJob, ImportJob
from shared.config.settings import EXPORT_SCHEDULE, Registration, schedule
from shared.d365 import MessageId
from shared.d365.errors import D365Error, Denied, Rejected
from shared.exports import execution
from shared.exports.execution import Outcome
from shared.identity import holder, new_d365_credential, why_no_token
from shared.imports import templates
from shared.imports.templates import InvalidTemplate
from shared.observability.events import about, redact
from shared.operations import journal
from shared.operations.journal import Entry, Recent
from shared.storage import files, names
from shared.storage.account import (
    CONTAINERS,
    EXPORTS,
    IMPORTS,
    NOTIFICATIONS_QUEUE,
    POISON_QUEUES,
    STATUS_QUEUE,
)
from shared.storage.errors import explained
from shared.threads import Pool

Verdict = Literal["ok", "wrong", "can't tell"]

EVENT_SECONDS: Final = 20.0
"""For so long the page waits for the probe's event. Event Grid takes seconds, an app that sleeps longer."""

STALE: Final = timedelta(minutes=10)
"""So old is a probe only if its check broke off."""


@dataclass(frozen=True)
class Line:
    """One thing: whether it is well, and if not, what is wrong and how to mend it."""

    what: str
    verdict: Verdict
    text: str


def check(bridge: Bridge, event_seconds: float = EVENT_SECONDS) -> Iterator[Line]:
    """Try everything, one line at a time. Raises nothing that storage or D365 can cause."""
    yield _jobs(bridge)
    recent = _recent(bridge)
    environments = bridge.settings.environments
    pool = Pool(len(environments), "check")
    # At once, and not for all of the time: an environment that does not answer leaves the others theirs.
    with deadline.within(deadline.left() / 2):
        tried = [
            pool.submit(about(environment=each.name)(_environment), bridge, each, recent)
            for each in environments
        ]
    for lines in tried:
        yield from lines.result()
    pool.shutdown(wait=False)
    for name in (*CONTAINERS, journal.JOURNAL):
        if name != IMPORTS:
            yield _tried(f"container {name}", lambda name=name: _container(bridge, name))  # type: ignore[misc]
    yield _tried(f"queue {STATUS_QUEUE}", lambda: _queue(bridge))
    yield _tried(f"queue {NOTIFICATIONS_QUEUE}", lambda: _notifications(bridge))
    yield _tried("poison queues", lambda: _poison(bridge))
    yield _tried("event of a dropped file", lambda: _event(bridge, event_seconds))


# -- the jobs file and D365 -----------------------------------------------------------------------


def _jobs(bridge: Bridge) -> Line:
    jobs = bridge.settings.jobs
    if not jobs.imports and not jobs.exports:
        return Line("jobs file", "wrong", "It names no job, so nothing runs: add one to jobs.json.")
    paused = [job.name for job in jobs.imports if not job.enabled]
    paused += [job.name for job in jobs.exports if not job.enabled]
    text = f"{len(jobs.imports)} import jobs, {len(jobs.exports)} export jobs"
    return Line(
        "jobs file", "ok", text + (f"; paused: {', '.join(paused)}" if paused else "") + "."
    )


def _environment(bridge: Bridge, environment: Environment, recent: Recent) -> list[Line]:
    """All of one environment: sign-in, whether it answers, its jobs."""
    jobs = bridge.settings.jobs
    who, token = _token(bridge, environment)
    answers = _d365(bridge, environment, who)
    lines = [token, answers]
    for job in jobs.imports:
        if bridge.settings.environment_of(job) == environment:
            lines.append(_import_job(bridge, job, recent, asks=answers.verdict != "wrong"))
            if job.template:
                lines.append(
                    _tried(f"template of {job.name}", lambda job=job: _template(bridge, job))  # type: ignore[misc]
                )
    lines += [
        _project_job(bridge, job) if job.api == "package" else _export_job(job, recent)
        for job in jobs.exports
        if bridge.settings.environment_of(job) == environment
    ]
    return lines


def _of_environment(bridge: Bridge, what: str, environment: Environment) -> str:
    """What a line is about, with the environment where there are several."""
    several = len(bridge.settings.environments) > 1
    return f"{what} of {environment.name}" if several else what


def _token(bridge: Bridge, environment: Environment) -> tuple[str, Line]:
    """Who D365 sees, too, or an empty text."""
    what, url = _of_environment(bridge, "token", environment), environment.url
    registration = bridge.settings.registration(environment)
    try:
        token = new_d365_credential(registration).get_token(f"{url}/.default")
    except AzureError as error:
        why = redact(why_no_token(error))
        setting = bridge.settings.url_setting(environment)
        text = f"No token for {url} could be had: {why} {_entra_says(why, setting, registration)}"
        return "", Line(what, "wrong", text)
    who = holder(token.token)
    return who, Line(what, "ok", f"There is one for {url}" + (f", for {who}." if who else "."))


def _entra_says(error: str, setting: str, registration: Registration | None) -> str:
    """What to do about an error of Entra's (Microsoft Learn, "Microsoft Entra authentication and authorization
    error codes")."""
    client = registration.client_id if registration else "D365_CLIENT_ID"
    tenant = registration.tenant_id if registration else "D365_TENANT_ID"
    code = re.search("AADSTS[0-9]+", error)
    match code and code[0]:
        case "AADSTS70021" | "AADSTS700211" | "AADSTS700213":
            return (
                f"The app registration {client} does not trust the app's identity: give it the federated "
                "credential that the deployment printed (docs/deploy.md). A new one takes minutes to count."
            )
        case "AADSTS700236":
            return (
                f"The app registration {client} is of another tenant than the app's identity: make it in "
                "the identity's own, multi-tenant (docs/deploy.md)."
            )
        case "AADSTS700016" | "AADSTS7000229":
            return (
                f"The tenant {tenant} does not know the app registration {client}: an administrator "
                "of that tenant runs az ad sp create --id CLIENT_ID."
            )
        case "AADSTS500011":
            return (
                f"The tenant knows no such D365: is {setting} right? Where D365 is in another tenant, the app "
                "wants an app registration (docs/deploy.md)."
            )
    return (
        "In Azure: is the managed identity assigned to the app, and AZURE_CLIENT_ID its client id?"
    )


def _d365(bridge: Bridge, environment: Environment, who: str) -> Line:
    """Asks for the status of a message that there is not: the answer says who we are to D365."""
    what = _of_environment(bridge, "D365", environment)
    setting = bridge.settings.url_setting(environment)
    try:
        bridge.clients[environment.name].message_status(MessageId(str(uuid4())))
    except Denied as error:
        if error.status not in (401, 403):
            return Line(what, "wrong", f"Denied: {error}")
        todo = _let_in(who, own_identity=bridge.settings.registration(environment) is None)
        return Line(
            what, "wrong", f"It does not let {who or 'the application'} in: {error}. {todo}"
        )
    except Rejected as error:
        if error.status is None:  # it is no JSON
            return Line(what, "wrong", f"{error}. Is {setting} right? D365 answers in JSON.")
    except D365Error as error:
        if error.status is None:
            return Line(
                what, "wrong", f"{error}. Is {setting} right, and may the app go out to it?"
            )
        text = f"It answers, but with trouble: {error}. Try again in some minutes."
        return Line(what, "can't tell", text)
    return Line(what, "ok", "It answers, and knows the application.")


def _let_in(who: str, *, own_identity: bool) -> str:
    if "@" in who:
        return f"Is {who} a user there, and enabled?"
    text = (
        f"Is {who or 'its client id'} under Microsoft Entra applications, with a user who is enabled? If not: "
        "d365-blob-bridge register (docs/d365-setup.md)."
    )
    if own_identity:
        text += (
            " If so, this D365 takes no managed identity: use an app registration that trusts it "
            "(docs/deploy.md, step 5)."
        )
    return text


def _recent(bridge: Bridge) -> Recent:
    try:
        return journal.recent(bridge.account)
    except AzureError:
        return Recent(clock.now(), [], complete=False)


def _import_job(bridge: Bridge, job: ImportJob, recent: Recent, *, asks: bool) -> Line:
    """D365 is asked for the last message that it took of the job, or else for one that there is not: to that
    much it says no, or not."""
    what = f"import job {job.name}"
    if not asks:
        return Line(what, "can't tell", "D365 can't be asked: see above.")
    if job.api == "package":
        return _data_project(bridge, job, recent, what)
    tried = [
        entry
        for entry in _of(job, recent, "file.")
        if entry.fields.get("messageId") or entry.fields.get("reason") == "rejected"
    ]
    last = tried[-1] if tried else None
    known = str(last.fields.get("messageId") or "") if last else ""
    try:
        bridge.d365_for(job).job_status(job.activity_id, MessageId(known or str(uuid4())))
    except Denied as error:
        todo = ". Allow the application in this job's authorisation policy." * (error.status == 403)
        return Line(what, "wrong", f"{error}{todo}")
    except D365Error as error:
        answer = f"D365 says {error.status or 'nothing'}"
    else:
        if known:
            return Line(what, "ok", f"D365 has its last file under the message id {known}.")
        answer = "D365 answers"
    if last and not known:
        text = f"D365 rejected its last file at {clock.text(last.at)}: {last.fields.get('error')}"
        return Line(what, "wrong", text)
    about = f"message {known}, which it took before," if known else "it"
    return Line(
        what,
        "can't tell",
        f"{answer} to a question about {about} and does not reject the application. Only a first file can "
        f"show whether {job.activity_id} is an import job of its own: compare it with the ID on Manage "
        "scheduled data jobs.",
    )


def _data_project(bridge: Bridge, job: ImportJob, recent: Recent, what: str) -> Line:
    """D365 is asked for the job's last execution, or else for one that there is not: it says so, or that the
    application may not ask."""
    tried = [entry for entry in _of(job, recent, "file.") if entry.fields.get("messageId")]
    known = str(tried[-1].fields["messageId"]) if tried else ""
    try:
        status = bridge.d365_for(job).packages.execution_status(known or str(uuid4()))
    except Denied as error:
        todo = (
            ". Give the application's user the role Data management operations user, and the roles that the "
            "data project and its entities want."
        )
        return Line(what, "wrong", f"{error}{todo * (error.status == 403)}")
    except D365Error as error:
        return Line(what, "can't tell", f"{error}. Try again in some minutes.")
    if status is not None:
        return Line(what, "ok", f"D365 has its last file as the execution {known}: {status}.")
    return Line(
        what,
        "can't tell",
        "D365 answers to the application; whether it may import into the data project "
        f"{job.data_project}, only a first file can show.",
    )


def _of(job: ImportJob | ExportJob, recent: Recent, events: str) -> list[Entry]:
    """What the journal knows of a job under what D365 knows it by at present."""
    return [
        entry
        for entry in recent.entries
        if entry.event.startswith(events)
        and (entry.fields.get("job"), entry.fields.get("activityId")) == (job.name, job.known_as)
    ]


def _export_job(job: ExportJob, recent: Recent) -> Line:
    """Known from the runs alone: the only question that D365 takes about it takes a message."""
    what = f"export job {job.name}"
    if not job.enabled:
        return Line(what, "can't tell", "It is paused, so it is not asked for.")
    runs = _of(job, recent, "export.")
    if not runs:
        when = schedule("EXPORT_SCHEDULE", EXPORT_SCHEDULE)
        text = (
            "No run with this activity id is known yet. The app asks on the schedule "
            f"{when}: look again after the next."
        )
        return Line(what, "can't tell", text)
    last = runs[-1]
    if last.event == "export.failed":
        text = f"Its run at {clock.text(last.at)} failed: {last.fields.get('error')}"
        return Line(what, "wrong", text)
    return Line(what, "ok", f"D365 answered its run at {clock.text(last.at)}.")


def _project_job(bridge: Bridge, job: ExportJob) -> Line:
    """Known from its exports; and whether the app looks as often as the schedule names a time."""
    what = f"export job {job.name}"
    if not job.enabled:
        return Line(what, "can't tell", "It is paused, so it is not exported.")
    try:
        known = execution.read(bridge.account, job.name)
        last = execution.last(bridge.account, job.name, 1)
    except HttpResponseError as error:
        return Line(what, "wrong", explained(error))
    if known and known[0].overdue and known[0].under_way:
        text = (
            f"{known[0].executionid} has been {known[0].status} since {known[0].running}: look under Data "
            "management > Job history, and delete the execution there if it hangs."
        )
        return Line(what, "wrong", text)
    if last and last[0].outcome == Outcome.FAILED:
        text = f"Its export for {last[0].due} failed: {last[0].error}"
        return Line(what, "wrong", text)
    now = clock.now()
    due = ncrontab.next_run(str(job.schedule), now)
    after = due and ncrontab.next_run(str(job.schedule), due)
    look = due and ncrontab.next_run(schedule("EXPORT_SCHEDULE", EXPORT_SCHEDULE), due)
    if after and look and after < look:
        text = (
            "Its schedule names times more often than the app looks (the app setting EXPORT_SCHEDULE): of "
            "those between two looks the last one is exported. Give the job fewer times."
        )
        return Line(what, "wrong", text)
    when = f"Its next export is due at {clock.text(due)}." if due else "Its schedule names no time."
    if not last:
        return Line(what, "can't tell", f"None of its exports has ended yet. {when}")
    return Line(what, "ok", f"Its export for {last[0].due} ended as {last[0].outcome}. {when}")


# -- storage --------------------------------------------------------------------------------------


def _tried(what: str, step: Callable[[], tuple[Verdict, str]]) -> Line:
    try:
        return Line(what, *step())
    except HttpResponseError as error:
        return Line(what, "wrong", f"{_sentence(explained(error))}.")
    except AzureError as error:
        why = " ".join(str(error).split())[:300]
        text = f"Not reached: {redact(why)}. Is the service URI right, and may the app go there?"
        return Line(what, "wrong", text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _container(bridge: Bridge, name: str) -> tuple[Verdict, str]:
    """Write, read and delete a probe, which lies in no job's folder; but leave nothing in `exports`."""
    container = bridge.account.blobs.get_container_client(name)
    if name == journal.JOURNAL and not container.exists():
        return "ok", "The app makes it with its first line."
    probe = names.new_probe()
    if name == EXPORTS:
        # Whoever fetches packages takes all that lies there: on a condition that no blob can meet, storage
        # looks whether we may write, and writes nothing.
        with suppress(ResourceModifiedError):
            container.upload_blob(
                probe,
                b"",
                overwrite=True,
                etag='"0x0"',
                match_condition=MatchConditions.IfNotModified,
            )
        next(iter(container.list_blobs(results_per_page=1)), None)
        return "ok", "Listed, and open to be written."
    container.upload_blob(probe, b"probe")
    try:
        read = container.download_blob(probe).readall()
    finally:
        container.delete_blob(probe)
    next(iter(container.list_blobs(results_per_page=1)), None)
    return (
        ("ok", "Written, read, listed, deleted.")
        if read == b"probe"
        else ("wrong", "It reads otherwise.")
    )


def _template(bridge: Bridge, job: ImportJob) -> tuple[Verdict, str]:
    """Read it as a file's import does."""
    try:
        template = templates.fetch(bridge.account, str(job.template), job.entity)
    except InvalidTemplate as error:
        text = f"Its files will wait, and fail after a day: {error}. Put it right in the container."
        return "wrong", text
    return "ok", f"A file takes the place of {template.path} in {job.template}."


def _queue(bridge: Bridge) -> tuple[Verdict, str]:
    """Put and delete a message that names no file, and is hidden for as long as it lives."""
    queue = bridge.account.queue(STATUS_QUEUE)
    queue.peek_messages()
    message = queue.send_message(json.dumps({"file": ""}), visibility_timeout=60, time_to_live=61)
    queue.delete_message(message)
    waiting = queue.get_queue_properties().approximate_message_count
    return "ok", f"Put, peeked, deleted. About {waiting} messages wait or are hidden there."


def _notifications(bridge: Bridge) -> tuple[Verdict, str]:
    """No probe: whoever reads there would tell a person of it."""
    queue = bridge.account.queue(NOTIFICATIONS_QUEUE)
    queue.peek_messages()
    waiting = queue.get_queue_properties().approximate_message_count
    return "ok", f"It is there, and may be read. About {waiting} messages wait in it."


def _poison(bridge: Bridge) -> tuple[Verdict, str]:
    counts = {}
    for name in POISON_QUEUES:
        try:
            count = bridge.account.queue(name).get_queue_properties().approximate_message_count
        except ResourceNotFoundError:
            continue  # the host makes it when it first gives something up
        if count:
            counts[name] = count
    if counts:
        text = ", ".join(f"{count} in {name}" for name, count in counts.items())
        return (
            "wrong",
            f"The host gave up messages: {text}. Look in the log for what failed just before, and mend that. "
            "Nothing is lost: reconcile takes their files up again, and clears the queue, within five minutes.",
        )
    return "ok", "Nothing was given up."


def _event(bridge: Bridge, seconds: float) -> tuple[Verdict, str]:
    """Drop a probe, which the app deletes when its event comes."""
    container = bridge.account.blobs.get_container_client(IMPORTS)
    for old in container.list_blobs(name_starts_with=names.PROBE):
        # A younger one is another check's, which would take our deleting it for its event.
        if names.is_probe(old.name) and clock.now() - old.last_modified > STALE:
            files.delete_probe(bridge.account, old.name)
    probe = names.new_probe()
    blob = container.get_blob_client(probe)
    blob.upload_blob(b"probe")
    started = clock.monotonic()
    while clock.monotonic() - started < seconds:
        if not blob.exists():
            return "ok", f"It came after {clock.monotonic() - started:.1f} s."
        clock.sleep(0.25)
    try:
        blob.delete_blob()
    except ResourceNotFoundError:
        return "ok", f"It came after {clock.monotonic() - started:.1f} s."
    return (
        "wrong",
        f"None came within {seconds:.0f} s. If the app was asleep, try once more; else see that the event "
        "subscription on the data account is there and its last deliveries went well (docs/deploy.md). Files "
        "are taken all the same, by reconcile, only later.",
    )
