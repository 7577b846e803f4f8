"""audioext turns a paid, minutes-long music task at somebody else's API into an `await` that cannot be lost."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from audioext.version import __version__

if TYPE_CHECKING:  # for type checkers; at run time a name is loaded when it is first asked for
    from audioext.check.report import CheckLine, CheckReport
    from audioext.client import Client
    from audioext.clock import Clock
    from audioext.errors import (
        AudioextError,
        AuthError,
        ConfigError,
        ContentError,
        CreditsError,
        DecodeError,
        DownloadError,
        GiveUp,
        KeyConflictError,
        Problem,
        ProviderDownError,
        ProviderError,
        RateLimitError,
        RequestError,
        RetryLater,
        SourceError,
        StoreError,
        UnsupportedError,
        WebhookError,
    )
    from audioext.http.messages import HttpRequest, HttpResponse, Part, Webhook
    from audioext.models.entries import Entry
    from audioext.models.limits import Limits, Pace
    from audioext.models.record import Record, Verdict
    from audioext.models.requests import (
        AddInstrumental,
        AudioFile,
        Extend,
        ExtendOptions,
        InstrumentalOptions,
        Operation,
        Request,
    )
    from audioext.models.results import FailureReason, SaveProgress, Song, Source, Stage, TimedLine, Track
    from audioext.models.stats import Histogram, Stats
    from audioext.providers.base import FileRoute, Provider, ProviderInfo
    from audioext.providers.kie import Kie
    from audioext.providers.kie_jobs import KieJobs
    from audioext.providers.musicgpt import MusicGpt
    from audioext.providers.sunoapi import SunoApi
    from audioext.providers.vidgo import Vidgo
    from audioext.runtime.handlers import FailureHandler, StageHandler
    from audioext.runtime.jobs import (
        ClientClosedError,
        Failure,
        Job,
        JobError,
        JobExpiredError,
        JobFailedError,
        StageEvent,
        StageTimeoutError,
        SubmitUnknownError,
    )
    from audioext.stores.base import Delivery, Store
    from audioext.stores.memory import MemoryStore
    from audioext.webhooks.inbox import Inbox
    from audioext.webhooks.masking import MaskingFilter
    from audioext.webhooks.receiver import MaskedAccessLogger, Receiver

_HOMES = {
    "audioext.check.report": ("CheckLine", "CheckReport"),
    "audioext.client": ("Client",),
    "audioext.clock": ("Clock",),
    "audioext.errors": (
        "AudioextError",
        "AuthError",
        "ConfigError",
        "ContentError",
        "CreditsError",
        "DecodeError",
        "DownloadError",
        "GiveUp",
        "KeyConflictError",
        "Problem",
        "ProviderDownError",
        "ProviderError",
        "RateLimitError",
        "RequestError",
        "RetryLater",
        "SourceError",
        "StoreError",
        "UnsupportedError",
        "WebhookError",
    ),
    "audioext.http.messages": ("HttpRequest", "HttpResponse", "Part", "Webhook"),
    "audioext.models.limits": ("Limits", "Pace"),
    "audioext.models.entries": ("Entry",),
    "audioext.models.record": ("Record", "Verdict"),
    "audioext.models.requests": (
        "AddInstrumental",
        "AudioFile",
        "Extend",
        "ExtendOptions",
        "InstrumentalOptions",
        "Operation",
        "Request",
    ),
    "audioext.models.results": ("FailureReason", "SaveProgress", "Song", "Source", "Stage", "TimedLine", "Track"),
    "audioext.models.stats": ("Histogram", "Stats"),
    "audioext.providers.base": ("FileRoute", "Provider", "ProviderInfo"),
    "audioext.providers.kie": ("Kie",),
    "audioext.providers.kie_jobs": ("KieJobs",),
    "audioext.providers.musicgpt": ("MusicGpt",),
    "audioext.providers.sunoapi": ("SunoApi",),
    "audioext.providers.vidgo": ("Vidgo",),
    "audioext.runtime.handlers": ("FailureHandler", "StageHandler"),
    "audioext.runtime.jobs": (
        "ClientClosedError",
        "Failure",
        "Job",
        "JobError",
        "JobExpiredError",
        "JobFailedError",
        "StageEvent",
        "StageTimeoutError",
        "SubmitUnknownError",
    ),
    "audioext.stores.base": ("Delivery", "Store"),
    "audioext.stores.memory": ("MemoryStore",),
    "audioext.webhooks.inbox": ("Inbox",),
    "audioext.webhooks.masking": ("MaskingFilter",),
    "audioext.webhooks.receiver": ("MaskedAccessLogger", "Receiver"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AddInstrumental",
    "AudioFile",
    "AudioextError",
    "AuthError",
    "CheckLine",
    "CheckReport",
    "Client",
    "ClientClosedError",
    "Clock",
    "ConfigError",
    "ContentError",
    "CreditsError",
    "DecodeError",
    "Delivery",
    "DownloadError",
    "Entry",
    "Extend",
    "ExtendOptions",
    "Failure",
    "FailureHandler",
    "FailureReason",
    "FileRoute",
    "GiveUp",
    "Histogram",
    "HttpRequest",
    "HttpResponse",
    "Inbox",
    "InstrumentalOptions",
    "Job",
    "JobError",
    "JobExpiredError",
    "JobFailedError",
    "KeyConflictError",
    "Kie",
    "KieJobs",
    "Limits",
    "MaskedAccessLogger",
    "MaskingFilter",
    "MemoryStore",
    "MusicGpt",
    "Operation",
    "Pace",
    "Part",
    "Problem",
    "Provider",
    "ProviderDownError",
    "ProviderError",
    "ProviderInfo",
    "RateLimitError",
    "Receiver",
    "Record",
    "Request",
    "RequestError",
    "RetryLater",
    "SaveProgress",
    "Song",
    "Source",
    "SourceError",
    "Stage",
    "StageEvent",
    "StageHandler",
    "StageTimeoutError",
    "Stats",
    "Store",
    "StoreError",
    "SubmitUnknownError",
    "SunoApi",
    "TimedLine",
    "Track",
    "UnsupportedError",
    "Verdict",
    "Vidgo",
    "Webhook",
    "WebhookError",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for: a script that needs one class pays for no other."""
    module = _HOME_OF.get(name)
    if module is None:
        message = f"module 'audioext' has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return what can be asked for."""
    return sorted({*globals(), *_HOME_OF})
