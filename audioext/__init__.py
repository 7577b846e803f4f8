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
    from audioext.http.decoding import MAX_BODY_BYTES
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
    from audioext.providers.kie import Kie, KieJobs
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
    "check.report": "CheckLine CheckReport",
    "client": "Client",
    "clock": "Clock",
    "errors": "AudioextError AuthError ConfigError ContentError CreditsError DecodeError DownloadError GiveUp "
    "KeyConflictError Problem ProviderDownError ProviderError RateLimitError RequestError RetryLater SourceError "
    "StoreError UnsupportedError WebhookError",
    "http.decoding": "MAX_BODY_BYTES",
    "http.messages": "HttpRequest HttpResponse Part Webhook",
    "models.entries": "Entry",
    "models.limits": "Limits Pace",
    "models.record": "Record Verdict",
    "models.requests": "AddInstrumental AudioFile Extend ExtendOptions InstrumentalOptions Operation Request",
    "models.results": "FailureReason SaveProgress Song Source Stage TimedLine Track",
    "models.stats": "Histogram Stats",
    "providers.base": "FileRoute Provider ProviderInfo",
    "providers.kie": "Kie KieJobs",
    "providers.musicgpt": "MusicGpt",
    "providers.sunoapi": "SunoApi",
    "providers.vidgo": "Vidgo",
    "runtime.handlers": "FailureHandler StageHandler",
    "runtime.jobs": "ClientClosedError Failure Job JobError JobExpiredError JobFailedError StageEvent "
    "StageTimeoutError SubmitUnknownError",
    "stores.base": "Delivery Store",
    "stores.memory": "MemoryStore",
    "webhooks.inbox": "Inbox",
    "webhooks.masking": "MaskingFilter",
    "webhooks.receiver": "MaskedAccessLogger Receiver",
}
"""The names that each module gives."""
_HOME_OF = {name: f"audioext.{module}" for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "MAX_BODY_BYTES",
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
    if name not in _HOME_OF:
        raise AttributeError(f"module 'audioext' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return what can be asked for."""
    return sorted({*globals(), *_HOME_OF})
