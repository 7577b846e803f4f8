"""Results that last: a job's files by links that live, from its status, and from its vendor's recovery of files.

A recovery is journaled before its POST. Whoever finds one under way, in this process or after a crash, waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Generator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path

from attrs import define, field, frozen

from audioext.errors import AudioextError, ConfigError, DownloadError, StoreError, UnsupportedError
from audioext.files.downloads import Downloader, Links
from audioext.http.messages import HttpRequest
from audioext.http.transport import BrokenError, NotSentError
from audioext.models.entries import UNSENT, Entry, EntryKind, make_entry
from audioext.models.record import Recovery, Verdict
from audioext.models.results import SaveProgress, Song, Track
from audioext.providers.base import Recovers
from audioext.runtime.held import HeldJob
from audioext.runtime.journal import Journal
from audioext.runtime.orders import choose
from audioext.runtime.poller import Poller
from audioext.runtime.submitter import POLL_GRACE_SECONDS, SUBMIT_TIMEOUT_SECONDS, Submitter, secrets_sent
from audioext.state.reading import masked
from audioext.state.recovery import status_note
from audioext.state.tracks import song_of

_log = logging.getLogger("audioext.recovery")

FRESH_SECONDS = 600.0
"""A link that was shown so lately may not be there yet; an older one that looks dead is."""
POLL_SECONDS = 2.0
"""Between two status calls: docs.sunoapi.org/suno-api/get-recovery-audio-details, read 2026-11-26."""
UNANSWERED_SECONDS = 900.0
"""How long a recovery whose POST has no known answer counts as under way, where its callback can reach us."""
UNREACHED_SECONDS = POLL_GRACE_SECONDS
"""The same where nobody can call us."""
_TAKEN_BY = "taken-by"


@define(kw_only=True, eq=False, repr=False)
class Recoveries:
    """Has vendors bring back files; *timeout* (seconds) bounds that."""

    journal: Journal
    poller: Poller
    submitter: Submitter
    """Knows where vendors call us back."""
    downloader: Downloader
    timeout: float
    _running: dict[str, asyncio.Task[HeldJob]] = field(factory=dict, init=False)

    async def recover(self, ref: str, *, by_hand: bool) -> HeldJob:
        """Return a job whose files its vendor brought back; all who ask at the same time share one recovery.

        A new one is made *by_hand*, or where none was made yet, was refused, or brought links that have died since.
        It raises what `Song.recover` does.
        """
        self.submitter.context.check_loop()
        task = self._running.get(ref)
        if task is None:
            task = asyncio.create_task(self._recover(ref, by_hand=by_hand), name=f"audioext recovery of {ref}")
            self._running[ref] = task
            task.add_done_callback(partial(self._ended, ref))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            message = f"job {ref}: the client was closed during its recovery; save it again to wait for that one"
            raise DownloadError([message]) from None

    async def aclose(self) -> None:
        """Stop waiting; what was sent is in the journals."""
        running = tuple(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, ref: str, task: asyncio.Task[HeldJob]) -> None:
        self._running.pop(ref, None)
        if not task.cancelled():
            task.exception()  # whoever waits gets it; where nobody does any more it is no news

    async def hold(self, ref: str) -> HeldJob:
        """Return a job, up to date with the store, or raise ConfigError or DownloadError: nobody can be asked."""
        self.submitter.context.check_loop()
        if self.journal.is_closed:
            raise ConfigError("the client is not open: for fresh links await the job again on an open one")
        held = await self.journal.hold(ref)
        if held is None:
            raise DownloadError([f"the store holds job {ref} no longer, so nobody can be asked for fresh links"])
        return held

    # --- a recovery --------------------------------------------------------------------------------------

    async def _recover(self, ref: str, *, by_hand: bool) -> HeldJob:
        held = await self.hold(ref)
        provider = choose(self.poller.providers, held.record.provider)
        if not isinstance(provider, Recovers) or held.record.task_id is None:
            raise UnsupportedError(f"{held.record.provider} has no recovery of files")
        recovery = None
        while recovery is None:
            if self._begins(held.record.recovery, by_hand=by_hand):
                await self._begin(held, provider, held.record.task_id)
            recovery = await self._wait(held, provider)
        if recovery.verdict is Verdict.COMPLETE:
            return held
        how = "was refused" if recovery.verdict is Verdict.REFUSED else "failed, `await song.recover()` tries it again"
        raise DownloadError([f"the recovery of its files {how}: {recovery.problem}"])

    def _begins(self, recovery: Recovery | None, *, by_hand: bool) -> bool:
        """Say whether a new one may be made: never while one is under way, and only once by itself."""
        if recovery is None or recovery.verdict is Verdict.REFUSED:
            return True
        if recovery.verdict is Verdict.OPEN:
            return self._is_lost(recovery)
        brought = recovery.verdict is Verdict.COMPLETE
        return by_hand or (brought and self.journal.clock.now() >= recovery.ended_at + FRESH_SECONDS)

    @property
    def _is_reachable(self) -> bool:
        return self.submitter.public_url is not None

    def _is_lost(self, recovery: Recovery) -> bool:
        """Say whether nobody will hear of it any more: its id is not known, and no callback came."""
        seconds = UNANSWERED_SECONDS if self._is_reachable else UNREACHED_SECONDS
        return recovery.task_id is None and self.journal.clock.now() >= recovery.begun_at + seconds

    async def _begin(self, held: HeldJob, provider: Recovers, task_id: str) -> None:
        """Send the POST of the next attempt, unless another process wrote it down first."""
        attempt = 1 if held.record.recovery is None else held.record.recovery.attempt + 1
        mine = secrets.token_hex(8)
        note = f"attempt {attempt}"  # which makes it one entry, whoever writes it
        entry = make_entry("recovery", self.journal.clock.now(), headers={_TAKEN_BY: mine}, note=note)
        await self.journal.append(held, [entry])
        if held.readings[entry.id].entry.headers.get(_TAKEN_BY) != mine:
            return
        _log.info("job %s: its links have died, and its vendor is asked to bring the files back", held.ref)
        request = provider.build_recovery(task_id, self.submitter.callback(held.record.provider, held.ref))
        await self.submitter.see_through(self._post(held, request, note))

    async def _post(self, held: HeldJob, request: HttpRequest, note: str) -> None:
        said = await self._call(held, "recovery_answer", request, note=note, timeout=SUBMIT_TIMEOUT_SECONDS)
        await self.journal.append_sometime(held, [said])

    async def _wait(self, held: HeldJob, provider: Recovers) -> Recovery | None:
        """Return the recovery that is under way when it has ended, `None` where nobody will hear of it any more."""
        deadline = self.journal.clock.monotonic() + self.timeout
        pause = min(POLL_SECONDS, held.provider.info.pace.every)
        while True:
            waiter = held.waiter()
            try:
                await self._bearing(held, self.journal.look(held.ref))
                recovery = held.record.recovery
                assert recovery is not None  # noqa: S101 - it was begun
                if recovery.verdict is not Verdict.OPEN:
                    return recovery
                why = f" ({recovery.problem})" if recovery.problem else ""
                if self.journal.clock.monotonic() >= deadline:
                    raise DownloadError([f"the recovery of its files has not ended yet{why}; save it again later"])
                if recovery.task_id is not None:
                    await self._bearing(held, self._poll(held, provider, recovery.task_id))
                elif self._is_lost(recovery):
                    return None
                elif recovery.problem and not self._is_reachable:
                    raise DownloadError([f"nothing is heard of the recovery of its files{why}; save it again later"])
                await self.journal.clock.wait(waiter, pause)
            finally:
                held.leave(waiter)

    async def _bearing(self, held: HeldJob, work: Awaitable[None]) -> None:
        """Do *work*; while the store is away a wait goes on with what is known."""
        try:
            await work
        except StoreError as error:
            _log.warning("job %s: its recovery waits for the store: %s", held.ref, error)

    async def _poll(self, held: HeldJob, provider: Recovers, recovery_id: str) -> None:
        note = status_note(recovery_id)
        request = provider.build_recovery_status(recovery_id)
        entry = await self._call(held, "recovery_status", request, note=note, timeout=self.poller.timeout)
        (reading,) = held.read([entry])
        if reading.recovery:
            await self.journal.append_read(held, [reading])
        elif reading.problem:
            _log.info("job %s: the status of its recovery could not be read: %s", held.ref, reading.problem)

    async def _call(
        self,
        held: HeldJob,
        kind: EntryKind,
        request: HttpRequest,
        *,
        note: str,
        timeout: float,  # noqa: ASYNC109 - the transport's own
    ) -> Entry:
        """Make a call and return what came of it; it never raises."""
        try:
            response = await self.poller.transport.send(request, timeout=timeout)
        except (NotSentError, BrokenError) as error:
            unsent = f"{UNSENT}: " if isinstance(error, NotSentError) else ""
            return make_entry(kind, self.journal.clock.now(), note=f"{unsent}{error} ({note})")
        body = masked(
            response.body, secrets_sent(held.provider, self.submitter.callback(held.record.provider, held.ref))
        )
        return make_entry(kind, self.journal.clock.now(), status=response.status, body=body, note=note)


@frozen
class JobFiles:
    """What the song and the tracks of job *ref*, which was submitted to *api*, are fetched by."""

    _recoveries: Recoveries
    _ref: str
    _api: str | None

    def __deepcopy__(self, memo: dict[int, object]) -> JobFiles:
        """Return the same: a copy of a song is fetched by the client of the song."""
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Be nothing in another process, which has not this client: a song is a value there."""
        return type(None), ()

    @contextmanager
    def _counted(self, files: int) -> Generator[None]:
        """Count that many as fetched within the block, but for those that are not."""
        counts = self._recoveries.journal.counts.downloads
        try:
            yield
        except DownloadError as error:
            counts["whole"] += len(error.paths)
            counts["failed"] += files - len(error.paths)
            raise
        counts["whole"] += files

    def _links(self) -> Links:
        """Return what is known of the job's links, and the ways to such as live."""
        journal = self._recoveries.journal
        held, is_fresh = journal.held(self._ref), True
        if held is not None and held.record.reached:
            shown_at = held.record.reached[-1].at
            if held.record.recovery is not None:
                shown_at = max(shown_at, held.record.recovery.ended_at)
            is_fresh = journal.clock.now() < shown_at + FRESH_SECONDS
        return Links(is_fresh=is_fresh, api=self._api, renewals=(self._by_status, self._by_recovery))

    async def _by_status(self, dead: Sequence[Track]) -> list[Track | str]:
        try:
            held = await self._recoveries.hold(self._ref)
            found = _living(held, dead)
            if not any(found):
                await self._recoveries.poller.ask(held)
                found = _living(held, dead)
        except AudioextError as error:
            return [f"its status tells no fresh link: {error}"] * len(dead)
        return [track or "its status shows the same link" for track in found]

    async def _by_recovery(self, dead: Sequence[Track]) -> list[Track | str]:
        try:
            held = await self._recoveries.recover(self._ref, by_hand=False)
        except AudioextError as error:
            return [str(error)] * len(dead)
        return [track or "its recovery brought no other link" for track in _living(held, dead)]

    async def read(self, track: Track) -> bytes:
        """Return the file of *track*."""
        with self._counted(1):
            return await self._recoveries.downloader.read(track, self._links())

    async def cover(self, track: Track) -> bytes:
        """Return the picture on the cover of *track*."""
        return await self._recoveries.downloader.cover(track, self._links())

    async def stream(self, track: Track) -> AsyncGenerator[bytes]:
        """Yield the file of *track* as it comes."""
        with self._counted(1):
            async with aclosing(self._recoveries.downloader.stream(track, self._links())) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def save(
        self, song: Song, folder: Path, *, overwrite: bool, progress: SaveProgress | None
    ) -> tuple[Path, ...]:
        """Save *song* into *folder* and return the paths, in the order of the tracks."""
        save = self._recoveries.downloader.save
        with self._counted(len(song.tracks)):
            return await save(song, folder, overwrite=overwrite, progress=progress, links=self._links())

    async def recover(self) -> Song:
        """Return the job's song with files that its vendor brought back."""
        held = await self._recoveries.recover(self._ref, by_hand=True)
        song = song_of(held.record, self)
        if song is None:
            raise DownloadError([f"job {self._ref} is not complete"])
        return song


def _living(held: HeldJob, dead: Sequence[Track]) -> list[Track | None]:
    """Return, for each of the *dead* tracks, the job's own one where its link is another."""
    found: list[Track | None] = []
    for track in dead:
        same = (each for each in held.record.tracks if each.id == track.id and each.position == track.position)
        own = next(same, None)
        found.append(own if own is not None and own.audio_url not in {None, track.audio_url} else None)
    return found
