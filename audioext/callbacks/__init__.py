"""Where webhooks arrive: the framework-free inbox, and its aiohttp face, the receiver."""

from audioext.callbacks.inbox import Inbox
from audioext.callbacks.receiver import MaskedAccessLogger, Receiver

__all__ = ["Inbox", "MaskedAccessLogger", "Receiver"]
