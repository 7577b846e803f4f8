"""The submits of a client that are under way: tasks of its own, so that a caller who is cancelled cancels none."""

from __future__ import annotations

import asyncio
import logging

from attrs import define, field

from audioext.runtime.submitter import Order, Submitter
from audioext.stores.base import Versioned

_log = logging.getLogger("audioext.submit")


@define(kw_only=True, eq=False, repr=False)
class Submits:
    """Starts submits, lets two of one key be one, and ends them with the client."""

    submitter: Submitter
    _tasks: set[asyncio.Task[Versioned]] = field(factory=set, init=False)
    _by_key: dict[str, asyncio.Task[Versioned]] = field(factory=dict, init=False)

    def start(self, order: Order) -> asyncio.Task[Versioned]:
        """Return the task that submits *order*; two calls with one key at the same time share it."""
        key = order.key
        if key is not None and key in self._by_key:
            return self._by_key[key]
        task = asyncio.create_task(self.submitter.submit(order), name="audioext submit")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if key is not None:
            self._by_key[key] = task
            task.add_done_callback(lambda _: self._by_key.pop(key))
        return task

    async def aclose(self) -> None:
        """Cancel what was not sent; let a POST that is under way have its answer, and store it."""
        self.submitter.close()
        for task in tuple(self._tasks):
            if not self.submitter.is_posting(task):
                task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))  # whose end is bounded, and who is never cancelled here
        await self.submitter.aclose()

    def _ended(self, task: asyncio.Task[Versioned]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.info("a submit ended without a job: %s", task.exception())
