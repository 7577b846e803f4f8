"""How to test code built on audioext, with its own fixtures; they need pytest-asyncio and audioext[sandbox].

python -m pytest -p audioext --asyncio-mode=auto examples/test_bot.py
"""

from __future__ import annotations

import io
import wave

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from audioext.testing.clients import ClientFactory
from audioext.testing.clock import JumpClock
from examples.bot_plain import OnMessage, make_bot

Id = int | str


@pytest.fixture
def voice() -> bytes:
    """Return a voice message of four seconds of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8_000, 0, "NONE", ""))
        sound.writeframes(bytes(4 * 2 * 8_000))
    return file.getvalue()


class Chat:
    """A fake chat that records what the bot sends."""

    def __init__(self) -> None:
        """Start without messages."""
        self.texts: list[str] = []
        self.audio: list[bytes] = []

    async def send(self, chat: Id, text: str) -> Id:
        """Record a new message and return its id."""
        self.texts.append(f"{chat}: {text}")
        return len(self.texts) - 1

    async def edit(self, _: Id, message: Id, text: str) -> None:
        """Change a message."""
        self.texts[int(message)] = f"42: {text}"

    async def send_audio(self, _: Id, data: bytes, __: str) -> None:
        """Record an audio file."""
        self.audio.append(data)

    def bot(self, client: ax.Client) -> OnMessage:
        """Return a bot that sends to this chat."""
        return make_bot(client, send=self.send, edit=self.edit, send_audio=self.send_audio)


async def test_each_stage_is_shown(
    audioext_sandbox: Sandbox, audioext_client: ClientFactory, audioext_clock: JumpClock, voice: bytes
) -> None:
    """The chat shows the first track while the second one is still being made, and gets both in the end."""
    client, chat = await audioext_client("kie"), Chat()
    on_message = chat.bot(client)

    audioext_sandbox.hold("complete")
    await on_message(42, 7, voice)
    await client.settled()
    await audioext_clock.advance(5)  # a message is edited at most every 3 seconds
    assert chat.texts[0].startswith("42: A first listen")

    audioext_sandbox.release()
    await client.settled()
    assert (chat.texts[0].startswith("42: Here it is"), len(chat.audio)) == (True, 2)
    assert audioext_sandbox.submits[0]["continueAt"] == 2


async def test_a_message_that_comes_twice_is_paid_for_once(
    audioext_sandbox: Sandbox, audioext_client: ClientFactory, voice: bytes
) -> None:
    """Chats deliver some updates twice; the message's id makes the key of the submit."""
    client, chat = await audioext_client("kie"), Chat()
    on_message = chat.bot(client)
    for _ in range(2):
        await on_message(42, 7, voice)
    await client.settled()
    assert len(audioext_sandbox.submits) == 1


@pytest.mark.audioext_faults("error=complete:501")
async def test_a_failure_is_shown_in_the_chat(audioext_client: ClientFactory, voice: bytes) -> None:
    """The chat is told that there is no song."""
    client, chat = await audioext_client("kie"), Chat()
    await chat.bot(client)(42, 7, voice)
    await client.settled()
    assert chat.texts[0].startswith("42: That did not work")


@pytest.mark.audioext_faults("drop")
async def test_lost_webhooks_cost_no_song(
    audioext_client: ClientFactory, audioext_clock: JumpClock, voice: bytes
) -> None:
    """Minutes without a webhook pass at once; then the status is polled."""
    client, chat = await audioext_client("kie"), Chat()
    job = await chat.bot(client)(42, 7, voice)
    assert job is not None
    await audioext_clock.run(job)
    await client.settled()
    assert chat.texts[0].startswith("42: Here it is")
