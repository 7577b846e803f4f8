"""A batch that saves hundreds of songs at once takes the line in turns."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

import audioext as ax
from audioext.files.downloads import MOST_AT_ONCE, Downloader
from audioext.files.fetching import IDLE_SECONDS
from audioext.http.transport import Transport
from tests.integration.client.test_downloads import save, song_of
from tests.support.clock import LoopTime
from tests.support.hosts import LOOPBACK, gives, serve_host
from tests.support.sounds import MP3


async def test_files_are_fetched_in_turns(tmp_path: Path) -> None:
    """However many songs are saved or read at once, a host sees only so many requests at a time."""
    open_now, most = 0, 0

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        for _turn in range(50):
            await asyncio.sleep(0)
        open_now -= 1
        return web.Response(body=MP3)

    async with serve_host({"/f/1.mp3": answer}) as host:
        songs = [song_of(f"{host.url}/f/1.mp3", title=f"Song {n}") for n in range(3 * MOST_AT_ONCE)]
        await asyncio.gather(*(save(song, tmp_path) for song in songs))
        assert 0 < most <= MOST_AT_ONCE

        most, transport = 0, Transport()
        downloader = Downloader(rules=LOOPBACK, transport=transport)
        await asyncio.gather(*(downloader.read(song.tracks[0]) for song in songs))
        assert 0 < most <= MOST_AT_ONCE
        await transport.aclose()
    assert 3 * MOST_AT_ONCE == len([*tmp_path.iterdir()])


async def test_a_file_that_waits_for_its_turn_loses_no_time(loop_time: LoopTime, tmp_path: Path) -> None:
    """The timeout of a file starts with its turn, so the last ones of a large batch have as long as the first."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(10)
        return web.Response(body=MP3)

    async with serve_host({"/f/1.mp3": answer}) as host:
        transport = Transport()
        downloader = Downloader(rules=LOOPBACK, transport=transport, timeout=15)
        songs = [song_of(f"{host.url}/f/1.mp3", title=f"Song {n}") for n in range(2 * MOST_AT_ONCE + 1)]
        saved = asyncio.gather(*(downloader.save(song, tmp_path) for song in songs), return_exceptions=True)

        outcomes, _ = await loop_time.run(saved)

        assert [] == [each for each in outcomes if isinstance(each, BaseException)]
        await transport.aclose()


async def test_a_host_that_sends_nothing_is_named_in_words(loop_time: LoopTime, tmp_path: Path) -> None:
    """The error of a silent host says for how long it was silent, and not only the name of an exception."""
    over = asyncio.Event()

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    async with serve_host({"/f/1.mp3": answer}) as host:
        saved = asyncio.gather(save(song_of(f"{host.url}/f/1.mp3"), tmp_path), return_exceptions=True)
        (error,), _ = await loop_time.run(saved)
        over.set()

    assert isinstance(error, ax.DownloadError)
    assert f"127.0.0.1 sent nothing for {IDLE_SECONDS:.0f} s" in str(error)


async def test_a_read_that_waits_for_a_fresh_link_takes_no_turn_from_others() -> None:
    """However many tracks with dead links are read, others are read while fresh links are waited for."""
    asked, all_asked, over = 0, asyncio.Event(), asyncio.Event()

    async def renew(dead: Sequence[ax.Track]) -> list[ax.Track | str]:
        nonlocal asked
        asked += 1
        if asked == MOST_AT_ONCE:
            all_asked.set()
        await over.wait()
        return ["no other link"] * len(dead)

    async with serve_host({"/f/gone": gives(b"", status=410), "/f/1.mp3": gives(MP3)}) as host:
        transport = Transport()
        downloader = Downloader(rules=LOOPBACK, transport=transport, renewals=(renew,))
        dead, good = song_of(f"{host.url}/f/gone").tracks[0], song_of(f"{host.url}/f/1.mp3").tracks[0]
        waiting = [asyncio.ensure_future(downloader.read(dead)) for _ in range(MOST_AT_ONCE)]
        await all_asked.wait()

        assert MP3 == await asyncio.wait_for(downloader.read(good), 20)
        over.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [ax.DownloadError] * MOST_AT_ONCE == [type(each) for each in outcomes]
        await transport.aclose()


def test_the_turns_of_a_loop_end_with_it(tmp_path: Path) -> None:
    """A program that runs many event loops keeps none of them, also if files had to wait for their turns."""

    async def save_many() -> weakref.ref[asyncio.AbstractEventLoop]:
        links = [f"ftp://127.0.0.1/{number}" for number in range(MOST_AT_ONCE + 1)]
        (outcome,) = await asyncio.gather(save(song_of(*links), tmp_path), return_exceptions=True)
        assert isinstance(outcome, ax.DownloadError)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(save_many())
    gc.collect()

    assert loop() is None
