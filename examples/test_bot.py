"""How to test what you build on audioext: the fixtures come with it, and need pytest-asyncio and audioext[sandbox].

python -m pytest --asyncio-mode=auto examples/test_bot.py
"""

from __future__ import annotations

import pytest

from audioext.sandbox import Sandbox
from audioext.testing.clients import ClientFactory
from audioext.testing.clock import JumpClock
from examples.bot import make_bot


class Chat:
    """What the bot posts to."""

    def __init__(self) -> None:
        """Begin without posts."""
        self.posts: list[str] = []

    async def post(self, chat: int, text: str) -> None:
        """Keep a post."""
        self.posts.append(f"{chat}: {text}")

    @property
    def last(self) -> str:
        """The latest post."""
        return self.posts[-1]


async def test_each_stage_is_posted(audioext_sandbox: Sandbox, audioext_client: ClientFactory) -> None:
    """The chat hears of the first track while the second one is still made."""
    client, chat = await audioext_client("kie"), Chat()
    on_message = make_bot(client, chat.post)

    audioext_sandbox.hold("complete")
    await on_message(42, 7, audioext_sandbox.tune_url)
    await client.settled()
    assert chat.last.startswith("42: a first listen")

    audioext_sandbox.release()
    await client.settled()
    assert chat.last.startswith("42: here you are")

    (sent,) = audioext_sandbox.submits
    assert (sent["uploadUrl"], sent["continueAt"]) == (audioext_sandbox.tune_url, 2)


@pytest.mark.audioext_faults("error=complete:501")
async def test_a_failure_is_told(audioext_sandbox: Sandbox, audioext_client: ClientFactory) -> None:
    """The chat hears why there is no song, and what it cost."""
    client, chat = await audioext_client("kie"), Chat()
    await make_bot(client, chat.post)(42, 7, audioext_sandbox.tune_url)
    await client.settled()
    assert chat.last.startswith("42: that did not work")


@pytest.mark.audioext_faults("drop")
async def test_lost_webhooks_cost_no_song(
    audioext_sandbox: Sandbox, audioext_client: ClientFactory, audioext_clock: JumpClock
) -> None:
    """Minutes without a webhook pass in no time: then the status is asked for."""
    client, chat = await audioext_client("kie"), Chat()
    job = await make_bot(client, chat.post)(42, 7, audioext_sandbox.tune_url)
    song = await audioext_clock.run(job)
    await client.settled()
    assert len(song.tracks) == 2
    assert chat.last.startswith("42: here you are")
