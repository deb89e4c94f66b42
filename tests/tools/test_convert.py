"""The converter: what a user's `Schedule.xml` becomes, and that nothing in it is dropped without a word."""

import contextlib
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.config import jobs
from tools import convert
from tools.convert import Job, Result, Unreadable

SAMPLES = Path(__file__).parent / "scheduler"
ACTIVITY = "8b7d4c52-1e9a-4f63-8c2b-5d6e7f809a03"


def converted(name: str) -> Result:
    """What a sample becomes; its jobs file is a valid one."""
    result = convert.convert(convert.read((SAMPLES / name).read_bytes()))
    jobs.parse(result.text.encode())
    return result


def upload(name: str = "a", activity_id: str = ACTIVITY, **options: str) -> Job:
    """An upload job of one entity."""
    all_ = {"ActivityId": activity_id, "EntityName": "General journal", **options}
    return Job("Upload", name, "", all_, ())


def test_a_schedule_of_recurring_jobs_becomes_a_jobs_file() -> None:
    """Uploads and downloads with their monitors."""
    result = converted("Schedule.xml")
    assert [each["name"] for each in result.imports] == ["General-journal", "Products-packages"]
    assert result.imports[0]["entity"] == "General journal"
    assert result.imports[0]["company"] == "USMF"
    assert result.imports[0]["pattern"] == "GJ*.csv"
    assert result.imports[0]["orderBy"] == "time"
    assert result.imports[0]["nextAfter"] == "accepted"
    assert result.imports[0]["pauseBetweenFiles"] == 5
    assert result.imports[1].items() >= {"onFailure": "stop", "enabled": False}.items()
    assert "entity" not in result.imports[1]
    (export,) = result.exports
    assert export == {
        "name": "Vendors",
        "group": "Finance",
        "activityId": "3f1c2a8e-6f0b-4a57-9d3e-0a5b7c1d2e02",
        "unzip": True,
        "enabled": False,
    }
    assert not any(each["enabled"] for each in result.imports)
    assert result.left_out == 0


def test_jobs_of_the_package_api_become_jobs_of_it() -> None:
    """With their data project; an export has its schedule, or a wrong one that is told."""
    result = converted("Schedule.packages.xml")
    (customers,), (balance,) = result.imports, result.exports
    assert customers == {
        "name": "Customers",
        "group": "Migration",
        "api": "package",
        "dataProject": "Customers migration",
        "overwrite": False,
        "companyFrom": {"separator": "_", "position": 2},
        "template": "customers.zip",
        "ordered": True,
        "orderBy": "size",
        "reverseOrder": True,
        "errorKeys": True,
        "enabled": False,
    }
    assert balance == {
        "name": "Trial-balance",
        "group": "Migration",
        "api": "package",
        "dataProject": "Trial balance",
        "schedule": convert.NIGHTLY,
        "company": "USMF",
        "unzip": True,
        "enabled": False,
    }
    assert result.left_out == 0
    assert any("it has none in the file; set to each night" in note for note in result.notes)


KINDS = ("Upload", "Download", "Import", "Export", "ProcessingMonitor", "ExecutionMonitor")
OPTIONS = {
    "Upload": {"EntityName": "General journal", "OrderBy": "Created"},
    "Download": {"UnzipPackage": "True"},
    "Import": {"ExecuteImport": "True", "InputFilesArePackages": "True", "OrderBy": "FileName"},
    "Export": {"Company": "USMF"},
}


def forty() -> bytes:
    """A Scheduler with 40 jobs of all types, half of them of each of two environments, whose activity ids and
    data projects are the same: the one is a copy of the other."""
    scheduler_jobs = []
    for number in range(40):
        environment, kind = ("contoso", "contoso-test")[number % 2], KINDS[number // 2 % 6]
        options = {
            "AosUri": f"https://{environment}.operations.dynamics.com",
            **OPTIONS.get(kind, {}),
        }
        if kind in ("Import", "Export"):
            options["DataProject"] = f"Project {number // 2}"
        elif "Monitor" not in kind:
            options["ActivityId"] = f"8b7d4c52-1e9a-4f63-8c2b-{number // 2:012}"
        scheduler_jobs.append(Job(kind, f"{kind} {number}", environment, options, ()))
    trigger = (
        "<trigger><cron><job-name>Export 6</job-name><job-group>contoso</job-group>"
        "<cron-expression>0 30 2 ? * MON-FRI *</cron-expression></cron></trigger>"
    )
    return xml(scheduler_jobs).replace(b"</schedule>", trigger.encode() + b"</schedule>")


def test_a_whole_scheduler_of_two_environments_becomes_one_jobs_file() -> None:
    """Every job is there, in its environment, and the file passes the settings check; monitors need no job."""
    result = convert.convert(convert.read(forty()))
    served = jobs.parse(result.text.encode())
    assert [(each.name, each.url) for each in served.environments] == [
        ("contoso", "https://contoso.operations.dynamics.com"),
        ("contoso-test", "https://contoso-test.operations.dynamics.com"),
    ]
    monitors = [note for note in result.notes if ": monitor of" in note]
    assert (len(served.imports) + len(served.exports), len(monitors)) == (28, 12)
    assert result.left_out == 0
    all_jobs: list[jobs.ImportJob | jobs.ExportJob] = [*served.imports, *served.exports]
    assert all(job.environment == job.group for job in all_jobs)
    apis = {(job.api, bool(job.data_project)) for job in all_jobs}
    assert apis == {("recurring", False), ("package", True)}
    (weekdays,) = [each for each in served.exports if each.name == "Export-6"]
    assert weekdays.schedule == "0 30 2 * * MON-FRI"


def test_a_job_of_no_environment_is_told_where_there_are_several() -> None:
    """Nobody can know whose it is."""
    ids = (f"8b7d4c52-1e9a-4f63-8c2b-{number:012}" for number in range(9))
    urls = ["https://a.example", "https://b.example", "", "http://c.example"]
    result = convert.convert([upload(f"j{url}", next(ids), AosUri=url) for url in urls])
    assert [each["environment"] for each in result.imports] == ["a", "b"]
    assert result.left_out == 2
    assert any("environment: missing" in note for note in result.notes)
    assert any("AosUri (http://c.example): must be https" in note for note in result.notes)


@pytest.mark.parametrize(
    ("quartz", "schedule"),
    [
        ("0 0/15 * 1/1 * ? *", "0 */15 * * * *"),
        ("0 0 6 ? * 2-6", "0 0 6 * * 1-5"),
        ("0 0 6 ? * SUN,SAT", "0 0 6 * * SUN,SAT"),
        ("0 5/10 * * * ?", "0 5-59/10 * * * *"),
        ("0 0 0 1 1/3 ?", "0 0 0 1 */3 *"),
        ("0 0 6 L * ?", None),
        ("0 0 6 ? * 6#3", None),
        ("0 0 6 * * ? 2030", None),
        ("not cron", None),
    ],
)
def test_a_quartz_expression_is_the_same_as_ncrontab(quartz: str, schedule: str | None) -> None:
    """Its days of the week count from 1; what NCRONTAB can't say is not guessed."""
    assert convert._from_quartz(quartz) == schedule


@pytest.mark.parametrize(
    ("seconds", "schedule"),
    [
        (1, "* * * * * *"),
        (30, "*/30 * * * * *"),
        (60, "0 * * * * *"),
        (900, "0 */15 * * * *"),
        (3600, "0 0 * * * *"),
        (21600, "0 0 */6 * * *"),
        (86400, "0 0 0 * * *"),
        (0, None),
        (7, None),
        (100, None),
        (5400, None),
        (172800, None),
    ],
)
def test_an_interval_is_a_schedule_where_the_clock_can_be_divided_so(
    seconds: int, schedule: str | None
) -> None:
    """Another one would jump at each full minute, hour or day."""
    assert convert._every(seconds) == schedule


def test_a_template_that_is_not_used_is_told() -> None:
    """The files are packages already: the option does nothing, and the notes say so."""
    job = upload(PackageTemplate="C:\\t.zip", InputFilesArePackages="True")
    result = convert.convert([job])
    assert "template" not in result.imports[0]
    assert "  PackageTemplate: not used, the files are packages already" in result.notes


def test_options_of_sftp_are_told_together_without_a_secret() -> None:
    """The storage account's own SFTP stands for them, or a copy job."""
    sftp = {"UseSftpInbound": "True", "SftpInboundHost": "files.example", "SftpInboundPort": "22"}
    sftp |= {"SftpInboundPassword": "q83v", "UseSftpOutbound": "False", "SftpOutboundHost": ""}
    (line,) = [n for n in convert.convert([upload(**sftp)]).notes if "Sftp" in n]
    keys = "UseSftpInbound, SftpInboundHost, SftpInboundPort, SftpInboundPassword, UseSftpOutbound"
    assert line.startswith(f"  {keys}: let the partners use the storage account's own SFTP")
    assert "q83v" not in line


def test_what_is_said_of_a_job_stays_with_it() -> None:
    """Its description and its group are fields; what holds for every job is said once."""
    scheduler_jobs = [
        Job(
            "Upload",
            f"j{n}",
            "Finance",
            {"ActivityId": ACTIVITY[:-2] + f"{n:02}", **options},
            (),
            "Pay\nroll",
        )
        for n, options in enumerate(
            [{"EntityName": "A", "LogVerbose": "True", "RetryCount": "3"}] * 40
        )
    ]
    result = convert.convert(scheduler_jobs)
    assert {(each["description"], each["group"]) for each in result.imports} == {
        ("Pay roll", "Finance")
    }
    assert len(result.notes) == 40
    assert (
        len([line for line in result.summary if "LogVerbose" in line or "RetryCount" in line]) == 2
    )


def test_every_kind_of_trigger_is_told_of_a_download() -> None:
    """Also a calendar's, and a cron expression with a time zone: the setting that stands for them is in UTC."""
    data = b"""<job-scheduling-data><schedule><job><name>a</name><group>g</group>
      <job-type>RecurringIntegrationsScheduler.Job.Download, x</job-type><job-data-map>
      <entry><key>ActivityId</key><value>8b7d4c52-1e9a-4f63-8c2b-5d6e7f809a03</value></entry></job-data-map></job>
      <trigger><calendar-interval><job-name>a</job-name><job-group>g</job-group>
      <repeat-interval>2</repeat-interval><repeat-interval-unit>Week</repeat-interval-unit>
      </calendar-interval></trigger>
      <trigger><cron><job-name>a</job-name><job-group>g</job-group>
      <cron-expression>0 0 6 * * ?</cron-expression><time-zone>W. Europe Standard Time</time-zone>
      </cron></trigger></schedule></job-scheduling-data>"""
    result = convert.convert(convert.read(data))
    times = "every 2 Week; cron 0 0 6 * * ? in the time zone W. Europe Standard Time"
    assert f"  schedule: {times}" in result.notes
    assert any("EXPORT_SCHEDULE" in line and "in UTC" in line for line in result.summary)


def test_a_pattern_means_what_windows_took_it_for() -> None:
    """There `*.xls` finds .xlsx too; other patterns are as they stand."""
    ids = (f"8b7d4c52-1e9a-4f63-8c2b-{number:012}" for number in range(9))
    patterns = ["*.xls", "GJ*.XLS", "*.csv", "*.xlsx"]
    result = convert.convert([upload(p, next(ids), SearchPattern=p) for p in patterns])
    assert [each["pattern"] for each in result.imports] == ["*.xls*", "GJ*.XLS*", "*.csv", "*.xlsx"]


def test_a_template_keeps_its_name_in_any_alphabet() -> None:
    """It is a blob's name, which may have any letters."""
    result = convert.convert([upload(PackageTemplate="C:\\vorlagen\\Kundenübersicht (é).zip")])
    assert result.imports[0]["template"] == "Kundenübersicht (é).zip"


def test_one_environment_in_two_spellings_is_one() -> None:
    """The host's name has no case, and a slash at its end says nothing."""
    spellings = [
        "https://Contoso.operations.dynamics.com/",
        "https://contoso.operations.dynamics.com",
    ]
    notes = convert.convert([upload(AosUri=url) for url in spellings]).notes
    assert notes[0] == "app setting D365_URL (AosUri): https://contoso.operations.dynamics.com"
    assert not any("environments" in note for note in notes)


def test_a_job_of_a_d365_on_premises_is_left_out() -> None:
    """The bridge can't sign in there: a job that would only ever fail is none."""
    result = convert.convert([upload(UseADAL="True")])
    assert (result.imports, result.left_out) == ([], 1)
    assert any("on premises" in note for note in result.notes)


def test_a_company_of_more_than_four_characters_is_a_mistake() -> None:
    """No legal entity's id is longer: the job is left out with the mistake."""
    result = convert.convert([upload(Company="USMF1")])
    assert result.left_out == 1
    assert any("at most four characters" in note for note in result.notes)


def test_each_input_folder_has_its_azcopy_command() -> None:
    """With the job's own pattern; sub-folders go along where they are the legal entities."""
    ids = (f"8b7d4c52-1e9a-4f63-8c2b-{number:012}" for number in range(9))
    one = upload("one", next(ids), InputDir="C:\\in\\", SearchPattern="*.csv")
    two = upload("two", next(ids), InputDir="/srv/in", GetLegalEntityFromSubfolder="True")
    address = "https://<data account>.blob.core.windows.net/imports"
    result = convert.convert([one, two])
    assert (
        f'  InputDir: azcopy copy "C:\\in\\*" "{address}/one/" --include-pattern "*.csv"'
        in result.notes
    )
    assert f'  InputDir: azcopy copy "/srv/in/*" "{address}/two/" --recursive' in result.notes


def test_no_secret_is_told() -> None:
    """Neither in the jobs file nor in the notes."""
    result = converted("Schedule.xml")
    text = result.text + "\n".join([*result.notes, *result.summary])
    assert "PASSWORD" not in text
    assert "q83v" not in text
    assert "AadClientSecret" in text


def test_a_job_that_would_be_a_mistake_is_left_out_with_the_mistake() -> None:
    """An activity id that is none, or that another job has already."""
    scheduler_jobs = [upload("a"), upload("b"), upload("c", "not a GUID")]
    result = convert.convert(scheduler_jobs)
    assert [each["name"] for each in result.imports] == ["a"]
    assert result.left_out == 2
    text = "\n".join(result.notes)
    assert "a recurring job is served once" in text
    assert "not a GUID" in text


def test_names_stay_apart() -> None:
    """Quartz tells jobs apart by group and name, in any alphabet; a folder can't."""
    ids = [f"8b7d4c52-1e9a-4f63-8c2b-{number:012}" for number in range(5)]
    names = ["In/Out", "In Out", "in out", "日本", "x" * 80]
    result = convert.convert([upload(n, i) for n, i in zip(names, ids, strict=True)])
    assert [each["name"] for each in result.imports] == [
        "In-Out",
        "In-Out-2",
        "in-out-3",
        "job",
        "x" * 63,
    ]


def test_jobs_that_share_a_folder_are_told_apart() -> None:
    """Here each has its own: someone must know."""
    two = upload("b", "8b7d4c52-1e9a-4f63-8c2b-000000000000", InputDir="C:\\in\\")
    text = "\n".join(convert.convert([upload("a", InputDir="c:\\IN"), two]).notes)
    assert "take files from one folder" in text


_BOMB = b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><job-scheduling-data>&c;'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not XML"),
        (b"<job-scheduling-data>", "not XML"),
        (b"<jobs/>", "job-scheduling-data"),
        (_BOMB, "document type"),
        (b'<?xml version="1.0" encoding="utf-77"?><a/>', "not XML"),
        (b" " * (convert.MAX_FILE + 1), "larger than"),
    ],
    ids=["empty", "cut", "other", "entities", "encoding", "huge"],
)
def test_a_file_that_is_none_says_why(data: bytes, says: str) -> None:
    """And no entity in it is ever expanded."""
    with pytest.raises(Unreadable, match=says):
        convert.read(data)


def test_the_command_prints_the_file_and_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the jobs file goes to stdout; the exit code tells whether all is converted."""
    standard, packages = str(SAMPLES / "Schedule.xml"), str(SAMPLES / "Schedule.packages.xml")
    assert convert.main([standard]) == 0
    out, err = capsys.readouterr()
    assert len(jobs.parse(out.encode()).imports) == 2
    assert "0 left out" in err
    assert convert.main([standard, packages]) == 0
    out, err = capsys.readouterr()
    assert len(jobs.parse(out.encode()).environments) == 2
    on_premises = tmp_path / "on-premises.xml"
    on_premises.write_bytes(xml([upload(UseADAL="True")]))
    assert convert.main([standard, str(on_premises)]) == 1
    assert "LEFT OUT" in capsys.readouterr().err
    assert convert.main([str(tmp_path / "none.xml")]) == 2
    assert capsys.readouterr().out == ""


def test_the_file_is_written_and_none_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For shells whose redirection changes the encoding; jobs that are there already are not lost."""
    out = tmp_path / "jobs.json"
    arguments = [str(SAMPLES / "Schedule.xml"), "--out", str(out)]
    assert convert.main(arguments) == 0
    assert len(jobs.load(out).imports) == 2
    out.write_text("{}")
    assert convert.main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "{}"


_KEYS = sorted(
    {*convert.ELSEWHERE, "ActivityId", "EntityName", "IsDataPackage", "Company", "InputDir"}
    | {"SearchPattern", "OrderBy", "ReverseOrder", "UploadInOrder", "DelayBetweenFiles"}
    | {"UnzipPackage", "DeletePackage", "IndefinitePause", "DataProject", "PackageTemplate"}
    | {"MultiCompanyImport", "GetLegalEntityFromFilename", "FilenameSeparator"}
    | {
        "LegalEntityTokenPosition",
        "InputFilesArePackages",
        "GetImportTargetErrorKeysFile",
        "Unheard",
        "UseSftpInbound",
        "SftpOutboundRemoteFolder",
        "DownloadSuccessDir",
    }
)
_texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
_values = st.sampled_from(["True", "False", "3", ACTIVITY, "*.csv", "Size", "*.*"]) | _texts
_kinds = st.sampled_from([*convert._IMPORTS, *convert._EXPORTS, *convert._MONITORS, "Odd"])
_jobs = st.lists(
    st.builds(
        Job,
        _kinds,
        _texts.map(str.strip),
        _texts.map(str.strip),
        st.dictionaries(st.sampled_from(_KEYS), _values.map(str.strip), max_size=10),
        st.just(()),
    ),
    max_size=5,
)


def xml(scheduler_jobs: list[Job]) -> bytes:
    """The jobs as the Scheduler would write them."""
    return (
        '<job-scheduling-data xmlns="http://quartznet.sourceforge.net/JobSchedulingData"><schedule>'
        + "".join(
            f"<job><name>{escape(job.name)}</name><group>{escape(job.group)}</group>"
            f"<job-type>RecurringIntegrationsScheduler.Job.{job.kind}, x</job-type><job-data-map>"
            + "".join(
                f"<entry><key>{key}</key><value>{escape(value)}</value></entry>"
                for key, value in job.options.items()
            )
            + "</job-data-map></job>"
            for job in scheduler_jobs
        )
        + "</schedule></job-scheduling-data>"
    ).encode()


@given(_jobs)
@example([convert.Job("Upload", "", "", {"UseADAL": "True", "ActivityId": "True"}, ())])
def test_any_jobs_become_a_valid_file_and_nothing_is_dropped(scheduler_jobs: list[Job]) -> None:
    """Each job is in the file or in the notes; each option that is set is in a field or named in the notes."""
    assert convert.read(xml(scheduler_jobs)) == scheduler_jobs
    result = convert.convert(scheduler_jobs)
    jobs.parse(result.text.encode())
    notes = "\n".join(result.notes)
    assert len(result.summary) == len(set(result.summary))
    for job in scheduler_jobs:
        assert str(job) in notes
    assert result.left_out == notes.count("LEFT OUT\n") + notes.endswith("LEFT OUT")
    for job in scheduler_jobs:
        if job.on("UseADAL"):
            continue  # it stays where it is, as it is
        job_result = convert.convert([job])
        words = job_result.text + "\n".join([*job_result.notes, *job_result.summary])
        for key, value in job.options.items():
            if value not in ("", "False", "0") and job.kind != "Odd":
                assert key in words or FIELDS.get(key, key) in words or is_nothing(job, key), words


FIELDS = {
    "ActivityId": '"activityId"',
    "Company": '"company"',
    "EntityName": '"entity"',
    "SearchPattern": '"pattern"',
    "OrderBy": '"ordered"',
    "DelayBetweenFiles": '"pauseBetweenFiles"',
    "ReverseOrder": '"reverseOrder"',
    "UploadInOrder": '"onFailure"',
    "GetLegalEntityFromFilename": '"companyFrom"',
    "FilenameSeparator": '"companyFrom"',
    "LegalEntityTokenPosition": '"companyFrom"',
    "UnzipPackage": '"unzip"',
    "DataProject": '"dataProject"',
}
"""The field that tells of an option."""


YES_OR_NO = {"UnzipPackage", "DeletePackage", "IndefinitePause", "ReverseOrder", "UploadInOrder"}
YES_OR_NO |= {"IsDataPackage", "MultiCompanyImport"}


def is_nothing(job: Job, key: str) -> bool:
    """Whether an option as it stands does nothing in the Scheduler, or nothing beside the others."""
    return (
        (key in YES_OR_NO and not job.on(key))
        or key in ("IsDataPackage", "MultiCompanyImport")
        or (key in ("ActivityId", "IndefinitePause") and job.kind in convert._MONITORS)
        or (key == "DeletePackage" and not job.on("UnzipPackage"))
        or (key == "SearchPattern" and job.option(key) in ("*", "*.*"))
        or (key == "ReverseOrder" and not job.option("OrderBy"))
    )


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_jobs_or_unreadable(data: bytes) -> None:
    """The reader fails in no other way."""
    for each in (data, b"<job-scheduling-data>" + data + b"</job-scheduling-data>"):
        with contextlib.suppress(Unreadable):
            jobs.parse(convert.convert(convert.read(each)).text.encode())
