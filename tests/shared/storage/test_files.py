"""Files: what a file is, and writes that only one worker makes."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shared.storage import files, moves, names
from shared.storage.account import FAILED, IMPORTS, DataAccount
from shared.storage.errors import Conflict
from shared.storage.records import Record, State
from tests.helpers import drop_file, listed_names

RECORD = Record(job="j", state=State.CLAIMED, claimed="2026-11-23T20:00:00+00:00")


def test_of_two_updates_of_one_version_one_is_lost(account: DataAccount) -> None:
    """Whoever reads an old version can't write over a newer one."""
    claimed = moves.claim(account, drop_file(account, "j/a.csv"), RECORD)
    assert claimed is not None
    files.update(account, claimed, replace(claimed.record, state=State.SENDING, sender="one"))
    with pytest.raises(Conflict):
        files.update(account, claimed, replace(claimed.record, state=State.SENDING, sender="two"))


def test_an_update_whose_answer_was_lost_is_known_again(account: DataAccount) -> None:
    """The SDK's second try meets the first one's result."""
    claimed = moves.claim(account, drop_file(account, "j/a.csv"), RECORD)
    assert claimed is not None
    intent = replace(claimed.record, state=State.SENDING, sender="one")
    first = files.update(account, claimed, intent)
    assert files.update(account, claimed, intent).etag == first.etag


def test_only_what_lies_beside_a_failed_file_is_no_file() -> None:
    """People may name folders and files as we do."""
    stamped = names.stamped("j/a.csv", datetime(2026, 5, 1, tzinfo=UTC), '"0x1"')
    for beside in (f"{stamped}.error.json", f"{stamped}.error.keys/General journal.txt"):
        assert not files.is_file(FAILED, beside, None)
    lookalike = names.stamped("j/a.error.keys/may.txt", datetime(2026, 5, 1, tzinfo=UTC), '"0x1"')
    assert files.is_file(FAILED, lookalike, None)


def test_snapshots_go_with_their_file(account: DataAccount) -> None:
    """A blob with snapshots can't be deleted alone: it would lie in imports for ever, and never be sent."""
    dropped = drop_file(account, "j/a.csv", b"1;2")
    account.blobs.get_blob_client(IMPORTS, "j/a.csv").create_snapshot()
    assert moves.claim(account, dropped, RECORD)
    assert listed_names(account, IMPORTS) == []
