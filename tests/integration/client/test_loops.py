"""A client belongs to one event loop: a call on another is refused at once, and nothing is sent."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from yarl import URL

import audioext as ax
from audioext.http.urls import callback_url
from tests.integration.client.conftest import WEB, MakeClient
from tests.support.api import Api
from tests.support.clock import PROMPT_SECONDS
from tests.support.hosts import gives, serve_host
from tests.support.sounds import MP3

CALLS: dict[str, Callable[[ax.Client, ax.Job], Awaitable[object]]] = {
    "extend": lambda client, _: client.extend(audio_id="x", model="V5"),
    "run": lambda client, _: client.run(ax.Extend(audio_id="x", model="V5")),
    "job": lambda client, job: client.job(job.ref),
    "credits": lambda client, _: client.credits(),
    "check": lambda client, _: client.check(),
    "aclose": lambda client, _: client.aclose(),
    "await": lambda _, job: job.result(),
    "a stage": lambda _, job: job.wait(ax.Stage.FIRST),
    "iterate": lambda _, job: anext(aiter(job)),
    "refresh": lambda _, job: job.refresh(),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_from_another_loop_is_an_error(call: str, api: Api, open_client: MakeClient) -> None:
    """A call in a thread with its own loop, like a Flask view, raises an error that names the right call."""
    api.is_done = False
    client = await open_client(**WEB)
    job = await client.extend(audio_id="x", model="V5")

    async def elsewhere() -> None:
        await CALLS[call](client, job)

    with pytest.raises(ax.ConfigError, match=r"opened in another event loop.*run_coroutine_threadsafe"):
        await asyncio.to_thread(asyncio.run, elsewhere())

    assert 1 == len(api.posts)
    assert 200 == await api.call_back("complete")
    assert job.ref == (await job).ref


async def test_a_song_is_saved_on_any_loop_and_recovered_on_its_own(
    api: Api, open_client: MakeClient, tmp_path: Path
) -> None:
    """Saving works on any loop; requesting a fresh link needs the client's loop, and raises an error on another."""
    async with serve_host() as host:
        api.link = host.put("/song.mp3", gives(), gives(b"", status=410))
        client = await open_client(allow_hosts=["http://127.0.0.1"])
        song = await client.run(ax.Extend(audio_id="x", model="V5"))

        (path,) = await asyncio.to_thread(asyncio.run, song.save(tmp_path))
        assert MP3 == path.read_bytes()
        with pytest.raises(ax.DownloadError, match=r"HTTP 410.*opened in another event loop"):
            await asyncio.to_thread(asyncio.run, song.save(tmp_path))
        with pytest.raises(ax.ConfigError, match="opened in another event loop"):
            await asyncio.to_thread(asyncio.run, song.recover())

    assert [] == api.recoveries


def test_each_run_is_a_loop_of_its_own() -> None:
    """A client opened in one `asyncio.run` refuses to submit in the next, before anything is sent."""
    with pytest.warns(ResourceWarning, match="unclosed <Client kie, open>"):
        use_in_two_runs()


def use_in_two_runs() -> None:
    """Open a client on one loop, and try to use it on another."""
    client = ax.Client(ax.Kie("key"))
    asyncio.run(client.open())
    for call in (client.extend(audio_id="x", model="V5"), client.aclose()):
        with pytest.raises(ax.ConfigError, match=r"open and use it within one `asyncio\.run`"):
            asyncio.run(call)
    del client, call
    gc.collect()


async def test_what_needs_no_loop_works_anywhere(api: Api, open_client: MakeClient) -> None:
    """Links and counts can be read on any thread, and so can a finished job once the client is closed."""
    client = await open_client(**WEB)
    job = await client.extend(audio_id="x", model="V5")
    assert 200 == await api.call_back("complete")
    await job

    assert client.progress_url(job) == await asyncio.to_thread(client.progress_url, job)
    assert 1 == (await asyncio.to_thread(client.stats)).open_jobs + 1
    await client.aclose()
    with pytest.raises(ax.ClientClosedError):
        await job.refresh()
    assert job.ref == (await asyncio.to_thread(asyncio.run, job.result())).ref


@pytest.mark.filterwarnings("ignore:unclosed <Client:ResourceWarning")
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_webhook_for_a_loop_that_does_not_run_is_told(is_closed: bool) -> None:
    """`accept` of a client whose loop stopped, as after `run_until_complete`, raises at once; it would never return."""
    secret = b"0123456789abcdef-secret"
    path = callback_url(URL("http://hooks.test"), secret, "kie", "r" * 24).raw_path
    client = ax.Client(ax.Kie("key"), public_url="http://hooks.test", listen=None, secrets=[secret])
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(client.open())
        accepting = asyncio.wait_for(client.inbox.accept(ax.Webhook(path=path, body=b"{}")), PROMPT_SECONDS)
        if is_closed:
            loop.run_until_complete(cancel_all())
            loop.close()
        with pytest.raises(ax.ConfigError, match=r"opened on does not run: keep it running in a thread"):
            asyncio.run(accepting)
    finally:
        if not is_closed:
            loop.run_until_complete(client.aclose())
            loop.close()


async def cancel_all() -> None:
    """Cancel the client's tasks, as `asyncio.run` does at its end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
