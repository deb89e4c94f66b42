"""What D365 says of a message, in whatever form: statuses, counts, errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.d365 import statuses
from shared.d365.errors import D365Error
from shared.d365.responses import Response
from shared.d365.statuses import EntityCounts


def answer(body: object) -> Response:
    """An answer with that body."""
    return Response(200, body.encode() if isinstance(body, str) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("Enqueued", "running"),
        ("Dequeued", "running"),
        ("Acked", "running"),
        ("Preprocessing", "running"),
        ("Processing", "running"),
        ("Downloaded", "running"),
        ("InProcess", "running"),
        ("Processed", "succeeded"),
        ("PROCESSED", "succeeded"),
        ("PreProcessingError", "failed"),
        ("ProcessedWithErrors", "failed"),
        ("Processed with errors", "failed"),
        ("PostProcessingFailed", "failed"),
        ("PostProcessingError", "failed"),
        *((str(n), "running") for n in (0, 1, 2, 3, 4, 9)),
        ("5", "succeeded"),
        *((str(n), "failed") for n in (6, 7, 8)),
        ("10", "unknown"),
        ("Paused", "unknown"),
        ("", "unknown"),
    ],
)
def test_every_status_has_its_meaning(status: str, kind: str) -> None:
    """By name in any case, and by number (S1)."""
    assert statuses.meaning(statuses.status_of(answer({"value": status}))) == kind


@pytest.mark.parametrize("number", [5, 5.0, "5", "5.0"])
def test_a_number_is_one_however_it_is_written(number: object) -> None:
    """5 is Processed."""
    assert statuses.status_of(answer({"value": number})) == "Processed"


@given(st.text(max_size=40))
def test_any_text_has_a_meaning(status: str) -> None:
    """Whatever D365 says."""
    known = {"running", "succeeded", "failed", "unknown"}
    assert statuses.meaning(statuses.status_of(answer({"value": status}))) in known


PASCAL = {
    "DataJobStatus": {
        "DataJobState": "Processed",
        "ExternalIdentifier": "may.csv",
        "ExecutionIdentifier": "DMF-1",
    },
    "ExecutionLog": "Done.",
    "ExecutionDetail": [
        {"EntityName": "Steps", "Company": "USMF", "StagingRecords": 20, "TargetRecords": 18}
    ],
}


def camel(value: object) -> object:
    """The same with its names as JSON serialisers like them."""
    match value:
        case dict():
            return {key[0].lower() + key[1:]: camel(each) for key, each in value.items()}
        case list():
            return [camel(each) for each in value]
    return value


@pytest.mark.parametrize(
    "body", [PASCAL, camel(PASCAL), [PASCAL], {"value": PASCAL}, {"value": json.dumps(PASCAL)}]
)
def test_a_job_status_is_read_in_every_form(body: object) -> None:
    """Names in any case, alone in a list, under `value`, as JSON in a text."""
    job_status = statuses.job_status_of(answer(body))
    assert (job_status.state, job_status.external_id, job_status.execution_id) == (
        "Processed",
        "may.csv",
        "DMF-1",
    )
    assert (job_status.log, job_status.imported, job_status.companies) == ("Done.", 18, ("USMF",))
    assert job_status.entities == (EntityCounts("Steps", "USMF", 20, 18),)
    assert job_status.counts == "Steps: 18 of 20"


@pytest.mark.parametrize(
    ("fields", "imported"),
    [
        ({"StagingRecords": 20, "TargetRecords": 18, "TargetErrorCount": 2}, 18),
        ({"StagingRecords": 20, "TargetRecords": 20, "TargetErrorCount": 2}, 18),
        ({"StagingRecords": 20, "TargetRecords": 20, "TargetErrorCount": 20}, 0),
        ({"StagingRecords": "20", "TargetRecords": "7", "TargetErrorCount": "13"}, 7),
        ({"TargetRecords": 7}, 7),
        ({"StagingRecords": 20}, None),
        ({"TargetRecords": "many"}, None),
    ],
)
def test_records_with_errors_do_not_count_as_imported(
    fields: dict[str, object], imported: int | None
) -> None:
    """Whether D365 counts them among the target's or not."""
    job_status = statuses.job_status_of(answer({"ExecutionDetail": [fields]}))
    assert job_status.imported == imported


def test_a_guid_of_zeros_is_no_execution() -> None:
    """D365 gives it while there is none."""
    body = {"DataJobStatus": {"ExecutionIdentifier": "00000000-0000-0000-0000-000000000000"}}
    assert statuses.job_status_of(answer(body)).execution_id == ""


OBJECT = {"RecordId": "17", "Field": "AccountNum", "ErrorMessage": "Account 9\r\ndoes not exist."}
LINE = "Account 9 does not exist. (record 17, field AccountNum)"


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"value": json.dumps(["Bad.", "Worse."])}, ["Bad.", "Worse."]),
        ({"value": ["Bad.", "Bad."]}, ["Bad."]),
        ({"value": json.dumps([OBJECT])}, [LINE]),
        ({"value": json.dumps(OBJECT)}, [LINE]),
        ({"value": OBJECT}, [LINE]),
        ([OBJECT], [LINE]),
        ({"value": json.dumps(json.dumps([OBJECT]))}, [LINE]),
        ({"value": {"value": json.dumps([camel(OBJECT)])}}, [LINE]),
        ({"value": [json.dumps(OBJECT), "Bad."]}, [LINE, "Bad."]),
        ({"value": {"errors": [{"message": "Bad."}]}}, ["Bad."]),
        ({"value": [{"Code": 7, "What": "odd"}]}, ["Code: 7; What: odd"]),
        ({"value": "Bad.\nWorse."}, ["Bad.", "Worse."]),
        ("Bad.", ["Bad."]),
        ({"value": ""}, []),
        ({"value": "[]"}, []),
        ({"value": None}, []),
        ({"@odata.context": "x", "value": "null"}, []),
        ({}, []),
        ("", []),
        ("null", []),
    ],
)
def test_errors_are_read_in_every_form(body: object, errors: list[str]) -> None:
    """A line each, in D365's words: never how a program would print them."""
    assert statuses.errors_of(answer(body)) == errors


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_d365_says_is_read_or_refused(body: object) -> None:
    """Nothing that is JSON crashes whoever reads it."""
    for read in (statuses.status_of, statuses.job_status_of, statuses.errors_of):
        try:
            read(answer(body))
        except D365Error:
            continue


def test_what_is_nested_beyond_all_sense_is_refused() -> None:
    """As any other answer that is none."""
    for read in (statuses.status_of, statuses.job_status_of, statuses.errors_of):
        for depth in (500, 900, 5000):
            try:
                read(answer("[" * depth + "]" * depth))
            except D365Error:
                continue
