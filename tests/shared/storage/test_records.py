"""Records: what metadata says of a file."""

import pytest

from shared.storage import records
from shared.storage.account import DataAccount
from shared.storage.records import Record


@pytest.mark.parametrize("value", ["base64:1B2M2Y8AsgTpgAmY7PhCfg==", "base64:no", "%zz", "é%"])
def test_metadata_of_others_is_not_read(account: DataAccount, value: str) -> None:
    """What a program writes there for itself can't stop us."""
    user_metadata, our_metadata = {"checksum": value}, {"reason": value}
    assert records.from_metadata(user_metadata) == (Record(), user_metadata)
    assert records.from_metadata(our_metadata)[0].reason
    assert not records.from_metadata(our_metadata)[1]
