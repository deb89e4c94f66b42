"""The jobs file: what it takes, and that every mistake is named with its place."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import jobs

ID = "0a1b2c3d-0000-4000-8000-00000000000{}"


def text(**kinds: object) -> bytes:
    return json.dumps(kinds).encode()


def mistakes(raw: bytes) -> list[str]:
    with pytest.raises(jobs.InvalidJobs) as caught:
        jobs.parse(raw)
    return caught.value.mistakes


def test_a_full_jobs_file_is_read() -> None:
    """Every option arrives under the name that the code uses."""
    jobs_file = jobs.parse(
        text(
            exports=[{"name": "Vendors", "activityId": ID.format(1), "unzip": True}],
            imports=[
                {
                    "name": "journals",
                    "activityId": "{" + ID.format(2) + "}",
                    "entity": "General journal",
                    "company": "USMF",
                    "ordered": True,
                    "whenUncertain": "resend",
                    "enabled": False,
                }
            ],
        )
    )
    assert jobs_file.exports == (
        jobs.ExportJob(name="Vendors", activity_id=ID.format(1), unzip=True),
    )
    job = jobs_file.import_job("journals")
    assert job is not None
    assert (job.entity, job.company, job.ordered) == ("General journal", "USMF", True)
    assert (job.when_uncertain, job.enabled) == ("resend", False)
    assert jobs_file.import_job("Journals") is None


def test_defaults_are_the_safe_ones() -> None:
    """Uncertain files are held, nothing is unzipped, everything runs."""
    jobs_file = jobs.parse(text(imports=[{"name": "a", "activityId": ID.format(1)}]))
    (job,) = jobs_file.imports
    assert (job.when_uncertain, job.enabled, job.ordered) == ("hold", True, False)


def test_every_mistake_is_listed_with_its_place() -> None:
    """A person mends the whole file at once, not one mistake a start."""
    lines = mistakes(
        text(
            export=[],
            exports=[
                {"name": "a b", "activityId": "12"},
                3,
                {"unzip": "yes", "name": "ok"},
            ],
            imports=[
                {"name": "x\n", "activityId": ID.format(1) + "\n", "entity": ""},
                {"name": "y", "activityId": ID.format(2), "whenUncertain": "maybe", "company": 5},
                {"name": "z", "activityId": ID.format(3), "order": True},
            ],
        )
    )
    places = [line.split(":")[0] for line in lines]
    assert places == [
        "export",
        "exports[0].name",
        "exports[0].activityId",
        "exports[1]",
        "exports[2].activityId",
        "exports[2].unzip",
        "imports[0].name",
        "imports[0].activityId",
        "imports[0].entity",
        "imports[1].company",
        "imports[1].whenUncertain",
        "imports[2].order",
    ]
    assert "not a GUID" in lines[2]


def test_two_jobs_may_not_share_a_name_or_an_activity_id() -> None:
    """Names that differ by case alone would be one folder to a person."""
    one = {"name": "Vendors", "activityId": ID.format(1)}
    two = {"name": "vendors", "activityId": "{" + ID.format(1).upper() + "}"}
    lines = mistakes(text(exports=[one, two]))
    assert lines[0].startswith("exports[1].name")
    assert lines[1].startswith("exports[1].activityId")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not valid JSON"),
        (b'{"exports": [}', "line 1 column 14"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "must be an object"),
        (b'{"exports": {}}', "exports: must be a list"),
        (b'{"imports": [], "imports": []}', '"imports" stands twice'),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"imports": [{"name": null, "activityId": null}]}', "imports[0].name: expected"),
    ],
)
def test_a_malformed_file_says_what_is_wrong(raw: bytes, says: str) -> None:
    """Whatever the bytes, the answer is a sentence and not a traceback."""
    assert says in "\n".join(mistakes(raw))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("pattern", "", "pattern"),
        ("pattern", "in/*.csv", "without folders"),
        ("companyFrom", {"separator": "_"}, "position"),
        ("companyFrom", {"separator": "", "position": 1}, "separator"),
        ("companyFrom", {"separator": "_", "position": 0}, "position"),
        ("companyFrom", {"separator": "_", "position": 1, "x": 1}, "unknown field"),
        ("companyFrom", "_", "companyFrom"),
        ("orderBy", "age", "name, time or size"),
        ("pauseBetweenFiles", -1, "pauseBetweenFiles"),
        ("pauseBetweenFiles", 3601, "pauseBetweenFiles"),
    ],
)
def test_a_wrong_option_is_named_with_its_place(field: str, value: object, says: str) -> None:
    """Each is tried by itself, so that all mistakes are told at once."""
    job = {"name": "a", "activityId": ID.format(1), "ordered": True, field: value}
    (mistake,) = mistakes(text(imports=[job]))
    assert mistake.startswith(f"imports[0].{field}: ")
    assert says in mistake


def test_a_company_from_the_name_beside_the_jobs_own_is_a_mistake() -> None:
    """One of them would do nothing."""
    job = {"name": "a", "activityId": ID.format(1), "company": "USMF"}
    job["companyFrom"] = {"separator": "_", "position": 1}  # type: ignore[assignment]
    (mistake,) = mistakes(text(imports=[job]))
    assert mistake.startswith("imports[0].companyFrom")


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    """Windows editors write one."""
    assert jobs.parse(b"\xef\xbb\xbf{}") == jobs.Jobs()


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    """JOBS_FILE is what a person changes."""
    with pytest.raises(jobs.InvalidJobs, match="JOBS_FILE"):
        jobs.load(tmp_path / "none.json")


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """10 MB of JSON is no jobs file."""
    path = tmp_path / "jobs.json"
    path.write_bytes(b" " * 10_000_000)
    with pytest.raises(jobs.InvalidJobs, match="larger than"):
        jobs.load(path)


def mistakes_of(raw: bytes) -> list[str] | None:
    try:
        jobs.parse(raw)
    except jobs.InvalidJobs as error:
        return list(error.mistakes)
    return None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_jobs_or_mistakes(raw: bytes) -> None:
    """The parser never fails in another way."""
    assert mistakes_of(raw) != []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["exports", "imports", "name", "activityId", "entity", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(_json)
def test_any_json_is_jobs_or_mistakes(value: object) -> None:
    """So too where the JSON is well-formed."""
    assert mistakes_of(json.dumps(value).encode()) != []


PACKAGE_JOB = {"name": "a", "api": "package", "dataProject": "Vendors in"}


def test_an_import_job_of_the_package_api_has_a_data_project_in_place_of_an_activity_id() -> None:
    """D365 has no recurring data job for it, and runs one import of the project at a time."""
    (job,) = jobs.parse(text(imports=[PACKAGE_JOB])).imports
    assert (job.api, job.data_project, job.activity_id) == ("package", "Vendors in", "")
    assert (job.execute, job.overwrite, job.one_at_a_time) == (True, True, True)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"dataProject": None}, "imports[0].dataProject: missing"),
        ({"dataProject": "it's"}, "imports[0].dataProject: must be a data project's name"),
        ({"dataProject": "x" * 61}, "imports[0].dataProject: must be a data project's name"),
        ({"activityId": ID.format(1)}, "imports[0].activityId: says nothing with api package"),
        ({"api": "other"}, "imports[0].api: must be recurring or package"),
        ({"entity": "Vendors"}, "imports[0].entity: says nothing with api package unless"),
        ({"ordered": True, "nextAfter": "accepted"}, "imports[0].nextAfter: a data project runs"),
        ({"api": "recurring"}, "imports[0].activityId: missing"),
        (
            {"api": "recurring", "activityId": ID.format(1), "dataProject": None, "execute": False},
            "imports[0].execute: says nothing without dataProject",
        ),
    ],
)
def test_what_does_not_go_with_an_api_is_a_mistake(
    changes: dict[str, object], mistake: str
) -> None:
    """Each with its place."""
    job = {k: v for k, v in {**PACKAGE_JOB, **changes}.items() if v is not None}
    assert mistake in mistakes(text(imports=[job]))[0]


def test_two_jobs_do_not_share_a_data_project() -> None:
    """It would run one import at a time, and each job would know only its own."""
    other = {**PACKAGE_JOB, "name": "b", "dataProject": "VENDORS in"}
    assert mistakes(text(imports=[PACKAGE_JOB, other])) == [
        "imports[1].dataProject: imports[0] has the same; it runs one import at a time"
    ]


PRODUCTION = {"name": "production", "url": "https://contoso.operations.dynamics.com"}
TEST = {"name": "test", "url": "https://contoso-test.sandbox.operations.dynamics.com/"}


def test_jobs_of_several_environments_name_theirs() -> None:
    """A copied database has the activity ids of its original, so one id may stand once in each."""
    jobs_file = jobs.parse(
        text(
            environments=[PRODUCTION, {**TEST, "tenantId": "t", "clientId": "c"}],
            exports=[
                {"name": "a", "activityId": ID.format(1), "environment": "production"},
                {"name": "b", "activityId": ID.format(1), "environment": "test"},
            ],
        )
    )
    assert [each.environment for each in jobs_file.exports] == ["production", "test"]
    production, test = jobs_file.environments
    assert (production.url, production.client_id) == (PRODUCTION["url"], None)
    assert (test.url, test.tenant_id, test.client_id) == (TEST["url"].rstrip("/"), "t", "c")


def test_jobs_of_one_environment_need_not_name_it() -> None:
    """There is no other."""
    jobs.parse(text(environments=[PRODUCTION], exports=[{"name": "a", "activityId": ID.format(1)}]))


def test_every_mistake_about_environments_is_told_with_its_place() -> None:
    """All at once, before any environment is asked for anything."""
    lines = mistakes(
        text(
            environments=[
                PRODUCTION,
                {"name": "Production", "url": TEST["url"]},
                {"name": "copy", "url": "https://Contoso.Operations.dynamics.com:443/"},
                {"name": "dotted", "url": "https://contoso.operations.dynamics.com."},
                {"name": "a b", "url": "http://contoso.example"},
                {"name": "half", "url": "https://half.example", "tenantId": "t"},
                {"name": "none"},
                3,
            ],
            exports=[
                {"name": "a", "activityId": ID.format(1)},
                {"name": "b", "activityId": ID.format(2), "environment": "elsewhere"},
                {"name": "c", "activityId": ID.format(3), "environment": "copy"},
            ],
        )
    )
    assert [line.split(":")[0] for line in lines] == [
        "environments[4].name",
        "environments[4].url",
        "environments[5].clientId",
        "environments[6].url",
        "environments[7]",
        "environments[1].name",
        "environments[2].url",
        "environments[3].url",
        "exports[0].environment",
        "exports[1].environment",
    ]
    assert "environments[0]" in lines[6]
    assert "production" in lines[-2]
    assert "elsewhere" in lines[-1]


def test_an_environment_that_the_file_does_not_have_is_a_mistake() -> None:
    """Also where D365_URL is the only one, which has no name."""
    job = {"name": "a", "activityId": ID.format(1), "environment": "test"}
    (mistake,) = mistakes(text(imports=[job]))
    assert mistake.startswith("imports[0].environment: ")
    assert "no environments" in mistake


def test_one_job_twice_in_one_environment_is_a_mistake() -> None:
    """Whether it is named by both jobs, or is the only one."""
    two = [{"name": name, "activityId": ID.format(1)} for name in "ab"]
    two[1]["environment"] = "production"
    (mistake,) = mistakes(text(environments=[PRODUCTION], exports=two))
    assert mistake.startswith("exports[1].activityId: exports[0] has the same")


PROJECT = {
    "name": "suppliers",
    "api": "package",
    "dataProject": "Vendors",
    "schedule": "0 0 2 * * *",
}


def test_an_export_of_a_data_project_needs_no_recurring_data_job() -> None:
    """With its defaults."""
    (job,) = jobs.parse(text(exports=[PROJECT])).exports
    assert (job.data_project, job.schedule, job.company, job.re_execute) == (
        "Vendors",
        "0 0 2 * * *",
        None,
        False,
    )


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"dataProject": None}, "exports[0].dataProject: missing"),
        ({"schedule": None}, "exports[0].schedule: missing"),
        ({"schedule": "0 2 * * *"}, "exports[0].schedule: it must be NCRONTAB with six fields"),
        (
            {"schedule": "0 0 8 * * FRI-MON"},
            "exports[0].schedule: the day of week 'FRI-MON' runs backwards",
        ),
        (
            {"activityId": "11111111-1111-4111-8111-111111111111"},
            "exports[0].activityId: says nothing with api package",
        ),
        (
            {"api": "recurring", "activityId": ID.format(1)},
            "exports[0].dataProject: says nothing without api: package",
        ),
        ({"company": "TOOLONG"}, "exports[0].company: not a legal entity's id"),
    ],
)
def test_what_is_wrong_with_an_export_of_a_data_project_is_said(
    changes: dict[str, str | None], mistake: str
) -> None:
    item = {key: value for key, value in {**PROJECT, **changes}.items() if value is not None}
    assert any(each.startswith(mistake) for each in mistakes(text(exports=[item])))


def test_two_jobs_do_not_export_one_data_project() -> None:
    """With change tracking each would get a part of the changes."""
    other = {**PROJECT, "name": "other", "dataProject": "VENDORS"}
    (mistake,) = mistakes(text(exports=[PROJECT, other]))
    assert mistake.startswith("exports[1].dataProject: exports[0] has the same")


def test_an_export_does_not_share_the_data_project_of_an_import() -> None:
    """An import with `overwrite` replaces the definition. Another environment has its own project."""
    both = text(exports=[{**PROJECT, "dataProject": "vendors IN"}], imports=[PACKAGE_JOB])
    (mistake,) = mistakes(both)
    assert mistake.startswith(
        "imports[0].dataProject: exports[0] has the same; an import may replace"
    )
    elsewhere = {**PACKAGE_JOB, "environment": "test"}
    production = {**PROJECT, "dataProject": "Vendors in", "environment": "production"}
    apart = text(exports=[production], imports=[elsewhere], environments=[PRODUCTION, TEST])
    assert len(jobs.parse(apart).imports) == 1
