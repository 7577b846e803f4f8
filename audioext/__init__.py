"""audioext turns a paid, minutes-long music task at somebody else's API into an `await` that cannot be lost."""

from __future__ import annotations

import importlib

from audioext.version import __version__ as __version__

TYPE_CHECKING = False  # that of `typing`, whose import takes longer than all that precedes the handler of Ctrl-C
if TYPE_CHECKING:  # for type checkers; at run time `__getattr__` imports a name on first use
    from audioext.check.reach import CheckLine as CheckLine, CheckReport as CheckReport
    from audioext.client import Client as Client
    from audioext.clock import Clock as Clock
    from audioext.config import ClientOptions as ClientOptions
    from audioext.errors import (
        AudioextError as AudioextError,
        AuthError as AuthError,
        ConfigError as ConfigError,
        ContentError as ContentError,
        CreditsError as CreditsError,
        DecodeError as DecodeError,
        DownloadError as DownloadError,
        GiveUp as GiveUp,
        KeyConflictError as KeyConflictError,
        Problem as Problem,
        ProviderDownError as ProviderDownError,
        ProviderError as ProviderError,
        RateLimitError as RateLimitError,
        RequestError as RequestError,
        RetryLater as RetryLater,
        SourceError as SourceError,
        StoreError as StoreError,
        UnsupportedError as UnsupportedError,
        WebhookError as WebhookError,
    )
    from audioext.http.decoding import MAX_BODY_BYTES as MAX_BODY_BYTES
    from audioext.http.messages import (
        HttpRequest as HttpRequest,
        HttpResponse as HttpResponse,
        Part as Part,
        Webhook as Webhook,
    )
    from audioext.http.transport import UploadProgress as UploadProgress
    from audioext.models.entries import Entry as Entry
    from audioext.models.limits import Limits as Limits, Pace as Pace
    from audioext.models.record import Record as Record, Verdict as Verdict
    from audioext.models.requests import (
        AddInstrumental as AddInstrumental,
        AudioFile as AudioFile,
        Extend as Extend,
        ExtendOptions as ExtendOptions,
        InstrumentalOptions as InstrumentalOptions,
        Meta as Meta,
        Operation as Operation,
        PersonaModel as PersonaModel,
        Request as Request,
        VocalGender as VocalGender,
    )
    from audioext.models.results import (
        FailureReason as FailureReason,
        SaveProgress as SaveProgress,
        Song as Song,
        Source as Source,
        Stage as Stage,
        TimedLine as TimedLine,
        Track as Track,
    )
    from audioext.models.stats import Histogram as Histogram, Stats as Stats
    from audioext.providers.base import FileRoute as FileRoute, Provider as Provider, ProviderInfo as ProviderInfo
    from audioext.providers.kie import Kie as Kie, KieJobs as KieJobs
    from audioext.providers.musicgpt import MusicGpt as MusicGpt
    from audioext.providers.sunoapi import SunoApi as SunoApi
    from audioext.providers.vidgo import Vidgo as Vidgo
    from audioext.runtime.handlers import FailureHandler as FailureHandler, StageHandler as StageHandler
    from audioext.runtime.jobs import (
        ClientClosedError as ClientClosedError,
        Failure as Failure,
        Job as Job,
        JobError as JobError,
        JobExpiredError as JobExpiredError,
        JobFailedError as JobFailedError,
        StageEvent as StageEvent,
        StageTimeoutError as StageTimeoutError,
        StageWait as StageWait,
        SubmitUnknownError as SubmitUnknownError,
    )
    from audioext.runtime.orders import SubmitOptions as SubmitOptions
    from audioext.stores.base import Delivery as Delivery, Store as Store
    from audioext.stores.memory import MemoryStore as MemoryStore
    from audioext.webhooks.inbox import Confirm as Confirm, Inbox as Inbox
    from audioext.webhooks.masking import MaskingFilter as MaskingFilter
    from audioext.webhooks.receiver import MaskedAccessLogger as MaskedAccessLogger, Receiver as Receiver

_HOMES = {
    "check.reach": "CheckLine CheckReport",
    "client": "Client",
    "clock": "Clock",
    "config": "ClientOptions",
    "errors": "AudioextError AuthError ConfigError ContentError CreditsError DecodeError DownloadError GiveUp "
    "KeyConflictError Problem ProviderDownError ProviderError RateLimitError RequestError RetryLater SourceError "
    "StoreError UnsupportedError WebhookError",
    "http.decoding": "MAX_BODY_BYTES",
    "http.messages": "HttpRequest HttpResponse Part Webhook",
    "http.transport": "UploadProgress",
    "models.entries": "Entry",
    "models.limits": "Limits Pace",
    "models.record": "Record Verdict",
    "models.requests": "AddInstrumental AudioFile Extend ExtendOptions InstrumentalOptions Meta Operation PersonaModel "
    "Request VocalGender",
    "models.results": "FailureReason SaveProgress Song Source Stage TimedLine Track",
    "models.stats": "Histogram Stats",
    "providers.base": "FileRoute Provider ProviderInfo",
    "providers.kie": "Kie KieJobs",
    "providers.musicgpt": "MusicGpt",
    "providers.sunoapi": "SunoApi",
    "providers.vidgo": "Vidgo",
    "runtime.handlers": "FailureHandler StageHandler",
    "runtime.jobs": "ClientClosedError Failure Job JobError JobExpiredError JobFailedError StageEvent "
    "StageTimeoutError StageWait SubmitUnknownError",
    "runtime.orders": "SubmitOptions",
    "stores.base": "Delivery Store",
    "stores.memory": "MemoryStore",
    "webhooks.inbox": "Confirm Inbox",
    "webhooks.masking": "MaskingFilter",
    "webhooks.receiver": "MaskedAccessLogger Receiver",
}
"""The public names of each module."""
_HOME_OF = {name: f"audioext.{module}" for module, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # type checkers see each `X as X` as public
    __all__ = ("__version__", *_HOME_OF)


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that a script that needs one class loads no others."""
    if name not in _HOME_OF:
        from difflib import get_close_matches  # noqa: PLC0415 - only needed for misspelt names

        near = get_close_matches(name, _HOME_OF, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise AttributeError(f"module 'audioext' has no attribute {name!r}{hint}")
    value: object = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not, and nothing else."""
    return ["__version__", *_HOME_OF]
