"""Claims and moves on real storage: of all who try, one gets a file, and nothing is lost on its way."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from shared.storage import files, moves, transfer
from shared.storage.account import IMPORTS, PROCESSING, SUCCEEDED, DataAccount
from shared.storage.errors import Conflict, Leased
from shared.storage.records import File, Record, State
from tests.helpers import drop_file, listed_names

RECORD = Record(job="j", state=State.CLAIMED, claimed="2026-11-23T20:00:00+00:00")


def content(account: DataAccount, container: str, name: str) -> bytes:
    return account.blobs.get_blob_client(container, name).download_blob().readall()


def test_a_claim_moves_the_version_with_its_metadata(account: DataAccount) -> None:
    """Bytes, content and the dropper's metadata stay; ours is added."""
    dropped = drop_file(account, "j/a b%#+é.csv", owner="ann")
    claimed = moves.claim(account, dropped, RECORD)
    assert claimed is not None
    assert listed_names(account, IMPORTS) == []
    file = files.find(account, PROCESSING, claimed.name)
    assert file is not None
    assert (file.etag, file.record) == (claimed.etag, claimed.record)
    assert file.user_metadata == {"owner": "ann"}
    assert file.record.source == "j/a b%#+é.csv"
    assert content(account, PROCESSING, claimed.name) == b"1;2"


def test_of_many_claims_of_one_version_one_file_comes(account: DataAccount) -> None:
    """I1: and everybody learns of the same file, so that whoever goes on must win its ETag."""
    dropped = drop_file(account, "j/a.csv")
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: moves.claim(account, dropped, RECORD), range(8)))
    assert len(listed_names(account, PROCESSING)) == 1
    assert len({claim.etag for claim in claims if claim}) == 1


def test_a_leased_file_is_not_claimed_as_released(account: DataAccount) -> None:
    """Its writer isn't done with it: it is not sent, and whoever reads the error knows what to do."""
    dropped = drop_file(account, "j/a.csv")
    lease = account.blobs.get_blob_client(IMPORTS, "j/a.csv").acquire_lease()
    for _ in range(2):
        with pytest.raises(Leased, match="has a lease"):
            moves.claim(account, dropped, RECORD)
    lease.release()
    claimed = moves.claim(account, dropped, RECORD)
    assert claimed is not None
    assert listed_names(account, PROCESSING) == [claimed.name]
    assert listed_names(account, IMPORTS) == []


def test_a_copy_through_this_process_that_another_has_made_is_not_ours(
    account: DataAccount,
) -> None:
    """Its worker may have gone on with it: the present record counts, not the one that was to be written."""
    dropped = drop_file(account, "j/" + "中" * 240 + ".csv")
    first = moves.claim(account, dropped, RECORD)
    assert first is not None
    sent = files.update(account, first, replace(first.record, state=State.SENT))
    again = drop_file(account, dropped.name)
    assert moves._copy(account, again, first.container, first.name, RECORD) is None
    assert files.find(account, first.container, first.name) == replace(
        sent,
        modified=files.find(account, first.container, first.name).modified,  # type: ignore[union-attr]
    )


def test_a_second_claim_never_overwrites_the_first(
    account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes late finds how far the file has come, and not a fresh claim."""
    monkeypatch.setattr(moves, "release_source", lambda *_: True)  # as if no delete came through
    dropped = drop_file(account, "journals/may.csv")
    first = moves.claim(account, dropped, Record(job="journals", state=State.CLAIMED))
    assert first
    files.update(account, first, replace(first.record, state=State.SENT, messageid="1"))
    late = moves.claim(account, dropped, Record(job="journals", state=State.CLAIMED))
    assert late
    assert (late.record.state, late.record.messageid) == ("sent", "1")


def test_a_version_that_was_overwritten_is_not_claimed(account: DataAccount) -> None:
    """The newer one stays where it was dropped, for its own event."""
    old = drop_file(account, "j/a.csv", b"old")
    drop_file(account, "j/a.csv", b"new")
    assert moves.copy_claim(account, old, RECORD) is None
    assert listed_names(account, PROCESSING) == []
    assert moves.claim(account, old, RECORD) is None
    assert listed_names(account, PROCESSING) == []
    assert content(account, IMPORTS, "j/a.csv") == b"new"


def test_a_file_dropped_again_under_its_name_is_another_file(account: DataAccount) -> None:
    """Both are kept, under two names."""
    for data in (b"one", b"two"):
        assert moves.claim(account, drop_file(account, "j/a.csv", data), RECORD)
    assert len(listed_names(account, PROCESSING)) == 2


def test_a_claim_overtaken_by_a_new_version_leaves_the_new_one(
    account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overwritten between our copy and our delete: the copy is the old version, and the new one stays."""
    dropped = drop_file(account, "j/a.csv", b"old")
    release = moves.release_source

    def overwritten_first(account: DataAccount, claimed: File) -> bool:
        drop_file(account, "j/a.csv", b"new")
        return release(account, claimed)

    monkeypatch.setattr(moves, "release_source", overwritten_first)
    claimed = moves.claim(account, dropped, RECORD)
    assert claimed is not None
    assert content(account, PROCESSING, claimed.name) == b"old"
    assert content(account, IMPORTS, "j/a.csv") == b"new"


@pytest.mark.parametrize("letter", ["x", "日", "é", "😀"])
def test_the_longest_names_are_claimed_and_moved(account: DataAccount, letter: str) -> None:
    """1,024 characters; in other alphabets their URL is too long for a server-side copy."""
    name = f"j/{letter * (1018 // (len(letter.encode('utf-16-le')) // 2))}.csv"
    dropped = drop_file(account, name)
    claimed = moves.claim(account, dropped, RECORD)
    assert claimed is not None
    file = files.find(account, PROCESSING, claimed.name)
    assert file is not None
    assert file.record.source == name
    moves.move(account, file, SUCCEEDED, replace(file.record, state=State.SUCCEEDED))
    assert listed_names(account, IMPORTS) == listed_names(account, PROCESSING) == []
    assert content(account, SUCCEEDED, claimed.name) == b"1;2"


def test_a_large_file_that_is_copied_by_us_goes_in_blocks(account: DataAccount) -> None:
    """It is read in larger parts than it is written in."""
    data = random.Random(1).randbytes(transfer.PART + transfer.BLOCK + 7)
    claimed = moves.claim(account, drop_file(account, f"j/{'日' * 300}.csv", data), RECORD)
    assert claimed is not None
    assert content(account, PROCESSING, claimed.name) == data
    blob = account.blobs.get_blob_client(PROCESSING, claimed.name)
    sizes = {block.size for block in blob.get_block_list()[0]}
    assert sizes == {transfer.BLOCK, 7}


@pytest.mark.parametrize("name", ["j/a.csv", f"j/{'日' * 300}.csv"], ids=["storage", "we"])
def test_a_copy_has_the_headers_of_the_file(account: DataAccount, name: str) -> None:
    """Whoever copies it: without its encoding nobody could read what is compressed."""
    drop_file(account, name)
    headers = ContentSettings("text/csv", "gzip", "de", "attachment", "no-cache")
    account.blobs.get_blob_client(IMPORTS, name).set_http_headers(headers)
    dropped = files.find(account, IMPORTS, name)
    assert dropped is not None
    claimed = moves.claim(account, dropped, RECORD)
    assert claimed is not None
    copied = account.blobs.get_blob_client(PROCESSING, claimed.name).get_blob_properties()
    copied.content_settings.content_md5 = None  # storage's own, where it gets all bytes at once
    assert copied.content_settings == headers


def test_a_move_that_was_half_done_is_finished(account: DataAccount) -> None:
    """A crash after the copy: the next try finds it and only deletes."""
    claimed = moves.claim(account, drop_file(account, "j/a.csv"), RECORD)
    assert claimed is not None
    copied = account.blobs.get_blob_client(SUCCEEDED, claimed.name)
    copied.upload_blob(b"1;2")
    moves.move(account, claimed, SUCCEEDED, claimed.record)
    assert listed_names(account, PROCESSING) == []
    assert listed_names(account, SUCCEEDED) == [claimed.name]


def test_a_move_never_deletes_what_was_not_copied(account: DataAccount) -> None:
    """I4: with other content under the target's name, both stay."""
    claimed = moves.claim(account, drop_file(account, "j/a.csv"), RECORD)
    assert claimed is not None
    account.blobs.get_blob_client(SUCCEEDED, claimed.name).upload_blob(b"something else")
    with pytest.raises(RuntimeError, match="other content"):
        moves.move(account, claimed, SUCCEEDED, claimed.record)
    assert listed_names(account, PROCESSING) == [claimed.name]


@pytest.mark.parametrize("status", ["failed", "aborted"])
def test_a_copy_that_did_not_succeed_is_no_copy(
    account: DataAccount, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """I4: the source stays, and the name is free again for the next try."""
    dropped = drop_file(account, "j/a.csv")
    start = BlobClient.start_copy_from_url

    def broken(self: BlobClient, *args: object, **kwargs: object) -> dict[str, object]:
        return {**start(self, *args, **kwargs), "copy_status": status}  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(BlobClient, "start_copy_from_url", broken)
        with pytest.raises(RuntimeError, match=status):
            moves.claim(account, dropped, RECORD)
    assert listed_names(account, IMPORTS) == ["j/a.csv"]
    assert listed_names(account, PROCESSING) == []
    assert moves.claim(account, dropped, RECORD)


def test_metadata_written_while_a_file_is_taken_makes_no_second_file(
    account: DataAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An uploader writes the file, then metadata. The same bytes must not be sent once for each of the two."""
    dropped = drop_file(account, "j/a.csv", b"1;2")
    copy = moves.copy_claim

    def then_touched(*args: Any) -> File | None:
        file = copy(*args)
        blob = account.blobs.get_blob_client(IMPORTS, "j/a.csv")
        blob.set_blob_metadata({"uploadedby": "me"})
        return file

    with monkeypatch.context() as patch:
        patch.setattr(moves, "copy_claim", then_touched)
        assert moves.claim(account, dropped, RECORD) is None
    assert listed_names(account, PROCESSING) == []
    now = files.find(account, IMPORTS, "j/a.csv")
    assert now
    claimed = moves.claim(account, now, RECORD)
    assert claimed
    assert claimed.user_metadata == {"uploadedby": "me"}


@pytest.mark.parametrize(("status", "left"), [("pending", 1), ("failed", 0)])
def test_a_move_trusts_no_copy_that_is_not_whole(
    account: DataAccount, monkeypatch: pytest.MonkeyPatch, status: str, left: int
) -> None:
    """Another worker's is still on its way, or never will be whole: the file stays, and the name gets free."""
    file = drop_file(account, "j/a.csv", b"1;2")
    account.blobs.get_blob_client(SUCCEEDED, "j/a.csv").upload_blob(b"1;2")
    find = files.find

    def seen(at: DataAccount, container: str, name: str) -> File | None:
        present = find(at, container, name)
        return replace(present, copy_status=status) if present else None

    with monkeypatch.context() as patch:
        patch.setattr(files, "find", seen)
        with pytest.raises(Conflict):
            moves.move(account, file, SUCCEEDED, RECORD)
    assert listed_names(account, IMPORTS) == ["j/a.csv"]
    assert len(listed_names(account, SUCCEEDED)) == left


@pytest.mark.parametrize("size", [4, transfer.PART + 9])
@pytest.mark.parametrize("same", [True, False])
def test_without_an_md5_the_bytes_say_whether_it_is_the_same_file(
    account: DataAccount, monkeypatch: pytest.MonkeyPatch, size: int, same: bool
) -> None:
    """Storage computes none for what comes in blocks. The same bytes make one file, others of the same size
    make two, though they differ in their last byte alone."""
    data = bytes(size - 1)
    blob = account.blobs.get_blob_client(IMPORTS, "j/a.csv")

    def write(end: bytes) -> None:
        blob.stage_block("AAAA", data + end)
        blob.commit_block_list([BlobBlock("AAAA")])

    write(b"1")
    dropped = files.find(account, IMPORTS, "j/a.csv")
    assert dropped
    copy = moves.copy_claim

    def then_written_again(*args: Any) -> File | None:
        file = copy(*args)
        write(b"1" if same else b"2")
        return file

    with monkeypatch.context() as patch:
        patch.setattr(moves, "copy_claim", then_written_again)
        claimed = moves.claim(account, dropped, RECORD)
    assert (claimed is None) == same
    assert listed_names(account, IMPORTS) == ["j/a.csv"]
    assert len(listed_names(account, PROCESSING)) == (not same)
