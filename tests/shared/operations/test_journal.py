"""The journal: what many write at once, what waits for the next write, and that it stops nothing."""

import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from local.azurite import Azurite
from local.host_process import ROOT
from shared import clock
from shared.observability.events import emit
from shared.operations import journal
from shared.operations.journal import JOURNAL
from shared.storage.account import DataAccount
from tests.helpers import succeed, wait_for

ENDING: Final = """
import json, os, signal, sys
from shared.config import jobs
from shared.config.environments import ONLY, Environment
from shared.config.settings import Storage
from shared.observability.events import emit
from shared.operations import journal
from shared.storage.account import connect
account = connect(Storage(sys.argv[1], None, None, None))
journal.keep(account, jobs.parse(b"{}"))
for number in range(3):
    emit("export.finished", job=str(number), packages=1, failed=0, seconds=1)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_the_journal_keeps_what_many_write_at_once(noted: DataAccount) -> None:
    """Sixteen threads, the container and the hour's blob not there yet: no line is lost, none is torn."""

    def write(number: int) -> None:
        for each in range(5):
            succeed(f"{number}-{each}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recent = journal.recent(noted)
    assert len({entry.fields["file"] for entry in recent.entries}) == 80
    assert recent.complete


def test_what_is_noted_soon_after_a_write_goes_with_the_next(
    noted: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line is there at once; of a hundred that follow no two are written alone, and none is lost."""
    appended: list[int] = []
    append = journal._append

    def counting(account: DataAccount, now: datetime, lines: bytes) -> None:
        append(account, now, lines)
        appended.append(lines.count(b"\n"))

    monkeypatch.setattr(journal, "_append", counting)
    monkeypatch.setattr(journal, "EVERY", 1.0)
    for number in range(101):
        succeed(f"{number}")
        assert appended[:1] == [1]
    wait_for(lambda: sum(appended) == 101)
    assert len(appended) < 50
    files = [entry.fields["file"] for entry in journal.recent(noted).entries]
    assert files == [f"{number}" for number in range(101)]


def test_quiet_runs_are_noted_now_and_then(
    noted: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that found nothing is written once in a quarter of an hour, one that did something always."""
    moment = datetime.now(UTC) - timedelta(hours=2)

    def run(minutes: int, packages: int = 0) -> None:
        monkeypatch.setattr(clock, "now", lambda: moment + timedelta(minutes=minutes))
        emit("export.finished", job="j", packages=packages, failed=0, seconds=0)

    for minutes in range(0, 60, 5):
        run(minutes)
    run(57, packages=1)
    monkeypatch.setattr(clock, "now", lambda: moment + timedelta(hours=1))
    entries = journal.recent(noted).entries
    assert [entry.fields["packages"] for entry in entries] == [0, 0, 0, 0, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_the_journal_has_its_last_lines_where_the_process_is_ended(
    noted: DataAccount, azurite: Azurite
) -> None:
    """By SIGTERM, as a host ends it; and it ends."""
    command = [sys.executable, "-c", ENDING, azurite.connection_string]
    ended = subprocess.run(command, cwd=ROOT, check=False, timeout=60)
    assert ended.returncode == -signal.SIGTERM
    assert [entry.fields["job"] for entry in journal.recent(noted).entries] == ["0", "1", "2"]


def test_a_journal_that_can_t_be_written_stops_nothing(
    noted: DataAccount, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A block blob stands where the hour's lines should go: the event is logged, and a warning."""
    name = f"{clock.now():%Y/%m/%d/%H}.jsonl"
    succeed("1")
    noted.blobs.get_blob_client(JOURNAL, name).delete_blob()
    noted.blobs.get_blob_client(JOURNAL, name).upload_blob(b"something else")
    succeed("2")
    assert "lines that the journal lacks: 1" in caplog.text
    assert journal.recent(noted).entries == []
