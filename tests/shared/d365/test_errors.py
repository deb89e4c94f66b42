"""What the text of an error may hold: it goes into logs, reports and terminals."""

import pytest

from shared.d365.errors import Denied, NotAccepted, Rejected, Unavailable, Uncertain


@pytest.mark.parametrize("kind", [Unavailable, Denied, Rejected, Uncertain])
def test_the_text_of_an_error_is_harmless(kind: type[Unavailable | Uncertain]) -> None:
    """A3: no signature, no command to a terminal, and no more than a person reads; whatever D365 says."""
    message = "see https://x.blob/y?sv=1&sig=S3CRET%3D\x1b[2J\r\n" + "x" * 1_000_000
    error = kind("dequeue", message, 503)
    assert str(error).startswith("dequeue: see https://x.blob/y?sv=1&sig=[redacted]")
    assert not {"\x1b", "\r"} & set(str(error))
    assert len(str(error)) < 5000
    assert error.status == 503


def test_only_an_uncertain_error_leaves_a_doubt() -> None:
    """I2: what is `NotAccepted` may be sent again."""
    assert all(issubclass(kind, NotAccepted) for kind in (Unavailable, Denied, Rejected))
    assert not issubclass(Uncertain, NotAccepted)
