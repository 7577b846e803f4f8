"""audioext turns a paid, minutes-long music task at somebody else's API into an `await` that cannot be lost."""

from audioext.client import Client
from audioext.clock import Clock
from audioext.errors import (
    AudioextError,
    AuthError,
    ClientClosedError,
    ConfigError,
    ContentError,
    CreditsError,
    DecodeError,
    DownloadError,
    JobError,
    JobExpiredError,
    JobFailedError,
    Problem,
    ProviderDownError,
    ProviderError,
    RateLimitError,
    RequestError,
    SourceError,
    StageTimeoutError,
    StoreError,
    SubmitUnknownError,
    UnsupportedError,
    WebhookError,
)
from audioext.http.messages import HttpRequest, HttpResponse, Part, Webhook
from audioext.models.record import Record, Verdict
from audioext.models.requests import AddInstrumental, Extend, Operation
from audioext.models.results import Failure, FailureReason, Song, Stage, StageEvent, TimedLine, Track
from audioext.providers import Kie, KieJobs, MusicGpt, SunoApi, Vidgo
from audioext.providers.base import Limits, Pace, Provider
from audioext.runtime.jobs import Job
from audioext.stores import MemoryStore
from audioext.version import __version__

__all__ = [
    "AddInstrumental",
    "AudioextError",
    "AuthError",
    "Client",
    "ClientClosedError",
    "Clock",
    "ConfigError",
    "ContentError",
    "CreditsError",
    "DecodeError",
    "DownloadError",
    "Extend",
    "Failure",
    "FailureReason",
    "HttpRequest",
    "HttpResponse",
    "Job",
    "JobError",
    "JobExpiredError",
    "JobFailedError",
    "Kie",
    "KieJobs",
    "Limits",
    "MemoryStore",
    "MusicGpt",
    "Operation",
    "Pace",
    "Part",
    "Problem",
    "Provider",
    "ProviderDownError",
    "ProviderError",
    "RateLimitError",
    "Record",
    "RequestError",
    "Song",
    "SourceError",
    "Stage",
    "StageEvent",
    "StageTimeoutError",
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
