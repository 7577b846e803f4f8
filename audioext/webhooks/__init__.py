"""Where webhooks arrive: the framework-free inbox, and its aiohttp face, the receiver."""

from audioext.webhooks.inbox import Inbox
from audioext.webhooks.receiver import MaskedAccessLogger, Receiver

__all__ = ["Inbox", "MaskedAccessLogger", "Receiver"]
