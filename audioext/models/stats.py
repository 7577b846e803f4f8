"""Counters of one client's work, which only grow, and `Stats`, the snapshot of them that users get."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Literal

from attrs import asdict, define, field, frozen

from audioext.models.record import Verdict
from audioext.models.results import Stage

SubmitEnd = Literal["accepted", "found", "refused", "rate_limited", "unknown", "failed"]
"""How a submit ended. `accepted`: with a task. `found`: with the job that has its key. `refused`: by the vendor, or not
sent. `rate_limited`: by the vendor or by us. `unknown`: a task may exist. `failed`: before the POST, as in outages."""
WebhookEnd = Literal["applied", "repeated", "orphan", "unreadable", "refused", "put_off"]
"""How a webhook ended. `repeated`: it was stored before, or its journal is full. `refused`: it is not authentic, names
another task, or is too big. `put_off`: it was answered 503, so that the provider sends it again."""
PollEnd = Literal["news", "nothing", "failed"]
"""How a status call ended."""
HandlerEnd = Literal["done", "retried", "given_up"]
"""How a handler call ended. `retried`: it failed or asked to be called later."""
DownloadEnd = Literal["whole", "failed"]

STAGE_SECONDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1_800.0)
"""Histogram bounds for stages, which come after seconds to minutes."""
STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Histogram bounds for appends, from a fast store to one about to fail."""


@frozen
class Histogram:
    """A histogram of durations; `bounds` and `sum` are in seconds.

    Each of `counts` is how many took at most its bound and more than the one before; the last, how many took longer
    than all bounds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The average in seconds, 0 if there are none."""
        return self.sum / max(self.count, 1)


@define(eq=False)
class Durations:
    """A mutable histogram."""

    _bounds: tuple[float, ...]
    _counts: Counter[int] = field(factory=Counter, init=False)
    _sum: float = field(default=0.0, init=False)

    def add(self, seconds: float) -> None:
        """Add one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def histogram(self) -> Histogram:
        """Return a snapshot."""
        return Histogram(self._bounds, tuple(self._counts[at] for at in range(len(self._bounds) + 1)), self._sum)


@frozen(kw_only=True)
class Stats:
    """The counters of one client since it was created.

    The numbers of several processes on one store can be added up: each counts only its own work, and a stage or an end
    counts in the process that appended the entry which proved it. A missing key means 0.
    """

    submits: Mapping[tuple[str, SubmitEnd], int]
    """Calls of submit, by provider."""
    stages: Mapping[tuple[str, Stage], Histogram]
    """Stages reached, by provider, with the seconds since the submit; stages that were never reached are missing."""
    ended: Mapping[tuple[str, Verdict], int]
    """Jobs that completed, failed or expired, by provider."""
    webhooks: Mapping[tuple[str, WebhookEnd], int]
    """Webhooks, by provider. Requests to other paths than a callback's are counted only in `answers`."""
    answers: Mapping[int, int]
    """The receiver's responses to webhooks and to strangers, by HTTP status."""
    polls: Mapping[tuple[str, PollEnd], int]
    """Status calls, by provider."""
    handlers: Mapping[tuple[str, HandlerEnd], int]
    """Handler calls, by topic: a stage in lower case, or `failed`."""
    downloads: Mapping[DownloadEnd, int]
    """Downloads of files."""
    appends: Histogram
    """How long the store took for each append."""
    open_jobs: int
    """Open jobs in this process's memory now."""


@define(eq=False, repr=False)
class Counts:
    """The counters that the parts of a client share. They grow on its event loop only; any thread may read them."""

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
        """Return a snapshot, with the two numbers that are counted elsewhere."""
        counters = asdict(self, recurse=False, filter=lambda _, value: isinstance(value, Counter))
        return Stats(
            **{name: counter.copy() for name, counter in counters.items()},
            stages={key: durations.histogram() for key, durations in self.stages.copy().items()},
            answers=Counter(answers),
            appends=self.appends.histogram(),
            open_jobs=open_jobs,
        )
