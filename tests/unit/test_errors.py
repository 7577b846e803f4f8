"""Errors can be copied and pickled, as process pools do, without losing anything."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import audioext as ax
from audioext.errors import Problem

ERRORS: tuple[Exception, ...] = (
    ax.AudioextError("something else"),
    ax.ConfigError("no key"),
    ax.RequestError([Problem("title", "must be text"), Problem("key", "is long")]),
    ax.KeyConflictError([Problem("key", "has a job")], ref="r" * 24),
    ax.UnsupportedError(),
    *(
        kind("no", provider="kie", http_status=400, code="400", retryable=True, charged=False)
        for kind in (
            ax.ProviderError,
            ax.AuthError,
            ax.CreditsError,
            ax.ContentError,
            ax.SourceError,
            ax.ProviderDownError,
        )
    ),
    ax.RateLimitError("slow down", provider="kie", http_status=429, retry_after=5.0),
    ax.DecodeError(["$.data"]),
    ax.WebhookError("no tag", http_status=401),
    ax.DownloadError(["take 1: gone"], paths=[Path("out/2.mp3")]),
    ax.StoreError("the disk is full"),
    ax.RetryLater(3.0, "too many requests"),
    ax.GiveUp("no chat"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])  # noqa: S301 - our own
def test_a_copied_or_unpickled_error_is_the_same(error: Exception, again: Callable[[Exception], Exception]) -> None:
    """A copied or unpickled error has the same type, text, attributes and notes."""
    error.add_note("seen in a worker")

    same = again(error)

    assert (type(error), str(error), vars(error)) == (type(same), str(same), vars(same))


def test_every_public_error_without_a_job_is_tried() -> None:
    """The table above has each public exception; those of a job are tried in `runtime/test_jobs.py`."""
    public = {value for name in dir(ax) if isinstance(value := getattr(ax, name), type)}
    errors = {kind for kind in public if issubclass(kind, Exception) and not hasattr(kind, "job")}

    assert errors == {type(error) for error in ERRORS}
