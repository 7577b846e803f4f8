"""How much an API lets one account do, and how often a status is asked for."""

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
    """How much an API lets one account do.

    At most `submits` in every `per` seconds, at most `parallel` unfinished jobs, and at most `queries` status
    calls in every `queries_per` seconds; `None` means no limit.

    Raises:
        ConfigError: one is no whole number above 0, or no time.
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
    """When a job's status is asked for, all in seconds.

    Without webhooks: `first` after the submit (15, or `every` where that is given and below 10), then every `every`,
    slower by `backoff` times each call up to `slowest`. With webhooks: `quiet` after the last word of the job, then at
    the same pace.

    Raises:
        ConfigError: one is no finite number of seconds, or `backoff` is below 1.
    """

    every: float = field(default=EVERY_SECONDS, validator=_wait)
    first: float = field(default=attrs.Factory(_first, takes_self=True), validator=_wait)
    slowest: float = field(default=30.0, validator=_wait)
    backoff: float = field(default=1.25, validator=checks.setting(checks.from_on(1)))
    # from the first track to the last there are up to two minutes without a word
    quiet: float = field(default=150.0, validator=_wait)
