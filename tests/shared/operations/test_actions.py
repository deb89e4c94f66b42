"""What people do about files, in one process: two at once, a crash in the middle, a job that is stopped."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import count
from threading import Barrier
from typing import Any

import pytest
from azure.core.exceptions import ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport

from local import samples
from local.samples import VENDORS, Part, package
from local.simulator import Simulator
from shared import clock
from shared.bridge import Bridge
from shared.config import jobs
from shared.d365 import statuses
from shared.exports.run import export_packages
from shared.imports import advance, intake, reconciliation
from shared.operations import actions, views
from shared.operations.actions import Action, NotDone
from shared.storage import files, moves
from shared.storage.account import EXPORTS, FAILED, IMPORTS, PROCESSING, SUCCEEDED, DataAccount
from shared.storage.records import File
from tests.helpers import (
    EXPORT_ID,
    JOBS,
    PACKAGE_ID,
    Events,
    Later,
    contents,
    drop,
    make_bridge,
    only,
    work_queue,
)


def fail_one(bridge: Bridge, name: str = "journals/USMF/may.csv") -> File:
    """A file that D365 has rejected."""
    drop(bridge.account, name, b"1;2;REJECT")
    intake.import_file(bridge, name)
    work_queue(bridge)
    return only(bridge.account, FAILED)


def action(file: File, **changes: str) -> Action:
    """What a person asks for, having looked at the file."""
    default = Action(file.name, file.etag, "Ada", "it balances now")
    return replace(default, **changes) if changes else default


def test_a_copy_whose_answer_is_lost_is_ours_all_the_same(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK makes the copy anew and meets its own first try: the file was sent again, once."""
    file = fail_one(bridge)
    d365.reject_text = b""
    lost: list[str] = []
    send = RequestsTransport.send

    def lossy(self: RequestsTransport, request: Any, **options: Any) -> Any:
        answer = send(self, request, **options)
        if "/imports/" in request.url and "x-ms-copy-source" in request.headers and not lost:
            lost.append(request.url)
            raise ServiceResponseError("connection reset by peer")
        return answer

    monkeypatch.setattr(RequestsTransport, "send", lossy)
    intake.import_file(bridge, actions.resend(bridge, action(file, why="it balances ")))
    work_queue(bridge)
    assert len(lost) == 1
    assert len(d365.received) == 2
    assert not list(files.listed(bridge.account, FAILED))


def test_a_copy_of_which_nothing_is_known_is_the_file(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version went on before its copy's answer came: the failed one is not there to be sent again."""
    file = fail_one(bridge)
    d365.reject_text = b""
    copy = moves._copy

    def taken_at_once(*args: Any) -> None:
        monkeypatch.undo()
        copy(*args)
        intake.import_file(bridge, file.record.source)

    monkeypatch.setattr(moves, "_copy", taken_at_once)
    with pytest.raises(NotDone, match="look again"):
        actions.resend(bridge, action(file))
    assert not list(files.listed(bridge.account, FAILED))
    with pytest.raises(NotDone, match="not there any more"):
        actions.resend(bridge, action(file))
    assert len(d365.received) == 2


def test_of_many_who_send_a_file_again_one_does(bridge: Bridge, d365: Simulator) -> None:
    """Eight clicks at once on the same page: one new version, whatever the event does meanwhile."""
    file = fail_one(bridge)
    d365.reject_text = b""
    together = Barrier(8)

    def click(_: int) -> str:
        together.wait()
        try:
            source = actions.resend(bridge, action(file))
        except NotDone as error:
            return str(error)
        intake.import_file(bridge, source)  # the event comes at once
        return "sent"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(click, range(8)))
    work_queue(bridge)
    assert answers.count("sent") == 1
    assert len(d365.received) == 2
    assert len(list(files.listed(bridge.account, SUCCEEDED))) == 1
    assert not list(files.listed(bridge.account, FAILED))


def test_two_who_say_the_same_in_the_same_second_are_two(
    bridge: Bridge, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked before either writes; the second must not take the first one's mark for its own."""
    file = fail_one(bridge)
    moment = clock.now()
    monkeypatch.setattr(clock, "now", lambda: moment)
    monkeypatch.setattr(actions, "_looked_at", lambda *_: file)
    put_back = moves.put_back

    def meanwhile(account: DataAccount, marked: File, user_metadata: dict[str, str]) -> bool:
        monkeypatch.setattr(moves, "put_back", put_back)
        with pytest.raises(NotDone, match="by somebody else"):
            actions.resend(bridge, action(file))
        return put_back(account, marked, user_metadata)

    monkeypatch.setattr(moves, "put_back", meanwhile)
    actions.resend(bridge, action(file))
    assert len(contents(account, IMPORTS)) == 1


def test_a_crash_before_the_copy_leaves_the_file_with_its_mark(
    bridge: Bridge, d365: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nowhere twice; the mark says that somebody began, and whoever looks anew may go on."""
    file = fail_one(bridge)

    def crash(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(moves, "put_back", crash)
        with pytest.raises(KeyboardInterrupt):
            actions.resend(bridge, action(file))
    marked = only(bridge.account, FAILED)
    assert (marked.record.resolution, marked.record.resolvedby) == ("resending", "Ada")
    assert not contents(bridge.account, IMPORTS)
    with pytest.raises(NotDone, match="changed since"):
        actions.resend(bridge, action(file))
    actions.resend(bridge, action(marked))
    assert len(d365.received) == 1
    assert len(contents(bridge.account, IMPORTS)) == 1


def test_a_crash_after_the_copy_sends_nothing_twice(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failed file is left behind until the new version is taken; who asks again is told where that is."""
    file = fail_one(bridge)
    d365.reject_text = b""

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "delete", crash)
        with pytest.raises(KeyboardInterrupt):
            actions.resend(bridge, action(file))
    left = only(account, FAILED)
    with pytest.raises(NotDone, match="it is imports/journals/USMF/may"):
        actions.resend(bridge, action(left))
    intake.import_file(bridge, "journals/USMF/may.csv")
    assert not list(files.listed(account, FAILED))
    work_queue(bridge)
    with pytest.raises(NotDone, match="not there any more"):
        actions.resend(bridge, action(left))
    assert len(d365.received) == 2


def test_a_crash_after_received_leaves_no_way_to_send_it(
    bridge: Bridge, d365: Simulator, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody found it in D365; what lies in processing counts, and what lies here goes by itself."""
    file = held(bridge, d365)
    message_id = d365.received[0].message_id

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "delete", crash)
        with pytest.raises(KeyboardInterrupt):
            actions.receive(bridge, action(file, message_id=message_id))
    left = only(account, FAILED)
    assert "resend" not in actions.possible(left)
    for act in (actions.resend, actions.dismiss):
        with pytest.raises(NotDone, match="on its way"):
            act(bridge, action(left))
    tracked = only(account, PROCESSING)
    advance.check_status(bridge, {"file": tracked.name, "etag": tracked.etag})
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.messageid == message_id
    assert not list(files.listed(account, FAILED))
    assert len(d365.received) == 1


def test_a_file_without_a_final_status_is_asked_after_again(
    bridge: Bridge,
    d365: Simulator,
    account: DataAccount,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D365 was busy for a week: when it has ended the file, nobody need send or look up anything."""
    d365.statuses = ("Processing", "Processing", "Processed")
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    with monkeypatch.context() as patch:
        patch.setattr(statuses, "GIVE_UP", timedelta(seconds=-1))
        work_queue(bridge)
    file = only(account, FAILED)
    assert (file.record.reason, actions.possible(file)) == (
        "no-final-status",
        ["resend", "ask", "dismiss"],
    )
    actions.ask(bridge, action(file))
    work_queue(bridge)
    done = only(account, SUCCEEDED).record
    assert (done.resolution, done.resolvedby, done.error) == ("asked", "Ada", "")
    assert events("file.asked")[0]["by"] == "Ada"
    assert not list(files.listed(account, FAILED))
    assert len(d365.received) == 1


def test_only_what_has_no_final_status_is_asked_after_again(
    bridge: Bridge, account: DataAccount
) -> None:
    """What has an end keeps it."""
    file = fail_one(bridge)
    with pytest.raises(NotDone, match="has an end"):
        actions.ask(bridge, action(file))
    assert only(account, FAILED).etag == file.etag


def test_a_newer_file_of_that_name_is_not_overtaken(bridge: Bridge, account: DataAccount) -> None:
    """What waits in imports stays as it is, and so does the failed file."""
    file = fail_one(bridge)
    drop(account, "journals/USMF/may.csv", b"newer")
    with pytest.raises(NotDone, match="a newer file of that name waits"):
        actions.resend(bridge, action(file))
    assert contents(account, IMPORTS) == {"journals/USMF/may.csv": b"newer"}
    assert only(account, FAILED).etag == file.etag


def test_a_newer_file_that_comes_in_between_wins(
    bridge: Bridge, account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lands after the look and before the copy: the failed file is as it was, but for its ETag."""
    file = fail_one(bridge)
    update = files.update

    def late(*args: Any) -> File:
        if not contents(account, IMPORTS):
            drop(account, "journals/USMF/may.csv", b"newer")
        return update(*args)

    monkeypatch.setattr(files, "update", late)
    with pytest.raises(NotDone, match="came in just now"):
        actions.resend(bridge, action(file))
    assert contents(account, IMPORTS) == {"journals/USMF/may.csv": b"newer"}
    assert only(account, FAILED).record == file.record


@pytest.fixture
def stopped(bridge: Bridge, account: DataAccount, d365: Simulator) -> Bridge:
    """An ordered job that a failed file holds up, with another file behind it."""
    raw = {"ordered": True, "onFailure": "stop"}
    stopping = make_bridge(d365, account, **raw)
    drop(account, "journals/1.csv", b"REJECT")
    drop(account, "journals/2.csv", b"good")
    intake.import_file(stopping, "journals/1.csv")
    work_queue(stopping)
    assert [r.external_id.split(".")[0] for r in d365.received] == ["1"]
    assert list(contents(account, IMPORTS)) == ["journals/2.csv"]
    return stopping


def test_a_received_file_that_fails_has_an_end_like_any_other(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """It can be sent again; who found it in D365 stands in the new report too."""
    d365.add_fault("enqueue", "reset-after")
    intake.import_file(bridge, drop(account, "journals/may.csv", b"1;REJECT"))
    message_id = d365.received[0].message_id
    actions.receive(bridge, action(only(account, FAILED), message_id=message_id))
    work_queue(bridge)
    failed = only(account, FAILED)
    assert (failed.record.state, failed.record.reason) == ("failed", "not-imported")
    (done,) = views.report_of(bridge, failed)["resolutions"]
    assert (done["did"], done["by"]) == ("received", "Ada")
    assert actions.possible(failed) == ["resend", "dismiss"]
    d365.reject_text = b""
    intake.import_file(bridge, actions.resend(bridge, action(failed)))
    work_queue(bridge)
    assert len(d365.received) == 2
    only(account, SUCCEEDED)


@pytest.mark.parametrize(
    ("imported", "risk"),
    [(18, "posted twice"), (0, "imported no record of it")],
)
def test_what_would_be_posted_twice_is_said_before_it_is_resent(
    bridge: Bridge, d365: Simulator, account: DataAccount, imported: int, risk: str
) -> None:
    """By D365's own counts."""
    d365.imported = imported
    intake.import_file(bridge, drop(account, "journals/may.csv", b"1;REJECT"))
    work_queue(bridge)
    file = only(account, FAILED)
    assert risk in actions.risk(file)
    assert ("General journal: 18 of 20" in actions.risk(file)) == bool(imported)


def test_a_received_file_that_fails_stops_its_job(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """As any failed file of it does."""
    bridge = make_bridge(d365, account, ordered=True, onFailure="stop")
    d365.add_fault("enqueue", "reset-after")
    drop(account, "journals/1.csv", b"REJECT")
    drop(account, "journals/2.csv")
    intake.import_file(bridge, "journals/1.csv")
    message_id = d365.received[0].message_id
    actions.receive(bridge, action(only(account, FAILED), message_id=message_id))
    work_queue(bridge)
    reconciliation.reconcile(bridge)
    assert only(account, FAILED).record.stopsjob
    assert len(d365.received) == 1


def test_a_stopped_job_goes_on_when_its_file_is_dismissed(
    stopped: Bridge, account: DataAccount, d365: Simulator, later: Later
) -> None:
    """The file stays in imports-failed, and stops nothing any more."""
    actions.dismiss(stopped, action(only(account, FAILED)))
    later(timedelta(minutes=6))
    reconciliation.reconcile(stopped)
    work_queue(stopped)
    assert [r.external_id.split(".")[0] for r in d365.received] == ["1", "2"]
    left = only(account, FAILED).record
    assert (left.resolution, left.resolvedwhy, left.stopsjob) == (
        "dismissed",
        "it balances now",
        "",
    )


def test_a_stopped_job_sends_the_file_again_before_those_behind_it(
    stopped: Bridge, account: DataAccount, d365: Simulator
) -> None:
    """In name order, as ever."""
    d365.reject_text = b""
    source = actions.resend(stopped, action(only(account, FAILED)))
    intake.import_file(stopped, source)
    work_queue(stopped)
    assert [r.external_id.split(".")[0] for r in d365.received] == ["1", "1", "2"]
    assert len(list(files.listed(account, SUCCEEDED))) == 2


def held(bridge: Bridge, d365: Simulator) -> File:
    """A file of which nobody knows whether D365 has it."""
    d365.add_fault("enqueue", "reset-after")
    drop(bridge.account, "journals/USMF/may.csv")
    intake.import_file(bridge, "journals/USMF/may.csv")
    return only(bridge.account, FAILED)


def test_a_received_file_is_tracked_to_its_end(
    bridge: Bridge, d365: Simulator, account: DataAccount, events: Events
) -> None:
    """Under the id that the person gives, in whatever form; who and why stay with it."""
    file = held(bridge, d365)
    message_id = d365.received[0].message_id
    actions.receive(bridge, action(file, message_id=f" {{{message_id.upper()}}} ".lower()))
    tracked = only(account, PROCESSING).record
    assert (tracked.state, tracked.messageid) == ("sent", message_id)
    assert tracked.due <= clock.text(clock.now())
    work_queue(bridge)
    done = only(account, SUCCEEDED).record
    assert (done.resolution, done.resolvedby) == ("received", "Ada")
    assert events("file.received")[0]["by"] == "Ada"
    assert len(d365.received) == 1


def test_a_message_of_another_job_is_not_this_file_s(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """D365 knows it, but not in this job: nothing is believed that D365 does not say."""
    data = samples.package("Vendors", [samples.Part(samples.VENDORS, 1)])
    drop(account, "packages/other.zip", data)
    intake.import_file(bridge, "packages/other.zip")
    file = held(bridge, d365)
    (other,) = (r for r in d365.received if r.activity_id == PACKAGE_ID)
    with pytest.raises(NotDone, match="not have that message in this file's job 'journals'"):
        actions.receive(bridge, action(file, message_id=other.message_id))
    assert only(account, FAILED).etag == file.etag


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"status": 200, "body": "{}"}, "does not say of which file"),
        ({"status": 200, "body": '{"DataJobStatus": {"ExternalIdentifier": ""}}'}, "dismiss it"),
        ({"status": 403}, "can't be asked now of which file"),
        ({"status": 503, "headers": {"Retry-After": "99"}}, "can't be asked now of which file"),
    ],
)
def test_what_d365_does_not_confirm_is_not_believed(
    bridge: Bridge, d365: Simulator, account: DataAccount, answer: dict[str, Any], says: str
) -> None:
    """The right id, but D365 does not say that it is this file's."""
    file = held(bridge, d365)
    d365.add_fault("job_status", "answer", times=-1, **answer)
    with pytest.raises(NotDone, match=says):
        actions.receive(bridge, action(file, message_id=d365.received[0].message_id))
    assert only(account, FAILED).etag == file.etag


def test_a_job_status_in_other_letters_confirms_it_too(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Names in camelCase, as JSON serialisers like them."""
    file = held(bridge, d365)
    body = json.dumps({"dataJobStatus": {"externalIdentifier": d365.received[0].external_id}})
    d365.add_fault("job_status", "answer", status=200, body=body)
    actions.receive(bridge, action(file, message_id=d365.received[0].message_id))
    work_queue(bridge)
    assert only(account, SUCCEEDED).record.resolution == "received"
    assert len(d365.received) == 1


def test_a_held_file_whose_job_is_gone_waits_for_its_job(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """D365 can only be asked about messages of a job."""
    file = held(bridge, d365)
    renamed = make_bridge(d365, account, name="renamed")
    with pytest.raises(NotDone, match="has no job 'journals' any more"):
        actions.receive(renamed, action(file, message_id=d365.received[0].message_id))


def test_when_d365_can_t_be_asked_a_held_file_stays_held(
    bridge: Bridge, d365: Simulator, account: DataAccount
) -> None:
    """Not knowing is no reason to believe."""
    file = held(bridge, d365)
    d365.add_fault("message_status", "answer", status=503, headers={"Retry-After": "99"}, times=-1)
    confirmation = action(file, message_id=d365.received[0].message_id)
    with pytest.raises(NotDone, match="can't be asked"):
        actions.receive(bridge, confirmation)
    assert only(account, FAILED).etag == file.etag


def test_a_failed_file_can_t_be_called_received(bridge: Bridge, d365: Simulator) -> None:
    """D365 has told how it ended."""
    file = fail_one(bridge)
    with pytest.raises(NotDone, match="is not held"):
        actions.receive(bridge, action(file, message_id=d365.received[0].message_id))


@pytest.fixture
def unzipping(bridge: Bridge, d365: Simulator) -> Bridge:
    """A bridge with an export job that unzips, and one package exported."""
    raw = json.loads(json.dumps(JOBS))
    raw["exports"][0]["unzip"] = True
    settings = replace(bridge.settings, jobs=jobs.parse(json.dumps(raw).encode()))
    d365.add_package(EXPORT_ID, package("Vendors", [Part(VENDORS, 20)]))
    new_bridge = Bridge(settings, bridge.clients, bridge.account)
    export_packages(new_bridge)
    return new_bridge


def exported(account: DataAccount) -> File:
    """The package, not its files."""
    (file,) = (each for each in files.listed(account, EXPORTS) if each.name.endswith(".zip"))
    return file


def test_a_package_of_a_job_that_unzips_is_handed_over_with_its_files(
    unzipping: Bridge, account: DataAccount
) -> None:
    """In a fresh folder, for the programs that read folders."""
    file = exported(account)
    before = contents(account, EXPORTS)
    folder = file.name.removesuffix(".zip")
    fresh = actions.redeliver(unzipping, action(file)).removesuffix(".zip")
    assert len(before) > 1
    assert contents(account, EXPORTS) == before | {
        name.replace(folder, fresh): data for name, data in before.items()
    }


def test_a_package_whose_files_can_t_be_written_is_told(
    unzipping: Bridge, account: DataAccount, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no success, and is not reported as one."""
    hours = count(0, 3600)
    monkeypatch.setattr(clock, "monotonic", lambda: next(hours))
    with pytest.raises(NotDone, match=r"not all of its files are .*do it once more"):
        actions.redeliver(unzipping, action(exported(account)))
    assert not events("package.redelivered")


def test_secrets_in_a_reason_are_not_kept(
    bridge: Bridge, account: DataAccount, events: Events
) -> None:
    """Somebody pastes a URL with its SAS."""
    file = fail_one(bridge)
    actions.dismiss(bridge, action(file, why="see https://x/y?sv=1&sig=Zm9vYmFy"))
    assert "Zm9vYmFy" not in json.dumps(events("file.dismissed"))
    assert "Zm9vYmFy" not in only(account, FAILED).record.resolvedwhy
    report = next(v for k, v in contents(account, FAILED).items() if k.endswith(".error.json"))
    assert b"Zm9vYmFy" not in report
