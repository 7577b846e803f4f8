"""Log messages about an outage: when it begins, now and then while it lasts, and when it is over."""

from __future__ import annotations

import logging
import math
import time

from attrs import define, field

REPEAT_SECONDS = 30.0
"""The shortest time between two warnings: one for each attempt would hide everything else in the log."""


@define(eq=False)
class Outage:
    """The outages of one service; each message begins with *what*."""

    log: logging.Logger
    what: str
    why: str = field(default="", init=False)
    """Why the service is away; empty while it is not."""
    _since: float = field(default=math.inf, init=False)
    _said_at: float = field(default=-math.inf, init=False)

    def note(self, error: BaseException) -> None:
        """Log *error* as a warning, or at debug level if the last warning was recent."""
        now, level, self.why = time.monotonic(), logging.DEBUG, str(error)
        self._since = min(self._since, now)
        if now - self._said_at >= REPEAT_SECONDS:
            self._said_at, level = now, logging.WARNING
        self.log.log(level, "%s, trying again: %s", self.what, error)

    def over(self) -> None:
        """Log that the outage is over, if there was one."""
        if self._since < math.inf:
            self.log.warning("%s: recovered after %.1f s", self.what, time.monotonic() - self._since)
            self._since, self._said_at, self.why = math.inf, -math.inf, ""
