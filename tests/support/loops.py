"""An event loop whose time jumps to the next timer instead of waiting."""

from __future__ import annotations

import asyncio
import selectors

BEGIN_SECONDS = 1_000.0
"""The initial time of such a loop."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: a timeout moves the clock by as many seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN_SECONDS

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Runs timers in their order without waiting for them; meant for code without threads and sockets."""

    def __init__(self) -> None:
        """Begin at `BEGIN_SECONDS`."""
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the simulated time, which only timers move."""
        return self._jumping.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's own
        """Wait for the threads without a deadline: a jump would pass it before any of them could end."""
        del timeout
        await super().shutdown_default_executor()
