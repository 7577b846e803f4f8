"""Awaits with a limit, and awaits that nobody cuts off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

_log = logging.getLogger("audioext.client")


def left(ends_at: float) -> float:
    """Return the seconds until *ends_at*, in the loop's time; a tenth of one is always left."""
    return max(ends_at - asyncio.get_running_loop().time(), 0.1)


async def bounded(end: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Await *end* for so many seconds; what hangs longer is left alone."""
    task = asyncio.ensure_future(end())
    _, pending = await asyncio.wait([task], timeout=seconds)
    if pending:
        task.cancel()
        _log.error("the client did not close in time; what hangs is left alone")
    else:
        task.result()


async def whole(work: Coroutine[Any, Any, None]) -> None:
    """Await *work*, to its end even where the caller is cancelled: half of a start would leave its port taken."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
