"""The record of an export that is under way: one worker writes it, and knows when another has."""

from datetime import UTC, datetime
from typing import Any

import pytest
from azure.storage.blob import BlobClient

from shared import clock
from shared.exports import execution
from shared.exports.execution import Execution, State
from shared.storage import leases
from shared.storage.account import STATE, DataAccount
from shared.storage.errors import Conflict


def test_a_long_text_keeps_as_much_as_there_is_room_for(account: DataAccount) -> None:
    """Whether storage takes its letters as they are or not."""
    for text in ("a" * 2000, "é" + "a" * 2000, "é" * 2000):
        execution.note(account, "vendors", Execution(executionid="x", error=text))
        (noted,) = execution.last(account, "vendors", 5)
        assert noted.error.startswith(text[:140])
        assert noted.error.endswith("...")


def test_one_worker_at_a_time_holds_an_execution(account: DataAccount) -> None:
    """The next one has what it wrote, and nothing in it is lost."""
    written = Execution(
        state=State.ASKING, executionid="vendors-1", why="Prüfer: 100 % = alles", requests=2
    )
    with execution.held(account, "vendors") as held:
        with pytest.raises(leases.Taken), execution.held(account, "vendors"):
            pass
        held.write(written)
    with execution.held(account, "vendors") as held:
        assert held.execution == written


def test_what_somebody_else_has_written_is_not_overwritten(account: DataAccount) -> None:
    """Not even by who held the lease, and lost it."""
    with execution.held(account, "vendors") as held:
        blob = account.blobs.get_blob_client(STATE, "executions/vendors")
        blob.set_blob_metadata({"state": State.RUNNING}, lease=held._lease)
        with pytest.raises(Conflict):
            held.write(Execution(state=State.PLANNED))
        assert blob.get_blob_properties().metadata == {"state": State.RUNNING}


def test_a_write_whose_answer_was_lost_is_no_conflict(
    account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK makes it anew, and meets its own first try; the next write goes on from there."""
    set_metadata = BlobClient.set_blob_metadata

    def twice(blob: BlobClient, *args: Any, **options: Any) -> Any:
        set_metadata(blob, *args, **options)
        return set_metadata(blob, *args, **options)

    with execution.held(account, "vendors") as held:
        with monkeypatch.context() as patch:
            patch.setattr(BlobClient, "set_blob_metadata", twice)
            held.write(Execution(state=State.PLANNED, executionid="vendors-1"))
        held.write(Execution(state=State.ASKING, executionid="vendors-1"))
    known = execution.read(account, "vendors")
    assert known
    assert known[0].state == State.ASKING


def test_a_jobs_due_times_begin_to_count_once(account: DataAccount) -> None:
    """Of two workers that know it for the first time the later one changes nothing."""
    first, second = (datetime(2026, 11, day, 2, tzinfo=UTC) for day in (27, 28))
    for moment in (first, second):
        execution.begin_to_count(account, "vendors", moment)
    known = execution.read(account, "vendors")
    assert known
    assert known[0] == Execution(due=clock.text(first))
