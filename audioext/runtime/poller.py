"""Polls the status of quiet jobs: one process per job at a time, at the provider's pace, until the deadline."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping

import msgspec
from attrs import define, field
from yarl import URL

from audioext.clock import SteadyTime
from audioext.errors import ConfigError, DecodeError, ProviderDownError, ProviderError, UnsupportedError
from audioext.http.messages import HttpResponse
from audioext.http.transport import MaybeSentError, NotSentError, Transport
from audioext.http.urls import without_password
from audioext.models.entries import STILL, make_entry
from audioext.models.record import Record
from audioext.providers.base import Credits, Provider
from audioext.runtime import telemetry
from audioext.runtime.claims import Claims
from audioext.runtime.held import HeldJob
from audioext.runtime.journal import Journal
from audioext.runtime.limits import Limiter
from audioext.runtime.orders import choose
from audioext.state.reading import Reading, masked
from audioext.state.schedule import farthest

_log = logging.getLogger("audioext.poller")

CLAIM_MARGIN_SECONDS = 5.0
BELIEVED_AFTER = 4.0
"""A doubtful end is believed if a status call still reports it after this many times the pace's longest interval."""
CONCURRENT_POLLS = 16
SILENCE_SECONDS = 3_600.0
"""The shortest time between two warnings that webhooks do not arrive."""
LONG_JOURNAL = 40
"""From this many entries on, an open job's journal takes no more failed status calls and re-signed links, which differ
with each call: this keeps room for real progress."""


@define(kw_only=True, eq=False, repr=False)
class Poller:
    """Makes status calls and appends the answers that bring news. *timeout* (seconds) bounds one call."""

    journal: Journal
    transport: Transport
    providers: Mapping[str, Provider]
    timeout: float
    public_url: URL | None = None
    """The base URL at which providers reach us, once it is known."""
    claims: Claims = field(init=False)
    _steady: SteadyTime = field(init=False)
    _silence_said_at: float = field(default=-math.inf, init=False)
    _limiters: dict[str, Limiter] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Create the claim loop; it polls only jobs of providers that have a key here."""
        self._steady = SteadyTime(self.journal.clock)
        askable = tuple(name for name, provider in self.providers.items() if provider.info.has_key)
        self.claims = Claims(
            work="polls",
            store=self.journal.store,
            clock=self.journal.clock,
            hold=lambda: self.timeout + CLAIM_MARGIN_SECONDS,
            concurrency=CONCURRENT_POLLS,
            do=self._poll,
            give_back=self.journal.give_back,
            providers=askable,
            farthest=farthest(self.providers[name].info.pace for name in askable),
        )

    def start(self) -> None:
        """Start the claim loop, if any provider has a key."""
        self._steady.now()
        if self.claims.providers:
            self.claims.start()

    async def aclose(self) -> None:
        """Stop polling. A running call is cancelled, and its job is polled later."""
        await self.claims.aclose()
        for limiter in self._limiters.values():
            limiter.close()

    async def ask(self, held: HeldJob) -> None:
        """Make one status call for a held job and append any news. It raises what `Job.refresh` does."""
        provider, at = choose(self.providers, held.record.provider), self.journal.clock.now()
        # Set before the call, so that a question raised during it is asked again. Its time may be ahead of our clock.
        if not held.polled_at:
            held.poll_problem = "it has not been answered yet"
        held.polled_at = max(at, held.record.asks_at or 0.0)
        name, counts = provider.info.name, self.journal.counts.polls
        try:
            with telemetry.span(f"poll {name}", held.record, kind="CLIENT"):
                is_news = await self._ask(held, provider, at)
        except (ProviderError, DecodeError) as error:
            held.poll_problem = str(error)
            counts[name, "failed"] += 1
            raise
        held.poll_problem = None
        counts[name, "news" if is_news else "nothing"] += 1
        if is_news:
            _log.info("job %s at %s: a status call brought news", held.ref, name, extra=telemetry.names(held.record))

    async def _ask(self, held: HeldJob, provider: Provider, at: float) -> bool:
        """Make the call, append its answer if it is news, and return whether it is."""
        response = await self._call(held, provider)
        doubted_at, enough = held.record.doubted_at, BELIEVED_AFTER * held.provider.info.pace.slowest
        still = f"{STILL} {at - doubted_at:.0f}" if doubted_at is not None and at - doubted_at >= enough else ""
        body = masked(response.body, held.provider)
        entry = make_entry("status", at, status=response.status, body=body, note=still)
        known = held.readings.get(entry.id)
        if known is not None and known.events:
            # The same answer as once before, but now after others: an entry of its own, if it is news.
            note = f"{still} again at {at:.0f}".lstrip()
            entry = make_entry("status", at, status=response.status, body=body, note=note)
        (reading,) = held.read([entry])
        if any(event.task_id not in {None, held.record.task_id} for event in reading.events):  # the fold ignores all
            raise DecodeError([f"it names another task than {held.record.task_id} @ $"], where="the status")
        is_news = _is_news(held, reading)
        await self.journal.append_read(held, [reading] if is_news else [])
        if reading.problem:
            held.provider.parse_status(response)  # raises it, with what the entry's headers do not keep
        return is_news

    async def credits(self, name: str | None) -> float:
        """Return the balance at the provider called *name*, or at the first one if `None`; see `Client.credits`."""
        provider = choose(self.providers, name)
        info = provider.info
        if not isinstance(provider, Credits):
            raise UnsupportedError(f"{info.name} has no known call that tells the balance")
        if not info.has_key:
            raise ConfigError(f"no API key for {info.name}: set {info.key_variable}, or pass `api_key=`")
        try:
            response = await self.transport.send(provider.build_credits())
        except (NotSentError, MaybeSentError) as error:
            raise ProviderDownError(str(error), provider=info.name, retryable=True, charged=False) from error
        return provider.parse_credits(response)

    async def _call(self, held: HeldJob, provider: Provider) -> HttpResponse:
        try:
            # The wait for a permit, three tries to connect and the call must all end before the claim does.
            async with asyncio.timeout(self.timeout), self._limiter(provider).permit():
                return await self.transport.send(provider.build_status(held.record), timeout=self.timeout)
        except (TimeoutError, NotSentError, MaybeSentError) as error:
            why = str(error) or f"the status call did not finish within {self.timeout:g} s"
            raise ProviderDownError(why, provider=provider.info.name, retryable=True, charged=False) from error

    def _limiter(self, provider: Provider) -> Limiter:
        info = provider.info
        if info.account not in self._limiters:
            self._limiters[info.account] = Limiter(info.limits.queries, info.limits.queries_per, self.journal.clock)
        return self._limiters[info.account]

    async def _poll(self, ref: str) -> None:
        held = await self.journal.hold(ref)
        if held is None:
            return
        asks_at = held.record.asks_at
        if held.record.is_final and (asks_at is None or asks_at <= held.polled_at):
            await self.journal.append(held)  # only its index was stale
            return
        age = self._steady.now() - held.record.created_at
        # A job expires only after a last answered status call; without an answer it gets as long again.
        is_over = age >= self.journal.expire_after
        if held.record.task_id is not None:
            _log.debug("job %s: polling its status: %s", ref, _why(held, self.journal.clock.now()))
            before = held.record
            try:
                await self.ask(held)
                self._note_silence(held, before)
            except (ProviderError, DecodeError) as error:
                _log.info("job %s: the status call failed: %s", ref, error, extra=telemetry.names(held.record))
                is_over = age >= 2 * self.journal.expire_after
                await self.journal.append(held)
        if is_over and not held.record.is_final:
            await self.journal.append(held, [make_entry("expired", self.journal.clock.now())])
        elif held.record.task_id is None:
            await self.journal.append(held)

    def _note_silence(self, held: HeldJob, before: Record) -> None:
        """Warn now and then that a poll found news which a webhook should have brought."""
        record, now = held.record, self.journal.clock.monotonic()
        is_told = not record.webhooks or any(reading.entry.kind == "webhook" for reading in held.readings.values())
        is_news = (record.stage, record.verdict) != (before.stage, before.verdict)
        if is_told or not is_news or now - self._silence_said_at < SILENCE_SECONDS:
            return
        self._silence_said_at = now
        _log.warning(
            "job %s at %s: a status call brought news, and no webhook did: the provider could not reach %s, or a proxy "
            "refused it; `audioext doctor`, or client.check(), says why",
            record.ref,
            record.provider,
            without_password(str(self.public_url or "the public_url that it was submitted with")),
            extra=telemetry.names(record),
        )


def _why(held: HeldJob, now: float) -> str:
    """Return why the status of a job is due, for the log."""
    record = held.record
    if record.asks_at is not None and record.asks_at > held.polled_at:
        return "a webhook raised a question"
    if held.polled_at >= record.seen_at:
        return f"the last call, {now - held.polled_at:.0f} s ago, told nothing new"
    silence = f"no news of it for {now - max(record.seen_at, record.created_at):.0f} s"
    return silence if record.webhooks else f"{silence}, and it has no callback URL"


def _is_news(held: HeldJob, reading: Reading) -> bool:
    """Return whether a status answer changes anything that users can see."""
    old = held.record
    new = held.with_readings([reading])
    if new is None:
        return False
    if held.count >= LONG_JOURNAL and not old.is_final and _gist(new) == _gist(old):
        # A new doubt is news, unless it has come and gone too often; that it is gone always is.
        is_doubted = new.doubted_at is not None
        calls = sum(each.entry.kind == "status" for each in held.readings.values())
        if is_doubted == (old.doubted_at is not None) or (is_doubted and calls >= LONG_JOURNAL):
            return False
    return msgspec.structs.replace(new, sightings=old.sightings, seen_at=old.seen_at) != old


def _gist(record: Record) -> object:
    """Return the parts of a record that a status call is for, and that do not differ with each call."""
    shown = sorted((track.audio_url is None, track.failure is None) for track in record.tracks)
    return record.stage, record.verdict, shown
