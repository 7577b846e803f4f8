"""What the log says of something that is away: that it is, now and then that it still is, and that it is back."""

from __future__ import annotations

import logging
import time

from attrs import define, field

REPEAT_SECONDS = 30.0
"""A log that repeats itself with each attempt hides everything else."""


@define(eq=False)
class Outage:
    """One thing's absences; *what* begins each line."""

    log: logging.Logger
    what: str
    _since: float | None = field(default=None, init=False)
    _said_at: float = field(default=0.0, init=False)

    def note(self, error: BaseException) -> None:
        """Say that it is away, unless that was said lately."""
        now = time.monotonic()
        level = logging.DEBUG
        if self._since is None:
            self._since = now
            level = logging.WARNING
        elif now - self._said_at >= REPEAT_SECONDS:
            level = logging.WARNING
        if level == logging.WARNING:
            self._said_at = now
        self.log.log(level, "%s, trying again: %s", self.what, error)

    def over(self) -> None:
        """Say that it is back, if it was away."""
        if self._since is not None:
            self.log.warning("%s: that is over, after %.1f s", self.what, time.monotonic() - self._since)
            self._since = None
