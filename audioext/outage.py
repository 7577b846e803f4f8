"""What the log says of something that is away: that it is, now and then that it still is, and that it is back."""

from __future__ import annotations

import logging
import math
import time

from attrs import define, field

REPEAT_SECONDS = 30.0
"""A log that repeats itself with each attempt hides everything else."""


@define(eq=False)
class Outage:
    """One thing's absences; *what* begins each line."""

    log: logging.Logger
    what: str
    _since: float = field(default=math.inf, init=False)
    _said_at: float = field(default=-math.inf, init=False)

    def note(self, error: BaseException) -> None:
        """Say that it is away, unless that was said lately."""
        now, level = time.monotonic(), logging.DEBUG
        self._since = min(self._since, now)
        if now - self._said_at >= REPEAT_SECONDS:
            self._said_at, level = now, logging.WARNING
        self.log.log(level, "%s, trying again: %s", self.what, error)

    def over(self) -> None:
        """Say that it is back, if it was away."""
        if self._since < math.inf:
            self.log.warning("%s: that is over, after %.1f s", self.what, time.monotonic() - self._since)
            self._since, self._said_at = math.inf, -math.inf
