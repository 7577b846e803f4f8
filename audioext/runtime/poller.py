"""Asks about jobs gone quiet: one process at a time, at each provider's pace, to the deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from attrs import define, field

from audioext.clock import Clock
from audioext.errors import DecodeError, ProviderDownError, ProviderError
from audioext.http.transport import BrokenError, NotSentError, Transport
from audioext.models.record import Record
from audioext.providers.base import Provider
from audioext.runtime.claims import Worker
from audioext.runtime.journal import Dispatcher
from audioext.runtime.limits import Limiter
from audioext.state import stages
from audioext.stores.base import Lease, Store

_log = logging.getLogger("audioext.runtime.poller")

LEASE_MARGIN_SECONDS = 5.0
CONCURRENT_POLLS = 16


@define(kw_only=True, eq=False, repr=False)
class Poller:
    """Makes status calls and feeds what they say to the dispatcher."""

    store: Store
    dispatcher: Dispatcher
    transport: Transport
    providers: Mapping[str, Provider]
    clock: Clock
    expire_after: float
    timeout: float
    _worker: Worker | None = field(default=None, init=False)
    _limiters: dict[tuple[str, str | None], Limiter] = field(factory=dict, init=False)

    def start(self) -> None:
        """Begin; only jobs of providers whose key is known here are asked about."""
        askable = tuple(name for name, provider in self.providers.items() if provider.api_key is not None)
        self._worker = Worker(
            name="poll",
            store=self.store,
            kind="poll",
            clock=self.clock,
            lease=self.timeout + LEASE_MARGIN_SECONDS,
            concurrency=CONCURRENT_POLLS,
            work=self._poll,
            providers=askable,
        )
        if askable:
            self._worker.start()

    def wake(self, at: float | None = None) -> None:
        """Look at what is due now, or at the latest *at* that time."""
        if self._worker is not None:
            self._worker.wake(at)

    async def aclose(self) -> None:
        """Stop asking; a call that is under way is cancelled, and its job asked about later."""
        if self._worker is not None:
            await self._worker.aclose()
        for limiter in self._limiters.values():
            limiter.close()

    async def ask(self, record: Record) -> None:
        """Make one status call for *record* and apply what it says.

        Raises:
            ProviderError: the call was refused or did not come through.
            DecodeError: the answer cannot be read.
            StoreError: nothing was applied.
        """
        provider = self.providers[record.provider]
        try:
            # All of it has to be over before the lease is: its turn, three tries to connect, and the call.
            async with asyncio.timeout(self.timeout), self._limiter(provider).permit(timeout=self.timeout):
                response = await self.transport.send(provider.build_status(record), timeout=self.timeout)
        except TimeoutError as error:
            message = f"the status call was not over within {self.timeout:g} s"
            raise ProviderDownError(message, provider=record.provider, retryable=True, charged=False) from error
        except (NotSentError, BrokenError) as error:
            raise ProviderDownError(str(error), provider=record.provider, retryable=True, charged=False) from error
        events = provider.parse_status(response)
        await self.dispatcher.apply(record.ref, events, seen="poll", at=self.clock.now())

    def _limiter(self, provider: Provider) -> Limiter:
        account = (provider.account, provider.api_key)
        if account not in self._limiters:
            self._limiters[account] = Limiter(provider.limits.queries, provider.limits.queries_per)
        return self._limiters[account]

    async def _poll(self, lease: Lease) -> None:
        stored = await self.store.get(lease.ref)
        if stored is None or stored.record.is_final:
            await self.store.settle(lease, due_at=None)
            return
        record = stored.record
        age = self.clock.now() - record.created_at
        # A job is given up on a last word of its provider; where that is silent, only after as long again.
        over = age >= self.expire_after
        if record.task_id is not None:
            try:
                await self.ask(record)
            except (ProviderError, DecodeError) as error:
                _log.info("job %s: the status call failed: %s", record.ref, error)
                text, at = str(error), self.clock.now()
                await self.dispatcher.update(record.ref, lambda now: stages.complain(now, text, at=at), asked=True)
                over = age >= 2 * self.expire_after
        if over:
            at = self.clock.now()
            await self.dispatcher.update(
                record.ref, lambda now: now if now.is_final else stages.expire(now, at=at), asked=True
            )
