"""An event loop whose time stands still while there is work and jumps when there is none: nothing really waits."""

from __future__ import annotations

import asyncio
import selectors

BEGIN_SECONDS = 1_000.0
"""What such a loop's clock shows first."""


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nobody: a wait for so many seconds moves the clock by as many."""

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
        """Return what the clock shows: it moves with the timers alone."""
        return self._jumping.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's own
        """Wait for the threads without a deadline, which a jump would pass before any of them could end."""
        del timeout
        await super().shutdown_default_executor()
