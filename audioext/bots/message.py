"""One message of a chat, edited as a job progresses: at a limited rate, and the final text always gets through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from attrs import define, field

from audioext.bots.patience import LEAST_WAIT_SECONDS
from audioext.clock import Clock
from audioext.errors import RetryLater, asked_wait

_log = logging.getLogger("audioext.bots")

LONGEST_PAUSE_SECONDS = 300.0
"""The longest pause after failed edits."""


@define(eq=False)
class ProgressMessage:
    """One edit at a time, none after the final text, and none while the chat asks for a pause."""

    edit: Callable[[str], Awaitable[object]]
    send: Callable[[str], Awaitable[object]]
    clock: Clock
    every: float
    _free_at: float = 0.0
    _asked_until: float = 0.0
    """The end of a pause that the chat asked for (`retry_after`)."""
    _shown: str = ""
    _is_over: bool = False
    _failures: int = 0
    _lock: asyncio.Lock = field(factory=asyncio.Lock)

    async def show(self, text: Callable[[], str]) -> None:
        """Show what *text* returns, unless it is too early or unchanged; a failed edit is logged and not repeated."""
        async with self._lock:
            now = self.clock.monotonic()
            if self._is_over or now < self._free_at or (wanted := text()) == self._shown:
                return
            if (error := await self._tried(wanted)) is None:
                self._failures, self._shown, self._free_at = 0, wanted, now + self.every
                return
            asked, level = asked_wait(error), logging.INFO  # a chat's pace is no fault of anybody's
            if asked is None:
                self._failures, level = self._failures + 1, logging.WARNING
            least = max(self.every, LEAST_WAIT_SECONDS)
            pause = max(asked or 0.0, min(least * 2**self._failures, LONGEST_PAUSE_SECONDS))
            self._free_at, self._asked_until = now + pause, now + (asked or 0.0)
            _log.log(level, "a progress message could not be edited, again in %g s: %s", pause, error)

    async def finish(self, text: str) -> None:
        """Show the final text, in a new message if the old one cannot be edited.

        Raises:
            RetryLater: the chat asked for a pause, which is not over.
            Exception: the chat's own error; call it again.
        """
        async with self._lock:
            self._is_over = True
            if text == self._shown:
                return
            wait = self._asked_until - self.clock.monotonic()
            if wait > 0:
                raise RetryLater(wait)
            for _ in range(2):  # an idle connection may have been closed
                error = await self._tried(text)
                if error is None:
                    break
                if asked_wait(error) is not None:
                    raise error
                _log.warning("the final text of a progress message could not be shown by an edit: %s", error)
            else:
                await self.send(text)
            self._shown = text

    async def confirm(self, text: str) -> None:
        """Show the final text again if another process showed it: an edit of ours may have overwritten it."""
        async with self._lock:
            # An error is ignored: the process that shows the final text handles its own.
            if not self._is_over and await self._tried(text) is None:
                self._shown = text

    async def _tried(self, text: str) -> Exception | None:
        """Edit the message and return the error, if any; Telegram's refusal of an edit without a change is none."""
        try:
            await self.edit(text)
        except Exception as error:  # noqa: BLE001 - a framework may raise anything
            return None if "not modified" in str(error).lower() else error
        return None
