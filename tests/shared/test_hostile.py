"""Whatever D365, a queue or a dropped file says: an error that a person can read, and nothing else."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from local.simulator import Simulator
from shared.bridge import Bridge
from shared.d365 import responses
from shared.d365.errors import D365Error
from shared.exports.run import export_packages
from shared.imports import advance, intake
from shared.storage import files, records
from shared.storage.account import EXPORTS, FAILED, PROCESSING, SUCCEEDED, DataAccount
from tests.helpers import EXPORT_ID, client_of, contents, drop, empty, only, report, work_queue

_FIELDS = (
    "CorrelationId",
    "PopReceipt",
    "DownloadLocation",
    "value",
    "DataJobStatus",
    "ExecutionIdentifier",
    "ExecutionLog",
    "ExecutionDetail",
    "error",
    "message",
    "innererror",
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_FIELDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
_BODIES = st.one_of(
    _JSON.map(json.dumps), st.text(max_size=200), st.just("[" * 200_000), st.just("<html>no</html>")
)
_few = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def answers(simulator: Simulator, operation: str, body: str) -> None:
    """Let D365 answer that from now on."""
    simulator.faults.clear()
    simulator.add_fault(operation, "answer", status=200, body=body, times=-1)


@_few
@given(body=_BODIES)
def test_any_answer_to_dequeue(bridge: Bridge, d365: Simulator, body: str) -> None:
    """An export run ends in good order, and acknowledges nothing that it has not stored."""
    answers(d365, "dequeue", body)
    export_packages(bridge)
    assert d365.count("acknowledge") == 0


@_few
@given(body=_BODIES)
def test_any_answer_to_enqueue(bridge: Bridge, d365: Simulator, body: str) -> None:
    """A message id, or an error of the client's own kinds."""
    answers(d365, "enqueue", body)
    with suppress(D365Error):
        client_of(bridge).enqueue(
            EXPORT_ID, lambda: iter([b"1"]), 1, entity=None, company=None, external_id="x"
        )


@_few
@given(body=_BODIES)
def test_any_answer_to_the_status(
    bridge: Bridge, d365: Simulator, account: DataAccount, body: str
) -> None:
    """The file stays in processing, or ends: in one place, with a state."""
    d365.faults.clear()
    empty(account)
    intake.import_file(bridge, drop(account, "journals/may.csv"))
    answers(d365, "message_status", body)
    file = only(account, PROCESSING)
    advance.check_status(bridge, {"file": file.name, "etag": file.etag})
    places = [
        each
        for container in (PROCESSING, SUCCEEDED, FAILED)
        for each in files.listed(account, container)
    ]
    assert [place.record.state in ("sent", "succeeded", "failed") for place in places] == [True]


@_few
@given(body=_BODIES, operation=st.sampled_from(["job_status", "execution_errors"]))
@example(body='{"DataJobStatus": "Error"}', operation="job_status")
@example(body='{"value": {"value": [1, {}]}}', operation="execution_errors")
def test_any_account_of_a_failure(
    bridge: Bridge, d365: Simulator, account: DataAccount, body: str, operation: str
) -> None:
    """However D365 tells what went wrong, the file is filed, with a report that is JSON."""
    d365.faults.clear()
    empty(account)
    intake.import_file(bridge, drop(account, "journals/may.csv", b"1;REJECT"))
    answers(d365, operation, body)
    work_queue(bridge)
    assert report(account)["reason"] in ("not-imported", "partly-imported")


@pytest.mark.parametrize("content", [b"", b"<!doctype html><p>Sign in", b'{"Message": "Busy"}'])
def test_what_is_no_file_is_left_with_d365(
    bridge: Bridge, d365: Simulator, account: DataAccount, content: bytes
) -> None:
    """Neither stored nor acknowledged, and told."""
    offered = d365.add_package(EXPORT_ID, content)
    assert export_packages(bridge).failed == 1
    assert (contents(account, EXPORTS), offered.acknowledged) == ({}, 0)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True), st.text(max_size=30)
    )
)
def test_any_metadata_gives_a_record(metadata: dict[str, str]) -> None:
    """Others may write it; what is not ours is kept."""
    record, user_metadata = records.from_metadata(metadata)
    assert record.attempts >= 0
    assert user_metadata.items() <= metadata.items()


@given(st.text(max_size=40))
def test_any_retry_after(text: str) -> None:
    """Seconds, or none."""
    seconds = responses.retry_after_seconds(text)
    assert seconds is None or 0 <= seconds <= 24 * 3600


def test_what_an_endless_page_says_is_found_at_once() -> None:
    """Sixteen MiB of the worst: 8 KiB of it are looked at."""
    assert len(responses.error_text(b"<" * 2**24)) <= 500


def test_a_message_of_another_form_goes_to_the_poison_queue() -> None:
    """The function fails with the reason; the host then gives it up, and reconcile reports it."""
    message: Any = ["not", "an", "object"]
    with pytest.raises(AttributeError):
        advance.check_status(None, message)  # type: ignore[arg-type]
