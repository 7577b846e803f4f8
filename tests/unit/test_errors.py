"""Errors can be copied and pickled, as process pools do, without losing anything."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import audioext as ax
from audioext.errors import AudioextError, KeyConflictError, Problem


@pytest.mark.parametrize(
    "error",
    [
        ax.ConfigError("no key"),
        ax.RequestError([Problem("title", "must be text"), Problem("key", "is long")]),
        KeyConflictError([Problem("key", "has a job")], ref="r" * 24),
        ax.RateLimitError("slow down", provider="kie", http_status=429, retry_after=5.0),
        ax.DecodeError(["$.data"]),
        ax.WebhookError("no tag", http_status=401),
        ax.DownloadError(["take 1: gone"], paths=[Path("out/2.mp3")]),
        ax.RetryLater(3.0, "too many requests"),
        ax.GiveUp("no chat"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])  # noqa: S301 - our own
def test_an_error_is_the_same_elsewhere(error: Exception, again: Callable[[Exception], Exception]) -> None:
    """A copied or unpickled error has the same type, text, attributes and notes."""
    error.add_note("seen in a worker")

    same = again(error)

    assert (type(error), str(error), vars(error)) == (type(same), str(same), vars(same))
    assert isinstance(same, AudioextError | ax.RetryLater | ax.GiveUp)
