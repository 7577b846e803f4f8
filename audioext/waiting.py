"""Awaits with a limit, and awaits that nobody cuts off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

_log = logging.getLogger("audioext.client")

_T = TypeVar("_T")


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


async def whole(work: Awaitable[_T]) -> _T:
    """Await *work*, to its end even where the caller is cancelled, who then knows what it has done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
