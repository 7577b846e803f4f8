"""Waiting out the pauses that a chat asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from audioext.clock import Clock
from audioext.errors import asked_wait

LONGEST_WAIT_SECONDS = 30.0
"""How long a message to a chat waits in all; the chat's own update waits as well, and comes again if we are slower."""

LEAST_WAIT_SECONDS = 1.0
"""The wait before another try, also if the chat asks for a shorter one, or for 0 seconds again and again."""

_T = TypeVar("_T")


async def waited_out(clock: Clock, send: Callable[[], Awaitable[_T]]) -> _T:
    """Return what *send* returns, called again after each pause that the chat asks for; raise its other errors."""
    ends_at = clock.monotonic() + LONGEST_WAIT_SECONDS
    while True:
        try:
            return await send()
        except Exception as error:
            asked = asked_wait(error)
            if asked is None or clock.monotonic() + (wait := max(asked, LEAST_WAIT_SECONDS)) > ends_at:
                raise
        await clock.sleep(wait)
