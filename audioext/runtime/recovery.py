"""Downloads of a job's files, with fresh links for dead ones from a status call, then from the vendor's recovery.

A recovery is journaled before its POST. Any process that finds one running, even after a crash, waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Generator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path

from attrs import define, evolve, field, frozen

from audioext.errors import AudioextError, ConfigError, DownloadError, StoreError, UnsupportedError
from audioext.files.downloads import Downloader
from audioext.http.messages import HttpRequest
from audioext.http.transport import MaybeSentError, NotSentError
from audioext.models.entries import UNSENT, Entry, EntryKind, make_entry
from audioext.models.record import Recovery, Verdict
from audioext.models.results import SaveProgress, Song, Track
from audioext.providers.base import Recovers
from audioext.runtime.handle import Here
from audioext.runtime.held import HeldJob
from audioext.runtime.journal import Journal
from audioext.runtime.orders import choose
from audioext.runtime.poller import Poller
from audioext.runtime.submitter import POLL_GRACE_SECONDS, SUBMIT_TIMEOUT_SECONDS, Submitter
from audioext.state.reading import masked
from audioext.state.recovery import status_note
from audioext.state.tracks import song_of

_log = logging.getLogger("audioext.recovery")

FRESH_SECONDS = 600.0
"""A link younger than this that fails may just not be ready yet; an older one is dead."""
POLL_SECONDS = 2.0
"""The pause between status calls: docs.sunoapi.org/suno-api/get-recovery-audio-details, read 2026-11-26."""
UNANSWERED_SECONDS = 900.0
"""How long a recovery whose POST was not answered counts as running; `POLL_GRACE_SECONDS` without a callback URL."""
_TAKEN_BY = "taken-by"
_NO_OTHER = "its recovery gave no other link"


@define(kw_only=True, eq=False, repr=False)
class Recoveries:
    """Runs vendors' recoveries of files; *timeout* (seconds) bounds the wait for one."""

    journal: Journal
    poller: Poller
    submitter: Submitter
    """Used for its callback URLs, and to finish POSTs when the client closes."""
    downloader: Downloader
    timeout: float
    _running: dict[str, asyncio.Task[HeldJob]] = field(factory=dict, init=False)

    async def recover(self, ref: str, *, by_hand: bool) -> HeldJob:
        """Return a job after its vendor has restored its files; concurrent callers share one recovery.

        A new one is made if there was none, or the last was refused or lost, or its links have died since; *by_hand*
        whenever the last has ended. Raises what `Song.recover` does.
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
        """Stop waiting. Recoveries that were sent are in the journals."""
        running = tuple(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, ref: str, task: asyncio.Task[HeldJob]) -> None:
        self._running.pop(ref, None)
        if not task.cancelled():
            task.exception()  # waiters get it; without any, asyncio must not log it as never retrieved

    async def hold(self, ref: str) -> HeldJob:
        """Return a job, up to date with the store, or raise ConfigError: closed, or DownloadError: no such job."""
        self.submitter.context.check_loop()
        if self.journal.is_closed:
            raise ConfigError("the client is not open: for fresh links await the job again on an open one")
        held = await self.journal.hold(ref)
        if held is None:
            raise DownloadError([f"job {ref} is no longer in the store, so no fresh links can be requested"])
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
        """Return whether to begin a new recovery: never while one is running, and after a failed one only *by_hand*."""
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
        """Return whether a recovery has no known id and its callback is overdue, so that its end cannot be known."""
        seconds = UNANSWERED_SECONDS if self._is_reachable else POLL_GRACE_SECONDS
        return recovery.task_id is None and self.journal.clock.now() >= recovery.begun_at + seconds

    async def _begin(self, held: HeldJob, provider: Recovers, task_id: str) -> None:
        """Send the POST of the next attempt, unless another process journaled that attempt first."""
        attempt = 1 if held.record.recovery is None else held.record.recovery.attempt + 1
        mine = secrets.token_hex(8)
        note = f"attempt {attempt}"  # the same note makes the same entry, whichever process appends it
        entry = make_entry("recovery", self.journal.clock.now(), headers={_TAKEN_BY: mine}, note=note)
        await self.journal.append(held, [entry])
        if held.readings[entry.id].entry.headers.get(_TAKEN_BY) != mine:
            return
        _log.info("job %s: its links have died; asking its vendor to restore the files", held.ref)
        request = provider.build_recovery(task_id, self.submitter.callback(held.record.provider, held.ref))
        await self.submitter.run_to_end(held, self._post(held, request, note))

    async def _post(self, held: HeldJob, request: HttpRequest, note: str) -> None:
        said = await self._call(held, "recovery_answer", request, note=note, timeout=SUBMIT_TIMEOUT_SECONDS)
        await self.journal.append_or_queue(held, [said])

    async def _wait(self, held: HeldJob, provider: Recovers) -> Recovery | None:
        """Wait until the running recovery has ended, and return it, or `None` if it is lost."""
        deadline = self.journal.clock.monotonic() + self.timeout
        pause, said = min(POLL_SECONDS, held.provider.info.pace.every), None
        while True:
            waiter = held.waiter()
            try:
                await self._tolerating_outage(held, self.journal.look(held.ref))
                recovery = held.record.recovery
                assert recovery is not None  # noqa: S101 - its entry is in the journal
                if recovery.verdict is not Verdict.OPEN:
                    return recovery
                why = f" ({said or recovery.problem})" if said or recovery.problem else ""
                if self.journal.clock.monotonic() >= deadline:
                    raise DownloadError([f"the recovery of its files has not ended yet{why}; save it again later"])
                if recovery.task_id is not None:
                    said = await self._tolerating_outage(held, self._poll(held, provider, recovery.task_id))
                elif self._is_lost(recovery):
                    return None
                elif recovery.problem and not self._is_reachable:
                    raise DownloadError([f"the recovery of its files has no known task{why}; save it again later"])
                await self.journal.clock.wait(waiter, pause)
            finally:
                held.leave(waiter)

    async def _tolerating_outage(self, held: HeldJob, work: Awaitable[str | None]) -> str | None:
        """Return what *work* does; while the store is down, log that, return it and go on with what is known."""
        try:
            return await work
        except StoreError as error:
            _log.warning("job %s: its recovery waits for the store: %s", held.ref, error)
            return str(error)

    async def _poll(self, held: HeldJob, provider: Recovers, recovery_id: str) -> str | None:
        """Ask for the status of a recovery, and return why that told nothing, `None` if it did."""
        note = status_note(recovery_id)
        request = provider.build_recovery_status(recovery_id)
        entry = await self._call(held, "recovery_status", request, note=note, timeout=self.poller.timeout)
        (reading,) = held.read([entry])
        if reading.recovery:
            await self.journal.append_read(held, [reading])
        elif reading.problem:
            _log.info("job %s: the status of its recovery could not be read: %s", held.ref, reading.problem)
            return f"its last status call said: {reading.problem}"
        return None

    async def _call(
        self,
        held: HeldJob,
        kind: EntryKind,
        request: HttpRequest,
        *,
        note: str,
        timeout: float,  # noqa: ASYNC109 - passed on to the transport
    ) -> Entry:
        """Make a call, and return the entry of its answer, or of why there is none."""
        try:
            response = await self.poller.transport.send(request, timeout=timeout)
        except (NotSentError, MaybeSentError) as error:
            unsent = f"{UNSENT}: " if isinstance(error, NotSentError) else ""
            return make_entry(kind, self.journal.clock.now(), note=f"{unsent}{error} ({note})")
        callback = self.submitter.callback(held.record.provider, held.ref)
        body = masked(response.body, held.provider, callback)
        return make_entry(kind, self.journal.clock.now(), status=response.status, body=body, note=note)


@frozen
class JobFiles(Here):
    """The `Files` of one job: downloads for its song and tracks. *api* is the base URL that it was submitted to."""

    _recoveries: Recoveries
    _ref: str
    _api: str | None

    @contextmanager
    def _counted(self, files: int) -> Generator[None]:
        """Count the *files* that the block downloads as whole or failed."""
        counts = self._recoveries.journal.counts.downloads
        try:
            yield
        except DownloadError as error:
            counts["whole"] += len(error.paths)
            counts["failed"] += files - len(error.paths)
            raise
        counts["whole"] += files

    @property
    def _downloader(self) -> Downloader:
        """The downloader that knows how fresh the job's links are, and how to replace dead ones."""
        journal = self._recoveries.journal
        held, is_fresh = journal.held.get(self._ref), True
        if held is not None and held.record.reached:
            shown_at = held.record.reached[-1].at
            if held.record.recovery is not None:
                shown_at = max(shown_at, held.record.recovery.ended_at)
            is_fresh = journal.clock.now() < shown_at + FRESH_SECONDS
        renewals = (self._by_status, self._by_recovery)
        return evolve(self._recoveries.downloader.of_api(self._api), is_fresh=is_fresh, renewals=renewals)

    async def _by_status(self, dead: Sequence[Track]) -> list[Track | str]:
        try:
            held = await self._recoveries.hold(self._ref)
            found = _fresh_links(held, dead)
            if not any(found):
                await self._recoveries.poller.ask(held)
                found = _fresh_links(held, dead)
        except AudioextError as error:
            return [f"its status gives no fresh link: {error}"] * len(dead)
        return [track or "its status shows the same link" for track in found]

    async def _by_recovery(self, dead: Sequence[Track]) -> list[Track | str]:
        try:
            held = await self._recoveries.recover(self._ref, by_hand=False)
        except AudioextError as error:
            return [str(error)] * len(dead)
        recovery = held.record.recovery
        lost = {} if recovery is None else {track.id: track.failure for track in recovery.tracks if track.failure}
        why = [f"its recovery failed: {lost[track.id]}" if track.id in lost else _NO_OTHER for track in dead]
        return [track or said for track, said in zip(_fresh_links(held, dead), why, strict=True)]

    async def read(self, track: Track) -> bytes:
        """Return the file of *track*."""
        with self._counted(1):
            return await self._downloader.read(track)

    async def cover(self, track: Track) -> bytes:
        """Return the cover image of *track*."""
        return await self._downloader.cover(track)

    async def stream(self, track: Track) -> AsyncGenerator[bytes]:
        """Yield the file of *track* in chunks as they arrive."""
        with self._counted(1):
            async with aclosing(self._downloader.stream(track)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def save(
        self, song: Song, folder: Path, *, overwrite: bool, progress: SaveProgress | None
    ) -> tuple[Path, ...]:
        """Save *song* into *folder* and return the paths, in the order of the tracks."""
        with self._counted(len(song.tracks)):
            return await self._downloader.save(song, folder, overwrite=overwrite, progress=progress)

    async def recover(self) -> Song:
        """Return the job's song with the files that its vendor restored."""
        held = await self._recoveries.recover(self._ref, by_hand=True)
        song = song_of(held.record, self)
        if song is None:
            raise DownloadError([f"job {self._ref} is not complete"])
        return song


def _fresh_links(held: HeldJob, dead: Sequence[Track]) -> list[Track | None]:
    """Return, for each of the *dead* tracks, the job's current one if it has another link, else `None`."""
    found: list[Track | None] = []
    for track in dead:
        same = (each for each in held.record.tracks if each.id == track.id and each.position == track.position)
        own = next(same, None)
        found.append(own if own is not None and own.audio_url not in {None, track.audio_url} else None)
    return found
