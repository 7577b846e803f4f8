"""The limits of an account at an API, and the pace of status calls."""

from __future__ import annotations

import attrs
from attrs import field, frozen

from audioext.models import checks

_count = checks.setting(checks.whole_from(1), optional=True)
_window = checks.setting(checks.seconds)
_wait = checks.setting(checks.from_on(0))

FIRST_SECONDS = 15.0
EVERY_SECONDS = 10.0


@frozen(kw_only=True)
class Limits:
    """What an API allows one account.

    At most `submits` in every `per` seconds, at most `parallel` unfinished jobs, and at most `queries` status
    calls in every `queries_per` seconds; `None` means no limit.

    Raises:
        ConfigError: a count is not a whole number above 0, or a time is not a finite number of seconds above 0.
    """

    submits: int | None = field(default=None, validator=_count)
    per: float = field(default=10.0, validator=_window)
    parallel: int | None = field(default=None, validator=_count)
    queries: int | None = field(default=8, validator=_count)
    queries_per: float = field(default=1.0, validator=_window)


def _first(pace: Pace) -> float:
    is_brisk = isinstance(pace.every, (int, float)) and pace.every < EVERY_SECONDS
    return pace.every if is_brisk else FIRST_SECONDS


@frozen(kw_only=True)
class Pace:
    """When the status of a job is polled; all times are in seconds.

    Without webhooks: `first` after the submit (default 15, or `every` if that is below 10), then at intervals that
    start at `every` and grow by the factor `backoff` up to `slowest`. With webhooks: `quiet` after the last news of the
    job, then at the same pace.

    Raises:
        ConfigError: a time is not a finite number of seconds from 0 on, or `backoff` is below 1.
    """

    every: float = field(default=EVERY_SECONDS, validator=_wait)
    first: float = field(default=attrs.Factory(_first, takes_self=True), validator=_wait)
    slowest: float = field(default=30.0, validator=_wait)
    backoff: float = field(default=1.25, validator=checks.setting(checks.from_on(1)))
    # Up to two minutes pass between the webhooks for the first and the last track.
    quiet: float = field(default=150.0, validator=_wait)
