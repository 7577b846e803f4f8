"""Receiving webhooks: the framework-free inbox, and the aiohttp receiver on top of it."""

from audioext.webhooks.inbox import Inbox
from audioext.webhooks.receiver import MaskedAccessLogger, Receiver

__all__ = ["Inbox", "MaskedAccessLogger", "Receiver"]
