"""Notes on what was delivered: a message is known again by its file, whatever id it comes with."""

import pytest

from shared.d365 import DequeuedMessage
from shared.exports import deliveries
from shared.exports.deliveries import Delivery
from shared.storage.account import DataAccount

BASE = "https://d365.example/api/connector/download"


def key(location: str) -> str:
    """What stands for a location."""
    return deliveries.location_key(DequeuedMessage("x", location, b"{}"))


@pytest.mark.parametrize(
    "same",
    [
        f"{BASE}/a?blob=b&correlation-id=2",
        f"{BASE}/a?Correlation-Id=3&blob=b",
        f"{BASE}/a?correlationid=4&blob=b",
        "http://gateway:8080/api/connector/download/a?blob=b",
        "/api/connector/download/a?blob=b&correlation-id=",
    ],
)
def test_a_file_has_one_key_under_each_id_and_address(same: str) -> None:
    """D365 offers it again under a new correlation id, and may have several hosts."""
    assert key(same) == key(f"{BASE}/a?correlation-id=1&blob=b")


@pytest.mark.parametrize(
    "other",
    [
        f"{BASE}/a?correlation-id=1&blob=c",
        f"{BASE}/b?correlation-id=1&blob=b",
        f"{BASE}/a?correlation-id=1&blob=b&part=",
        f"{BASE}/a?correlation-id=1",
        "https://[",
    ],
)
def test_another_file_has_another_key(other: str) -> None:
    """Also where only the query says which it is, and where the location is no URL."""
    assert key(other) != key(f"{BASE}/a?correlation-id=1&blob=b")


def test_where_only_the_id_says_which_file_it_is_each_id_is_one() -> None:
    """Or two packages would be taken for one, and the second be lost."""
    assert key(f"{BASE}/a?correlation-id=1") != key(f"{BASE}/a?correlation-id=2")


def test_a_note_gives_back_what_was_noted(account: DataAccount) -> None:
    """By the bytes and by the message, of this job alone; headers carry no other letters than ASCII."""
    delivery = Delivery(
        "vendors/日 %41.zip", "ab12", "{日 %41}", "key", "2026-11-28T04:00:00+00:00"
    )
    assert deliveries.of_content(account, "vendors", "ab12") is None
    assert deliveries.of_message(account, delivery.blob) is None
    deliveries.note_content(account, "vendors", delivery)
    deliveries.note_message(account, delivery)
    for noted in (
        deliveries.of_content(account, "vendors", "ab12"),
        deliveries.of_message(account, "vendors/日 %41.csv"),
    ):
        assert noted
        assert noted == delivery
        assert (noted.correlationid, noted.location) == ("{日 %41}", "key")
    assert deliveries.of_content(account, "customers", "ab12") is None
