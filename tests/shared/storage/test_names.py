"""Names of blobs: what they follow from, what they keep, and that nothing in them escapes."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.storage import names, records
from shared.storage.records import Record, State

WHEN = datetime(2026, 11, 23, 20, 41, 38, tzinfo=UTC)
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00\r\n", exclude_categories=["Cs", "Cc"]),
    min_size=1,
    max_size=1024,
)


def test_a_stamped_name_keeps_path_stem_and_ending() -> None:
    """A person finds the file again, and a program by its ending."""
    name = names.stamped("journals/USMF/may 5.csv", WHEN, '"0x1"')
    assert name.startswith("journals/USMF/may 5.20261123T204138Z-")
    assert name.endswith(".csv")


def test_the_same_version_has_one_name_and_every_other_another() -> None:
    """The claim's whole strength (I1)."""
    one = names.stamped("j/a.csv", WHEN, '"0x1"')
    assert one == names.stamped("j/a.csv", WHEN, '"0x1"')
    assert one != names.stamped("j/a.csv", WHEN, '"0x2"')
    assert one != names.stamped("j/b.csv", WHEN, '"0x1"')


@given(NAMES, NAMES)
def test_any_name_has_room_for_stamp_and_report(one: str, other: str) -> None:
    """1,024 characters are the limit of a blob's name, its error report's included."""
    name = names.stamped(one, WHEN, "e")
    assert len((name + ".error.json").encode("utf-16-le")) <= 2 * 1024
    assert one == other or name != names.stamped(other, WHEN, "e")
    identifier = names.external_id(name)
    assert len(identifier) <= 128
    assert identifier.isascii()
    assert identifier.isprintable()


@given(NAMES, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=2000))
def test_a_record_survives_its_metadata(source: str, reason: str) -> None:
    """The path whatever it is; a long reason may lose its end. All of it fits into 8 KiB of ASCII."""
    record = Record(job="j", source=source, reason=reason, attempts=3, sourceetag='"0x1"')
    metadata = records.to_metadata(record, {})
    assert all(value.isascii() and value.isprintable() for value in metadata.values())
    assert sum(len(key) + len(value) for key, value in metadata.items()) < 8 * 1024
    actual, user_metadata = records.from_metadata(metadata)
    assert replace(actual, reason="") == replace(record, reason="")
    assert user_metadata == {}


def test_the_droppers_metadata_stays_but_never_speaks_for_us() -> None:
    """Somebody who drops a file with `messageid` in its metadata changes nothing."""
    record = Record(job="j", state=State.CLAIMED)
    metadata = records.to_metadata(record, {"Owner": "ann", "MessageId": "evil", "state": "sent"})
    assert metadata == {"Owner": "ann", "job": "j", "state": "claimed"}


def test_metadata_that_leaves_no_room_for_ours_is_dropped() -> None:
    """Storage refuses more than 8 KiB; the file matters more than its decoration."""
    assert records.to_metadata(Record(job="j"), {"a": "x" * 8000}) == {"job": "j"}


@pytest.mark.parametrize(
    "correlation_id", ["../x", "a/b", "", "a\nb", "é", "x" * 500, "..", ".", "a."]
)
def test_a_correlation_id_that_is_no_name_is_hashed(correlation_id: str) -> None:
    """It comes from outside, and must not leave the job's folder (A4)."""
    name = names.package_name("job", correlation_id)
    assert name.count("/") == 1
    assert len(name) == len("job/.zip") + 64


def test_a_second_package_under_one_id_has_its_own_name() -> None:
    """E2: the same id with other bytes never overwrites."""
    assert names.package_name("j", "abc") == "j/abc.zip"
    assert names.package_name("j", "abc", "f" * 64) == "j/abc.ffffffffffff.zip"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("j/ may.csv", "%20may."), ("j/  .csv", "%20%20."), ("j/may .csv", "may .")],
)
def test_an_external_id_can_stand_in_a_header(name: str, shown: str) -> None:
    """No space at its beginning."""
    stamped = names.stamped(name, datetime(2026, 11, 24, tzinfo=UTC), '"0x1"')
    assert names.external_id(stamped).startswith(shown)


def test_a_probe_is_told_from_a_file_of_such_a_name() -> None:
    """What a person drops is never deleted as a probe."""
    assert names.is_probe(names.new_probe())
    assert not names.is_probe(".check-list.csv")


def test_a_stamped_name_gives_back_its_path_and_time() -> None:
    """Names with dots, without a suffix, and names that were never stamped."""
    moment = datetime(2026, 5, 1, 12, 30, 5, tzinfo=UTC)
    for path in ("j/USMF/may.csv", "j/may", "j/a.b.c.xml", "j/.hidden"):
        name = names.stamped(path, moment, '"0x1"')
        assert (names.unstamped(name), names.dropped_at(name)) == (path, moment)
    assert names.unstamped("j/may.csv") == "j/may.csv"
    assert names.dropped_at("j/may.99999999T999999Z-00000000.csv") is None
