"""A submit is sent once, refused before anything is charged, and not lost when its answer is."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import MakeClient
from tests.support.api import Api, tasks_of_ours
from tests.support.clock import SOON_SECONDS


async def test_all_problems_are_raised_at_once_and_nothing_is_sent(sandbox: Sandbox, make_client: MakeClient) -> None:
    """General problems and the provider's own come in one error, in the user's field names."""
    client = await make_client(sandbox)

    with pytest.raises(ax.RequestError) as caught:
        await client.extend(
            audio_id="x",
            model="V4",
            prompt="p" * 3001,
            style_weight=1.5,
            continue_at=-1,
            num_outputs=2,
            vocal_gender="neutral",
        )

    fields = {problem.field for problem in caught.value.problems}
    assert {"prompt", "style", "title", "style_weight", "continue_at", "num_outputs", "vocal_gender"} <= fields
    assert () == tuple(sandbox.submissions)


async def test_a_missing_file_is_refused_before_anything_is_sent(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A local file that does not exist is a problem of the request."""
    client = await make_client(sandbox)

    with pytest.raises(ax.RequestError, match="there is no file"):
        await client.extend(file="not-there.wav", model="V5", continue_at=1)

    assert () == tuple(sandbox.submissions)


async def test_a_local_files_duration_bounds_continue_at(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """A continue_at beyond the local file's duration is refused."""
    client = await make_client(sandbox)

    with pytest.raises(ax.RequestError, match="below the source's duration"):
        await client.extend(file=voice_file, model="V5", continue_at=60)


async def test_a_chain_knows_its_provider_and_model(sandbox: Sandbox, make_client: MakeClient) -> None:
    """`track.extend` uses its song's provider and model."""
    client = await make_client(sandbox)
    song = await client.run(ax.Extend(audio_id=sandbox.track_ids[0], model="V5"))

    longer = await client.run(
        song.tracks[0].extend(continue_at=2, prompt="more", style="Piano", title="Coda"), timeout=20
    )

    assert 2 == len(longer.tracks)
    assert {("kie", "V5")} == {(track.provider, track.model) for track in longer.tracks}


async def test_a_missing_key_is_refused_before_anything_is_sent(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an API key the error names the environment variable."""
    monkeypatch.delenv("KIE_API_KEY", raising=False)
    async with ax.Client(ax.Kie(base_url=sandbox.bases["kie"])) as client:
        with pytest.raises(ax.ConfigError, match="KIE_API_KEY"):
            await client.extend(audio_id="a", model="V5")


async def test_the_key_comes_from_the_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API key is read from the environment if none is given."""
    monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
    async with ax.Client(ax.Kie(base_url=sandbox.bases["kie"])) as client:
        assert await client.credits() > 0


async def test_a_rehosted_url_goes_through_the_providers_upload(sandbox: Sandbox, make_client: MakeClient) -> None:
    """`rehost=True` passes a foreign URL to the provider's url-upload, and the task gets the uploaded copy."""
    client = await make_client(sandbox)

    song = await client.run(ax.Extend(url=sandbox.voice_url, model="V5", continue_at=2, rehost=True))

    assert 2 == len(song.tracks)
    (submission,) = sandbox.submissions
    assert sandbox.voice_url not in str(submission)


async def test_upload_progress_is_reported_in_bytes(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """The progress callback ends at the file's size."""
    client = await make_client(sandbox)
    told: list[tuple[int, int | None]] = []

    await client.extend(
        file=voice_file, model="V5", continue_at=1, progress=lambda so_far, in_all: told.append((so_far, in_all))
    )

    size = voice_file.stat().st_size
    assert (size, size) == told[-1]


async def test_a_submit_needs_an_open_client(sandbox: Sandbox) -> None:
    """A submit before or after `async with` raises an error that says what to do."""
    client = ax.Client(ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"]))
    with pytest.raises(ax.ConfigError, match=r"use it inside `async with Client\(\.\.\.\) as client:`, or open\(\) it"):
        await client.extend(audio_id="a", model="V5")
    async with client:
        pass
    with pytest.raises(ax.ConfigError, match="async with"):
        await client.extend(audio_id="a", model="V5")


async def test_a_submit_that_looks_at_its_file_is_not_sent_after_closing(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """A submit that reads a slow disk while the client closes is refused, and nothing is sent."""
    disk, loop = threading.Event(), asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    client = await make_client(sandbox, "musicgpt", poll=True)
    busy = loop.run_in_executor(None, disk.wait, SOON_SECONDS)  # each thread call waits behind this one
    submit = asyncio.create_task(client.extend(file=voice_file, continue_at=1))
    await asyncio.sleep(0)  # it has begun

    await client.aclose()
    disk.set()
    with pytest.raises(ax.ConfigError):
        await submit

    assert await busy
    assert () == tuple(sandbox.submissions)
    assert [] == tasks_of_ours()


async def test_credits_are_the_providers_own(sandbox: Sandbox, make_client: MakeClient, api: Api) -> None:
    """`credits` returns the balance if the API has one, else raises an error that says why."""
    client = await make_client(sandbox, poll=True)
    assert await client.credits() > 0
    async with ax.Client(ax.MusicGpt("key", base_url=api.base)) as other, ax.Client(api.provider()) as lost:
        with pytest.raises(ax.UnsupportedError, match="balance"):
            await other.credits()
        with pytest.raises(ax.AudioextError):
            await lost.credits()
