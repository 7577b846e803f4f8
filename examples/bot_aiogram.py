"""A Telegram bot on aiogram that extends voice messages; one aiohttp app serves Telegram's webhooks and ours.

KIE_API_KEY=... BOT_TOKEN=... BOT_SECRET=... PUBLIC_URL=https://bot.example.org python examples/bot_aiogram.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

from aiogram import Bot, Dispatcher, F, Router
from aiogram.types import BufferedInputFile, Message
from aiogram.webhook.aiohttp_server import SimpleRequestHandler, setup_application
from aiohttp import web

import audioext as ax
from audioext.bots import Asker, ProgressMessages

router = Router()


@router.message(F.voice)
async def on_voice(message: Message, bot: Bot, progress: ProgressMessages) -> None:
    """Extend a voice message; a message that Telegram delivers twice is paid for once."""
    if message.voice is None:
        return
    voice = await bot.download(message.voice)
    await progress.extend(
        chat=message.chat.id,
        message=message.message_id,
        file=voice.read() if voice is not None else b"",
        model="V5",
        continue_at=max(message.voice.duration - 1, 1),
    )


def make_app(client: ax.Client, bot: Bot, *, secret: str) -> web.Application:
    """Return an app with Telegram's webhooks at /telegram and the music's at /audio, the path of `public_url`."""

    async def send(chat: int | str, text: str) -> int:
        return (await bot.send_message(chat, text)).message_id

    async def edit(chat: int | str, message: int | str, text: str) -> None:
        await bot.edit_message_text(text, chat_id=chat, message_id=int(message))

    progress = ProgressMessages(client, send=send, edit=edit, name="telegram")

    @client.on(ax.Stage.COMPLETE, meta=Asker)
    async def deliver(event: ax.StageEvent, asker: Asker) -> None:
        for track in event.tracks:
            file = BufferedInputFile(await track.read(), f"{track.title or 'song'}.mp3")
            await bot.send_audio(asker.chat, file, reply_to_message_id=int(asker.message))

    async def run_client(_: web.Application) -> AsyncIterator[None]:
        async with client:
            await progress.resume()
            yield

    dispatcher = Dispatcher(progress=progress)  # its handlers get `progress` by name
    dispatcher.include_router(router)
    app = web.Application()
    app.cleanup_ctx.append(run_client)
    client.receiver.add_to(app, "/audio")
    # Not in the background: Telegram gets its 200 only after the job is stored, so a repeated update costs nothing.
    hook = SimpleRequestHandler(dispatcher, bot, handle_in_background=False, secret_token=secret)
    hook.register(app, "/telegram")
    setup_application(app, dispatcher, bot=bot)
    return app


if __name__ == "__main__":
    if "PUBLIC_URL" not in os.environ:
        sys.exit("usage: KIE_API_KEY=... BOT_TOKEN=... BOT_SECRET=... PUBLIC_URL=... python examples/bot_aiogram.py")
    url, secret = os.environ["PUBLIC_URL"], os.environ["BOT_SECRET"]

    @router.startup()
    async def set_webhook(bot: Bot) -> None:
        """Tell Telegram our webhook URL."""
        await bot.set_webhook(f"{url}/telegram", secret_token=secret)

    client = ax.Client.from_env(public_url=f"{url}/audio", listen=None, store="sqlite:///bot.db")
    app = make_app(client, Bot(os.environ["BOT_TOKEN"]), secret=secret)
    web.run_app(app, port=8080, access_log_class=ax.MaskedAccessLogger)  # a plain access log would print the tags
