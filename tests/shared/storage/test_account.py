"""The data account's clients."""

import base64

from shared.storage.account import STATUS_QUEUE, DataAccount


def test_a_message_lies_on_the_queue_as_the_trigger_decodes_it(account: DataAccount) -> None:
    """In Base64, which is the host's default; read by our own client it is the text again."""
    text = '{"file": "journals/日.csv"}'
    account.queue(STATUS_QUEUE).send_message(text)
    (message,) = account.queues.get_queue_client(STATUS_QUEUE).peek_messages()
    assert base64.b64decode(message.content, validate=True).decode() == text
    (message,) = account.queue(STATUS_QUEUE).receive_messages()
    assert message.content == text
