"""How much an API lets one account do, and how often a status is asked for."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Limits:
    """How much an API lets one account do.

    At most `submits` in every `per` seconds, at most `parallel` unfinished jobs, and at most `queries` status
    calls in every `queries_per` seconds; `None` means no limit.
    """

    submits: int | None = None
    per: float = 10.0
    parallel: int | None = None
    queries: int | None = 8
    queries_per: float = 1.0


@frozen(kw_only=True)
class Pace:
    """When a job's status is asked for, all in seconds.

    Without webhooks: `first` after the submit, then every `every`, slower by `backoff` times each call up
    to `slowest`. With webhooks: `quiet` after the last word of the job, then at the same pace.
    """

    first: float = 15.0
    every: float = 10.0
    slowest: float = 30.0
    backoff: float = 1.25
    quiet: float = 150.0  # from the first track to the last there are up to two minutes without a word
