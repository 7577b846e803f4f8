"""Every provider, source, transport and order gives the same song, with each stage once and in order."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

import audioext as ax
from audioext.providers import NAMES
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import MakeClient, MakeSandbox

SOURCES = ("id", "url", "file", "instrumental")
WAYS = {
    "poll": [],
    "in order": [],
    "reversed": ["reorder"],
    "doubled": ["duplicate"],
    "before the response": ["callback_before_response"],
}
"""How a job learns of its stages: by polls only, or by webhooks with these faults."""
LACKING = {("musicgpt", "id"), ("musicgpt", "instrumental")}
NEEDS_A_URL = {("vidgo", "file", "poll")}  # vidgo fetches a file from our receiver, which needs a public URL


def build_request(provider: str, source: str, sandbox: Sandbox, file: Path) -> ax.Extend | ax.AddInstrumental:
    """Return the request of one cell of the matrix."""
    model = None if provider == "musicgpt" else "V5"
    if source == "instrumental":
        # vidgo takes files by URL only, so a poll-only client needs somebody else's URL.
        audio = {"url": sandbox.voice_url} if provider == "vidgo" else {"file": file}
        return ax.AddInstrumental(**audio, title="Rain", tags="piano, soft", negative_tags="metal")
    if source == "id":
        return ax.Extend(
            audio_id=sandbox.track_ids[0],
            model=model,
            continue_at=2.0,
            prompt="gentle",
            style="Classical",
            title="Part 2",
        )
    chosen = {"url": sandbox.voice_url} if source == "url" else {"file": file}
    return ax.Extend(**chosen, model=model, continue_at=2.0)


def comparable(song: ax.Song) -> list[dict[str, object]]:
    """Return the parts of a song that must not vary, without ports and times.

    kie.ai's callbacks of two operations lack the `source_*` links that its status call has (wire sheet 5.1). A text
    without letters counts as none.
    """
    return [
        {
            name: (re.sub(r":\d+/", "/", value) or None) if isinstance(value, str) else value
            for name, value in attrs.asdict(track).items()
            if name not in {"created_at", "expires_at"} and not name.startswith("source_")
        }
        for track in song.tracks
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("provider", NAMES)
async def test_the_song_is_the_same_by_webhook_and_by_poll(  # noqa: PLR0913 - the three axes and the tools
    provider: str, source: str, way: str, make_sandbox: MakeSandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """The song is the same by webhook and by poll, in any order, and each stage comes once and in order."""
    sandbox = await make_sandbox(faults=WAYS[way])
    client = await make_client(sandbox, provider, poll=way == "poll")
    told: list[str] = []
    for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):

        @client.on(stage)
        async def tell(event: ax.StageEvent) -> None:
            told.append(event.stage.name)

    request = build_request(provider, source, sandbox, voice_file)
    if (provider, source) in LACKING or (provider, source, way) in NEEDS_A_URL:
        with pytest.raises((ax.UnsupportedError, ax.RequestError)):
            await client.submit(request)
        assert () == tuple(sandbox.submissions)
        return

    job = await client.submit(request)
    stages = [event.stage.name async for event in job]
    await sandbox.settled()  # late webhooks after COMPLETE, such as MusicGPT's cover, still join
    song = await job
    plain = await plain_song(provider, source, make_sandbox, make_client, voice_file)

    assert ["TEXT", "FIRST", "COMPLETE"] == stages
    assert comparable(plain) == comparable(song)
    assert 2 == len(song.tracks)
    assert 1 == len(sandbox.submissions)
    await client.aclose()
    assert ["TEXT", "FIRST", "COMPLETE"] == told


_plain: dict[tuple[str, str], ax.Song] = {}


async def plain_song(
    provider: str, source: str, make_sandbox: MakeSandbox, make_client: MakeClient, file: Path
) -> ax.Song:
    """Return the song of the plain cell: by webhook, in order."""
    if (provider, source) not in _plain:
        sandbox = await make_sandbox()
        client = await make_client(sandbox, provider)
        job = await client.submit(build_request(provider, source, sandbox, file))
        await sandbox.settled()
        _plain[provider, source] = await job
    return _plain[provider, source]
