"""The trigger host does what the real storage extensions were seen to do (extension packages 5.3.10, the
host's and the data account apart), and starts and ends its workers as Flex Consumption does.

Each line of what was seen that can be shown here has its test; the app in `host_app` notes its calls.
"""

import base64
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psutil
import pytest
import requests
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient, QueueServiceClient

from local.azurite import Azurite, running_azurite
from local.host import blobs, queues
from local.host.queues import Reading
from local.host.storage import HOSTS
from local.host.workers import InvocationFailed
from local.host_process import ROOT, RunningHost, running_host
from local.protocol import UNSEEN
from tests.helpers import PATIENCE, wait_for

APP = Path(__file__).with_name("host_app")
FUNCTION = "Host.Functions.on_blob"

ODD_NAMES = (
    "folder/a b.csv",
    "a blank at the end ",
    "100%.csv",
    "literal %20.csv",
    "#?&=+;@:'\".csv",
    "[](){}.csv",
    "back\\slash.csv",
    "two//slashes.csv",
    "dot./in.csv",
    "é composed.csv",
    "e\u0301 decomposed.csv",
    "日本.csv",
    "🙂.csv",
)


class Stage:
    """Two storage accounts, the host's and the data account, and what the app notes."""

    def __init__(self, azurite: Azurite, folder: Path) -> None:
        self.notes = folder / "notes"
        self.settings = {
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "AzureWebJobsStorage": azurite.connection_string_of("hostaccount"),
            "DataStorage": azurite.connection_string,
            "NOTES": str(self.notes),
        }
        self.blobs = BlobServiceClient.from_connection_string(azurite.connection_string)
        self._data = QueueServiceClient.from_connection_string(azurite.connection_string)
        self._host = QueueServiceClient.from_connection_string(
            azurite.connection_string_of("hostaccount")
        )
        self.hosts = BlobServiceClient.from_connection_string(
            azurite.connection_string_of("hostaccount")
        ).get_container_client(HOSTS)
        for name in ("drops", "elsewhere"):
            self.blobs.create_container(name)
        self.internal = self._host.get_queue_client(blobs.QUEUE)

    def queue(self, name: str = "work") -> QueueClient:
        """A queue of the data account."""
        client = self._data.get_queue_client(name)
        with contextlib.suppress(ResourceExistsError):
            client.create_queue()
        return client

    def send(self, text: str) -> None:
        """Put a message on the app's queue."""
        self.queue().send_message(base64.b64encode(text.encode()).decode())

    def drop(self, name: str, container: str = "drops") -> str:
        self.blobs.get_blob_client(container, name).upload_blob(b"1", overwrite=True)
        return name

    def url(self, name: str, container: str = "drops") -> str:
        """The address in an event, escaped as Event Grid does."""
        return f"{self.blobs.url.rstrip('/')}/{container}/{quote(name)}"

    def noted(self, what: str, part: str = "") -> list[dict[str, Any]]:
        """The notes of a kind whose name holds a part."""
        if not self.notes.exists():
            return []
        lines = [json.loads(line) for line in self.notes.read_text().splitlines()]
        return [each for each in lines if each["what"] == what and part in each.get("name", "")]

    def poison(self, queue: str, part: str) -> list[Any]:
        """The messages of a poison queue that hold a part, as they lie there."""
        try:
            peeked = self.queue(queue).peek_messages(32)
        except ResourceNotFoundError:
            return []
        return [each for each in peeked if part in _plain(each.content)]


def _plain(content: str) -> str:
    try:
        return base64.b64decode(content, validate=True).decode()
    except ValueError:
        return content


def new(text: str) -> str:
    """A name that no other test has."""
    return f"{text} {uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running_azurite(more_accounts=("hostaccount",)) as azurite:
        yield Stage(azurite, tmp_path_factory.mktemp("stage"))


@pytest.fixture
def own_stage(tmp_path: Path) -> Iterator[Stage]:
    """One for a test whose messages no host of another test may take."""
    with running_azurite(more_accounts=("hostaccount",)) as azurite:
        yield Stage(azurite, tmp_path)


@pytest.fixture(scope="module")
def host(stage: Stage) -> Iterator[RunningHost]:
    """A host that most tests share; the tests post its events."""
    with running_host(stage.settings, "--no-events", app=APP) as running:
        yield running


def post(
    host: RunningHost, events: object, kind: str | None = "Notification", function: str = FUNCTION
) -> requests.Response:
    """Post to the webhook as Event Grid does."""
    return requests.post(
        f"{host.url}/runtime/webhooks/blobs",
        params={"functionName": function, "code": host.webhook_key},
        json=events,
        headers={"aeg-event-type": kind} if kind else {},
        timeout=60,
    )


def created(url: str) -> dict[str, Any]:
    return {"eventType": "Microsoft.Storage.BlobCreated", "data": {"api": "PutBlob", "url": url}}


# -- the webhook ----------------------------------------------------------------------------------


def test_the_webhook_answers_the_handshake(host: RunningHost) -> None:
    """With the code that it was given."""
    events = [{"data": {"validationCode": "512d38b6"}}]
    response = post(host, events, "SubscriptionValidation")
    assert (response.status_code, response.json()) == (200, {"validationResponse": "512d38b6"})


def test_the_webhook_takes_an_unsubscription_and_nothing_without_a_type(host: RunningHost) -> None:
    """202 and 400."""
    assert post(host, [], "Unsubscribe").status_code == 202
    assert post(host, [created("https://x/y/z")], None).status_code == 400


def test_an_event_calls_the_function_with_a_reference(host: RunningHost, stage: Stage) -> None:
    """Container and unescaped name, in a blob client."""
    name = stage.drop(new("folder/a b"))
    assert post(host, [created(stage.url(name))]).status_code == 202
    (call,) = wait_for(lambda: stage.noted("blob", name), host.output)
    assert (call["container"], call["name"]) == ("drops", name)


def test_what_is_not_found_is_dropped_quietly(host: RunningHost, stage: Stage) -> None:
    """A blob that is gone and a function that is not there: 202, and nobody sees it."""
    gone, there, last = new("gone"), stage.drop(new("there")), stage.drop(new("last"))
    assert post(host, [created(stage.url(gone))]).status_code == 202
    unknown = post(host, [created(stage.url(there))], function="Host.Functions.unknown")
    assert unknown.status_code == 202
    post(host, [created(stage.url(last))])
    wait_for(lambda: stage.noted("blob ended", last), host.output)
    assert not stage.noted("blob", gone)
    assert not stage.noted("blob", there)
    assert gone not in host.output()


def test_an_event_of_another_container_calls_the_function_too(
    host: RunningHost, stage: Stage
) -> None:
    """The function's path is not compared with events: only the subscription's filter chooses."""
    name = stage.drop(new("other"), "elsewhere")
    post(host, [created(stage.url(name, "elsewhere"))])
    (call,) = wait_for(lambda: stage.noted("blob", name), host.output)
    assert call["container"] == "elsewhere"


def test_odd_names_come_through_exactly_where_they_are_escaped(
    host: RunningHost, stage: Stage
) -> None:
    """As Event Grid escapes them."""
    folder = new("odd")
    names = {stage.drop(f"{folder}/{name}") for name in ODD_NAMES}
    post(host, [created(stage.url(name)) for name in names])
    wait_for(lambda: len(stage.noted("blob ended", folder)) == len(names), host.output)
    assert {call["name"] for call in stage.noted("blob", folder)} == names


@pytest.mark.parametrize("name", ["literal %20", "cut?here", "back\\slash", "blank at the end "])
def test_an_address_that_is_not_escaped_loses(name: str) -> None:
    """Another blob would be looked up, and dropped quietly if it is not there."""
    account = "https://x.blob.core.windows.net/"
    assert blobs.located(f"{account}drops/{quote(name)}", account) == ("drops", name)
    assert blobs.located(f"{account}drops/{name}", account)[1] != name


def test_an_account_with_hierarchical_namespace_is_read_alike() -> None:
    """Its events name the other endpoint; container and name stand at the same place."""
    url = "https://x.dfs.core.windows.net/drops/a/b%20c.csv"
    assert blobs.located(url, "https://x.blob.core.windows.net/") == ("drops", "a/b c.csv")


@pytest.mark.parametrize(
    "data",
    [
        {"api": "PutBlob"},
        {"api": "RenameFile", "destinationUrl": "https://x/drops/b", "sourceUrl": "https://x/a"},
    ],
    ids=["no address", "BlobRenamed"],
)
def test_an_event_without_an_address_fails_the_delivery_after_those_before_it(
    host: RunningHost, stage: Stage, data: dict[str, str]
) -> None:
    """500, so that Event Grid sends all again: the first has come, and comes twice. A rename has no `url`."""
    first, third = stage.drop(new("first")), stage.drop(new("third"))
    events = [created(stage.url(first)), {"data": data}, created(stage.url(third))]
    assert post(host, events).status_code == 500
    wait_for(lambda: stage.noted("blob ended", first), host.output)
    assert post(host, events).status_code == 500
    wait_for(lambda: len(stage.noted("blob ended", first)) == 2, host.output)
    assert not stage.noted("blob", third)


def test_the_same_event_three_times_is_three_calls(host: RunningHost, stage: Stage) -> None:
    """Nothing is filtered."""
    name = stage.drop(new("thrice"))
    post(host, [created(stage.url(name))] * 3)
    wait_for(lambda: len(stage.noted("blob ended", name)) == 3, host.output)


# -- the internal queue of blobs --------------------------------------------------------------------


def test_a_failing_blob_is_tried_five_times_and_then_a_poison_message_in_the_data_account(
    host: RunningHost, stage: Stage
) -> None:
    """In the shape that the extension gives it, base64 on the wire."""
    name = stage.drop(new("fail"))
    etag = stage.blobs.get_blob_client("drops", name).get_blob_properties().etag
    post(host, [created(stage.url(name))])
    (message,) = wait_for(lambda: stage.poison(blobs.POISON, name), host.output)
    assert len(stage.noted("blob", name)) == 5
    assert json.loads(base64.b64decode(message.content)) == {
        "Type": "BlobTrigger",
        "FunctionId": FUNCTION,
        "BlobType": "BlockBlob",
        "ContainerName": "drops",
        "BlobName": name,
        "ETag": etag,
    }


def test_so_many_blobs_at_once_as_host_json_says(host: RunningHost, stage: Stage) -> None:
    """`maxDegreeOfParallelism` is the bound."""
    folder = new("sleep")
    names = [stage.drop(f"{folder}/{number}") for number in range(8)]
    post(host, [created(stage.url(name)) for name in names])
    wait_for(lambda: len(stage.noted("blob ended", folder)) == len(names), host.output)
    assert 2 <= _at_once(stage, "blob", folder) <= 4


def _at_once(stage: Stage, what: str, part: str) -> int:
    """How many calls ran at the same time, at most."""
    moments = [(each["at"], 1) for each in stage.noted(what, part)]
    moments += [(each["at"], -1) for each in stage.noted(f"{what} ended", part)]
    running = most = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    return most


def test_what_a_killed_host_had_under_way_is_hidden_and_the_rest_comes_at_once(
    stage: Stage, host: RunningHost
) -> None:
    """For ten minutes nobody sees it: until then only reconcile can help. No event comes again, either."""
    host.stop()  # they would share a queue
    for blob in stage.blobs.get_container_client("drops").list_blobs():
        stage.blobs.get_blob_client("drops", blob.name).delete_blob()
    under_way = [new("hang") for _ in range(3)]  # so many are taken one by one
    with running_host(stage.settings, app=APP) as running:
        for name in under_way:
            stage.drop(name)
        for name in under_way:
            wait_for(lambda name=name: stage.noted("blob", name), running.output)  # type: ignore[misc]
        waiting = stage.drop(new("waiting"))
        wait_for(stage.internal.peek_messages, running.output)
        running.kill()
    with running_host(stage.settings, app=APP) as running:
        wait_for(lambda: stage.noted("blob ended", waiting), running.output)
        fresh = stage.drop(new("fresh"))
        wait_for(lambda: stage.noted("blob ended", fresh), running.output)
        assert [len(stage.noted("blob", name)) for name in under_way] == [1] * 3
    assert stage.internal.get_queue_properties().approximate_message_count == len(under_way)
    stage.internal.clear_messages()


# -- the queue trigger ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def queue_host(stage: Stage) -> Iterator[RunningHost]:
    """A host for the tests of queue, timer, keys and processes."""
    with running_host(stage.settings, "--no-events", app=APP) as running:
        yield running


def test_a_failing_message_is_counted_and_lies_in_the_poison_queue_after_five(
    queue_host: RunningHost, stage: Stage
) -> None:
    """As it was on the queue."""
    text = new("fail")
    stage.send(text)
    (message,) = wait_for(lambda: stage.poison("work-poison", text), queue_host.output)
    assert [each["dequeued"] for each in stage.noted("message", text)] == [1, 2, 3, 4, 5]
    assert base64.b64decode(message.content).decode() == text


def test_a_message_that_is_not_base64_goes_to_the_poison_queue_unseen(
    queue_host: RunningHost, stage: Stage
) -> None:
    """As it is."""
    text = new("{not base64}")
    stage.queue().send_message(text)
    (message,) = wait_for(lambda: stage.poison("work-poison", text), queue_host.output)
    assert message.content == text
    assert not stage.noted("message", text)


def test_so_many_messages_at_once_as_host_json_says(own_stage: Stage) -> None:
    """`batchSize` and `newBatchThreshold` together are the bound, for each host."""
    part = new("sleep")
    for number in range(12):
        own_stage.send(f"{part} {number}")
    with running_host(own_stage.settings, "--no-events", app=APP) as running:
        wait_for(lambda: len(own_stage.noted("message ended", part)) == 12, running.output)
    assert 4 <= _at_once(own_stage, "message", part) <= 6


@pytest.fixture
def reading(stage: Stage) -> Iterator[Reading]:
    """A queue of its own, read in this process."""
    client = stage.queue(f"queue-{uuid4().hex[:8]}")
    yield Reading(client, lambda text, message: None, lambda _: None, 4, 2, 5, 0.0, 60.0)
    client.delete_queue()


def _read(reading: Reading) -> threading.Event:
    stopping = threading.Event()
    threading.Thread(target=queues.read, args=(reading, stopping), daemon=True).start()
    return stopping


def test_an_idle_queue_is_asked_less_and_less_often(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a tenth of a second to once a minute."""
    waits: list[float] = []
    stopping = threading.Event()

    def wait(_: Reading, __: threading.Event, seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 12:
            stopping.set()

    monkeypatch.setattr(queues, "_wait", wait)
    queues.read(reading, stopping)
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert waits[-1] == 60.0


def test_an_event_wakes_an_idle_queue(reading: Reading) -> None:
    """However long it would have waited."""
    texts: list[str] = []
    reading = replace(reading, call=lambda text, _: texts.append(text), longest=3600.0)
    stopping = _read(reading)
    time.sleep(8)  # the next look is seconds ahead
    reading.queue.send_message("late")
    reading.waker.set()
    wait_for(lambda: texts)
    stopping.set()


def test_a_message_stays_taken_while_its_function_runs(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is renewed in time, and gone when the function has ended."""
    monkeypatch.setattr(queues, "HIDDEN", 2)
    texts: list[str] = []

    def call(text: str, _: Any) -> None:
        texts.append(text)
        time.sleep(5)

    stopping = _read(replace(reading, call=call))
    reading.queue.send_message("long")
    count = reading.queue.get_queue_properties
    wait_for(lambda: count().approximate_message_count == 0)
    stopping.set()
    assert texts == ["long"]


def test_a_try_that_is_to_come_at_once_comes_at_once(reading: Reading) -> None:
    """Five tries are over before an idle queue would have been asked three times."""
    tries: list[int] = []
    given_up = threading.Event()

    def call(_: str, message: Any) -> None:
        tries.append(message.dequeue_count)
        raise InvocationFailed("as it must")

    reading.queue.send_message("x")
    stopping = _read(replace(reading, call=call, give_up=lambda _: given_up.set(), longest=3600.0))
    assert given_up.wait(PATIENCE)
    stopping.set()
    assert tries == [1, 2, 3, 4, 5]


# -- processes ------------------------------------------------------------------------------------


def test_each_group_of_functions_has_its_own_process(queue_host: RunningHost, stage: Stage) -> None:
    """As on Flex Consumption: HTTP together, blobs together, each queue and timer function by itself."""
    text, name = new("pid"), stage.drop(new("pid"))
    stage.send(text)
    post(queue_host, [created(stage.url(name))])
    queue_host.invoke("on_time")
    (message,) = wait_for(lambda: stage.noted("message ended", text), queue_host.output)
    (blob,) = wait_for(lambda: stage.noted("blob ended", name), queue_host.output)
    ajar = requests.get(f"{queue_host.url}/api/open", timeout=60).json()
    shut = requests.get(f"{queue_host.url}/api/shut", {"code": queue_host.key}, timeout=60).json()
    timer = stage.noted("timer")[-1]
    assert ajar["pid"] == shut["pid"]
    pids = {message["pid"], blob["pid"], timer["pid"], ajar["pid"]}
    assert len(pids) == 4
    assert set(queue_host.status()["workers"].values()) == pids


def test_a_function_that_outlasts_its_time_ends_its_process_with_all_in_it(
    own_stage: Stage,
) -> None:
    """Whatever else runs there is lost too; the next call finds a new process."""
    settings = {**own_stage.settings, "AzureFunctionsJobHost__functionTimeout": "00:00:15"}
    first, second, after = new("hang"), new("hang"), new("after")
    with running_host(settings, app=APP) as running:
        own_stage.send(first)
        (one,) = wait_for(lambda: own_stage.noted("message", first), running.output)
        time.sleep(2)
        own_stage.send(second)
        wait_for(lambda: own_stage.noted("message", second), running.output)
        wait_for(lambda: "functionTimeout" in running.output(), running.output)
        own_stage.send(after)
        (other,) = wait_for(lambda: own_stage.noted("message ended", after), running.output)
        wait_for(lambda: "the worker process ended" in running.output(), running.output)
    assert one["pid"] != other["pid"]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "placeholder"])
def test_a_worker_is_started_with_its_settings_or_gets_them_by_a_reload(
    stage: Stage, *, direct: bool
) -> None:
    """Which shows in what was read at process start: on Flex Consumption the settings come after it."""
    with running_host(stage.settings, *["--direct"] * direct, app=APP) as running:
        body = requests.get(f"{running.url}/api/open", timeout=60).json()
    assert body["settingsAtStart"] is direct


def test_a_log_line_without_an_invocation_is_marked(queue_host: RunningHost) -> None:
    """The real host drops it, so it is no part of what Azure would have."""
    requests.get(f"{queue_host.url}/api/open", timeout=60)
    wait_for(lambda: "a line of the invocation's own thread" in queue_host.output())
    assert "a line of a thread without invocation" not in queue_host.output()
    unseen = [line for line in queue_host.everything() if line.startswith(UNSEEN)]
    assert any("a line of a thread without invocation" in line for line in unseen)


def test_host_and_workers_end_when_their_parent_has_gone(stage: Stage, tmp_path: Path) -> None:
    """However it ended: nothing of a test run that was killed goes on."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(stage.settings))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(settings), str(APP)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    pids = json.loads(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert len(pids) == 2
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))


PARENT = """
import json, os, sys, time
from pathlib import Path
import psutil
from local.host_process import running_host

settings = json.loads(Path(sys.argv[1]).read_text())
with running_host(settings, app=Path(sys.argv[2])) as host:
    host.invoke("on_time")
    workers = [each.pid for each in psutil.Process(host.pid).children()]
    print(json.dumps([host.pid, *workers]), flush=True)
    time.sleep(600)
"""


# -- keys and timers ------------------------------------------------------------------------------


def test_http_wants_a_key_where_the_function_says_so(queue_host: RunningHost) -> None:
    """In the query or the header; the host's own side and the webhook want their own."""
    url = queue_host.url

    def status(path: str, **options: Any) -> int:
        return requests.request(
            options.pop("method", "GET"), url + path, timeout=60, **options
        ).status_code

    assert status("/api/open") == 200
    assert status("/api/shut") == 401
    assert status("/api/shut?code=wrong") == 401
    assert status(f"/api/shut?code={queue_host.key}") == 200
    assert status("/api/shut", headers={"x-functions-key": queue_host.key}) == 200
    assert status(f"/admin/host/status?code={queue_host.key}") == 401
    hook = "/runtime/webhooks/blobs?functionName=" + FUNCTION
    assert status(f"{hook}&code={queue_host.key}", method="POST", json=[]) == 401


def test_what_was_due_while_no_host_ran_is_made_up_for_once(own_stage: Stage) -> None:
    """A timer's status outlives the host: the first run after it is past due, and the next is not."""
    settings = {**own_stage.settings, "TIMER": "*/2 * * * * *"}
    with running_host(settings, app=APP) as running:
        wait_for(lambda: own_stage.noted("timer"), running.output)
        assert not own_stage.noted("timer")[0]["past_due"]
        running.kill()
    before = len(own_stage.noted("timer"))
    time.sleep(5)
    with running_host(settings, app=APP) as running:
        wait_for(lambda: len(own_stage.noted("timer")) >= before + 2, running.output)
    assert [each["past_due"] for each in own_stage.noted("timer")[before : before + 2]] == [
        True,
        False,
    ]
