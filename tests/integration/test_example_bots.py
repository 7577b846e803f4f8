"""The example bots run under their own frameworks, against stand-ins of both chat APIs and the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

import audioext as ax
from audioext.sandbox import Sandbox, audio
from tests.integration.test_examples import example, serve
from tests.support.chats import (
    ChatApi,
    aiogram_builds_when_used,
    serve_discord,
    serve_telegram,
    telegram_flood,
    telegram_voice,
)
from tests.support.clock import soon

SECRET = "a-secret-of-ours"
TOKEN = "42:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture(scope="module")
def voice() -> bytes:
    """Return a short voice message."""
    return audio.encode(audio.voice(seed=1, seconds=4.0, rate=16_000), "wav")


def kie(sandbox: Sandbox) -> ax.Kie:
    """Return a provider at the sandbox."""
    return ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"])


async def are_sent(api: ChatApi, files: int) -> None:
    """Wait until the chat got that many files and the last word."""

    async def is_there() -> bool:
        await asyncio.sleep(0.01)  # polls, as the messages come through sockets
        return len(api.files) >= files and any(texts[-1].startswith("Here it is:") for texts in api.texts.values())

    await soon(is_there)


async def update(url: str, body: object, secret: str = SECRET) -> int:
    """Deliver an update like Telegram, and return the bot's response."""
    headers = {"X-Telegram-Bot-Api-Secret-Token": secret}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/telegram", json=body, headers=headers) as answer,
    ):
        return answer.status


@pytest.fixture
def aiogram_is_light() -> Iterator[None]:
    """Import aiogram without what the bot does not use."""
    with aiogram_builds_when_used():
        yield


async def test_the_aiogram_bot_continues_voice_messages(
    aiogram_is_light: None, voice: bytes, unused_tcp_port: int
) -> None:
    """One app takes both webhooks, and an update that is repeated, also after a restart, is paid once."""
    # aiogram takes seconds to import, which not every worker should pay.
    from aiogram import Bot  # noqa: PLC0415 - see above
    from aiogram.client.session.aiohttp import AiohttpSession  # noqa: PLC0415 - see above
    from aiogram.client.telegram import TelegramAPIServer  # noqa: PLC0415 - see above

    store = ax.MemoryStore()
    async with Sandbox(speed=1e6, ready_seconds=4.0, extension_seconds=1.0) as sandbox, serve_telegram(voice) as api:
        for restart in range(2):
            session = AiohttpSession(api=TelegramAPIServer.from_base(api.base))
            client = ax.Client(
                kie(sandbox), public_url=f"http://127.0.0.1:{unused_tcp_port}/audio", listen=None, store=store
            )
            app = example("bot_aiogram").make_app(client, Bot(TOKEN, session=session), secret=SECRET)
            async with serve(app, unused_tcp_port) as url:
                assert 401 == await update(url, telegram_voice(7, seconds=4), secret="another")
                api.faults = [] if restart else [telegram_flood(1)]
                for _ in range(2):
                    assert 200 == await update(url, telegram_voice(7, seconds=4))
                await are_sent(api, 2)
                await sandbox.settled()
        assert 1 == len(sandbox.submissions)

    assert 1 == len(api.texts)
    assert all(data for _, data in api.files)


async def test_the_discord_bot_continues_attached_audio(voice: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Cog gets the command from the gateway, edits its message, and sends the tracks as files."""
    import discord  # noqa: PLC0415 - as above

    module = example("bot_discord")
    async with Sandbox(speed=1e6, ready_seconds=4.0, extension_seconds=1.0) as sandbox, serve_discord(voice) as gateway:
        api = gateway.api
        monkeypatch.setattr(discord.http.Route, "BASE", api.base)
        monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", URL(f"ws{api.base[4:]}/gateway"))
        client = ax.Client(kie(sandbox), public_url="http://127.0.0.1:{port}", listen="127.0.0.1:0")
        async with module.make_bot() as bot:
            await bot.add_cog(module.Music(bot, client))
            running = asyncio.create_task(bot.start("token"))
            async with asyncio.timeout(30):
                await gateway.is_ready.wait()
            for _ in range(2):
                await gateway.say(7, "!extend")
            await are_sent(api, 2)
            await sandbox.settled()
            await bot.wait_until_ready()
            await bot.close()
            await running
        assert 1 == len(sandbox.submissions)

    assert "<Client kie, closed>" == repr(client)
    assert all(data for _, data in api.files)


async def test_the_plain_bot_plays_a_chat_in_the_terminal(
    voice: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The framework-free bot shows its message's texts and the tracks' sizes, and a second run pays for nothing."""
    source = tmp_path / "voice.wav"
    source.write_bytes(voice)
    monkeypatch.chdir(tmp_path)
    module = example("bot_plain")
    async with Sandbox(speed=1e6, ready_seconds=4.0, extension_seconds=1.0) as sandbox:
        provider = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=ax.Pace(first=0.01, every=0.02))
        for _ in range(2):
            await module.main(source, client=ax.Client(provider, store="sqlite:///bot.db"))
        assert 1 == len(sandbox.submissions)
    lines = capsys.readouterr().out.splitlines()

    assert "Sending it off …" == lines[0]
    assert 2 == len([line for line in lines if line.endswith(" bytes")])
    assert lines[-1].startswith("done already: voice.wav")
