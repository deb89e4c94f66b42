"""The rules of ordered jobs by themselves: which file goes, what waits, what stops the job."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.jobs import ImportJob
from shared.imports import order, routing
from shared.imports.order import Send, Stop, Wait
from shared.storage.account import FAILED, IMPORTS, PROCESSING
from shared.storage.names import stamped
from shared.storage.records import File, Record, State

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
JOB = ImportJob(name="steps", activity_id="", entity="Steps", ordered=True)


def dropped(name: str, size: int = 1, age: int = 0) -> File:
    """A file in `imports`, `age` seconds old."""
    return File(IMPORTS, f"steps/{name}", '"0"', size, NOW - timedelta(seconds=age))


def claimed(
    name: str, state: State = State.CLAIMED, due: int = 0, size: int = 1, age: int = 0
) -> File:
    """A file in processing, due in so many seconds."""
    file = dropped(name, size, age)
    when = (NOW + timedelta(seconds=due)).isoformat()
    record = Record(source=file.name, state=state, due=when)
    path = stamped(file.name, file.modified, file.etag)
    return replace(file, container=PROCESSING, name=path, record=record)


def decide(
    job: ImportJob = JOB,
    failed: list[File] | None = None,
    processing: list[File] | None = None,
    files: list[tuple[File, routing.Wait | None]] | None = None,
) -> Send | Wait | Stop:
    """What the job does at `NOW`."""
    return order.decide(job, failed or [], processing or [], files or [], NOW)


def test_a_paused_job_is_stopped_whatever_lies_there() -> None:
    """By nobody's failure."""
    job = msgspec.structs.replace(JOB, enabled=False)
    decision = decide(job, processing=[claimed("a.csv")], files=[(dropped("b.csv"), None)])
    assert decision == Stop("the job is paused")


def test_a_failed_file_stops_the_job_and_is_named() -> None:
    """Even where a file is claimed."""
    failed = replace(claimed("a.csv", State.FAILED), container=FAILED)
    decision = decide(failed=[failed], processing=[claimed("b.csv")])
    assert isinstance(decision, Stop)
    assert decision.failed == failed


@pytest.mark.parametrize(
    ("state", "next_after", "waits"),
    [
        (State.SENDING, "ended", True),
        (State.SENT, "ended", True),
        (State.SUCCEEDED, "ended", True),
        (State.FAILED, "accepted", True),
        (State.SENDING, "accepted", True),
        (State.SENT, "accepted", False),
    ],
)
def test_a_file_under_way_keeps_the_others_waiting(
    state: State, next_after: Literal["ended", "accepted"], waits: bool
) -> None:
    """Until it has left processing; or until D365 has accepted it, where the job says so."""
    job = msgspec.structs.replace(JOB, next_after=next_after)
    decision = decide(job, processing=[claimed("a.csv", state)], files=[(dropped("b.csv"), None)])
    assert isinstance(decision, Wait if waits else Send)


def test_of_claimed_files_the_first_goes_before_any_dropped_one() -> None:
    """A claimed file was taken in its turn."""
    first, second = claimed("b.csv"), claimed("c.csv")
    decision = decide(processing=[second, first], files=[(dropped("a.csv"), None)])
    assert decision == Send(first)


def test_a_claimed_file_goes_at_its_time_and_no_other_before() -> None:
    """It waits for D365, or for the pause between files."""
    waiting = claimed("a.csv", due=60)
    decision = decide(processing=[waiting, claimed("b.csv")])
    assert isinstance(decision, Wait)
    assert decision.until == NOW + timedelta(seconds=60)


def test_of_dropped_files_the_first_goes_that_can_be_taken() -> None:
    """One that may be renamed keeps nobody waiting; one that may get its content does."""
    renamed, empty, whole = dropped("a.part"), dropped("b.csv", 0), dropped("c.csv")
    passes, blocks = routing.Wait("a.part", blocks=False), routing.Wait("empty")
    assert decide(files=[(renamed, passes), (whole, None)]) == Send(whole)
    decision = decide(files=[(renamed, passes), (empty, blocks), (whole, None)])
    assert isinstance(decision, Wait)
    assert "b.csv" in decision.why


def test_without_a_file_there_is_nothing_to_send() -> None:
    """As nearly always."""
    assert decide() == Wait("there is no file")


FILES = st.lists(
    st.tuples(st.text("abc", min_size=1), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=6,
    unique_by=lambda each: each[0],
)


@given(FILES, st.sampled_from(["name", "time", "size"]), st.booleans())
def test_claimed_or_dropped_the_order_is_the_same(
    files: list[tuple[str, int, int]], order_by: str, reverse: bool
) -> None:
    """A file keeps its place when it is claimed, whatever the order is by."""
    job = msgspec.structs.replace(JOB, order_by=order_by, reverse_order=reverse)
    waiting = [dropped(name, size, age) for name, size, age in files]
    taken = [claimed(name, size=size, age=age) for name, size, age in files]
    names = [file.name for file in order.arranged(job, waiting)]
    assert [file.record.source for file in order.arranged(job, taken)] == names


@given(FILES)
def test_of_workers_that_have_claimed_one_goes_first(files: list[tuple[str, int, int]]) -> None:
    """Each looks at the same files in processing: exactly one sees that it is its turn."""
    taken = [claimed(name, size=size, age=age) for name, size, age in files]
    assert sum(order.goes_first(JOB, file, taken) for file in taken) == 1
