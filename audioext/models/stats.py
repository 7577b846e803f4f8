"""What one process has counted of its work: plain numbers that only grow, and the value that a user gets of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Literal

from attrs import define, field, frozen

from audioext.models.record import Verdict
from audioext.models.results import Stage

SubmitEnd = Literal["accepted", "found", "refused", "rate_limited", "unknown", "failed"]
"""How a submit ended: with a task; with the job that its key had; refused by the vendor, or never sent; by the limits,
theirs or ours; without word; or otherwise before anything was sent, as where the store is down."""
WebhookEnd = Literal["applied", "repeated", "orphan", "unreadable", "refused", "put_off"]
"""What became of a webhook. `repeated` came before, or its journal is full; `refused` is not authentic, is of another
task, or is too big; `put_off` was answered 503, so that it comes again."""
PollEnd = Literal["news", "nothing", "failed"]
"""What a status call brought."""
HandlerEnd = Literal["done", "retried", "given_up"]
"""How a call of a handler ended; one that is retried failed, or asked for it."""
DownloadEnd = Literal["whole", "failed"]

STAGE_SECONDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1_800.0)
"""The bounds that tell how long tasks take: a stage comes after seconds to minutes."""
STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""The bounds that tell a quick store from one that is about to fail."""


@frozen
class Histogram:
    """How long something took, all in seconds.

    `counts` says how many took up to each of the `bounds` and longer than the one before; the last is of those that
    took longer than all.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """How long one took on average, 0 where there was none."""
        return self.sum / max(self.count, 1)


@define(eq=False)
class Durations:
    """A histogram that grows."""

    _bounds: tuple[float, ...]
    _counts: Counter[int] = field(factory=Counter, init=False)
    _sum: float = field(default=0.0, init=False)

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def histogram(self) -> Histogram:
        """Return what was counted."""
        return Histogram(self._bounds, tuple(self._counts[at] for at in range(len(self._bounds) + 1)), self._sum)


@frozen(kw_only=True)
class Stats:
    """What one client has counted since it was made.

    The numbers of several processes on one store can be added: each counts what it did itself, and a stage or an end
    counts where its proof was appended. What was never counted is 0.
    """

    submits: Mapping[tuple[str, SubmitEnd], int]
    """Calls of submit, by provider."""
    stages: Mapping[tuple[str, Stage], Histogram]
    """Stages reached, by provider, with the seconds since the submit; only those that were reached are in it."""
    ended: Mapping[tuple[str, Verdict], int]
    """Jobs that are complete, failed, or were given up, by provider."""
    webhooks: Mapping[tuple[str, WebhookEnd], int]
    """Webhooks, by provider; what came to no callback path of ours is among the `answers` alone."""
    answers: Mapping[int, int]
    """Answers of the receiver to webhooks and to strangers, by HTTP status."""
    polls: Mapping[tuple[str, PollEnd], int]
    """Status calls, by provider."""
    handlers: Mapping[tuple[str, HandlerEnd], int]
    """Calls of handlers, by topic: a stage in small letters, or `failed`."""
    downloads: Mapping[DownloadEnd, int]
    """Files that were fetched, or were not."""
    appends: Histogram
    """How long the store took to make entries durable."""
    open_jobs: int
    """Jobs without an end that somebody in this process holds now."""


@define(eq=False, repr=False)
class Counts:
    """Where the parts of a client count, all on its event loop; reading is safe in any thread."""

    submits: Counter[tuple[str, SubmitEnd]] = field(factory=Counter)
    stages: defaultdict[tuple[str, Stage], Durations] = field(
        factory=partial(defaultdict, partial(Durations, STAGE_SECONDS))
    )
    ended: Counter[tuple[str, Verdict]] = field(factory=Counter)
    webhooks: Counter[tuple[str, WebhookEnd]] = field(factory=Counter)
    polls: Counter[tuple[str, PollEnd]] = field(factory=Counter)
    handlers: Counter[tuple[str, HandlerEnd]] = field(factory=Counter)
    downloads: Counter[DownloadEnd] = field(factory=Counter)
    appends: Durations = field(factory=partial(Durations, STORE_SECONDS))

    def stats(self, *, open_jobs: int, answers: Mapping[int, int]) -> Stats:
        """Return a copy, with what is counted elsewhere."""
        return Stats(
            submits=self.submits.copy(),
            stages={key: durations.histogram() for key, durations in self.stages.copy().items()},
            ended=self.ended.copy(),
            webhooks=self.webhooks.copy(),
            answers=Counter(answers),
            polls=self.polls.copy(),
            handlers=self.handlers.copy(),
            downloads=self.downloads.copy(),
            appends=self.appends.histogram(),
            open_jobs=open_jobs,
        )
