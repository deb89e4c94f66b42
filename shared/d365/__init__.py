"""Dynamics 365: the client, its transport, what responses mean, and what each error proves."""

from shared.d365.client import D365, DequeuedMessage, Download
from shared.d365.responses import MessageId
from shared.d365.transport import LONGEST_WAIT

__all__ = ["D365", "LONGEST_WAIT", "DequeuedMessage", "Download", "MessageId"]
