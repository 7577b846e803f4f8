"""A Discord bot on discord.py: a Cog whose command `!extend` extends the audio attached to the message.

KIE_API_KEY=... DISCORD_TOKEN=... python examples/bot_discord.py
"""

from __future__ import annotations

import asyncio
import io
import os
import sys

import discord
from discord.ext import commands

import audioext as ax
from audioext.bots import Asker, ProgressMessages


class Music(commands.Cog):
    """Opens its client when the cog is loaded, and closes it when the cog is unloaded."""

    def __init__(self, bot: commands.Bot, client: ax.Client) -> None:
        """Register the handlers."""
        self.bot = bot
        self.client = client
        self.progress = ProgressMessages(client, send=self.send, edit=self.edit, name="discord")
        client.on(ax.Stage.COMPLETE, meta=Asker)(self.deliver)

    async def cog_load(self) -> None:
        """Open the client, and resume the progress messages of an earlier process."""
        await self.client.open()
        await self.progress.resume()

    async def cog_unload(self) -> None:
        """Close the client."""
        await self.client.aclose()

    @commands.command()
    async def extend(self, context: commands.Context[commands.Bot], voice: discord.Attachment) -> None:
        """Extend the attached audio; the same message is paid for once."""
        await self.progress.extend(
            chat=context.channel.id,
            message=context.message.id,
            file=await voice.read(),
            model="V5",
            continue_at=2,
        )

    async def send(self, chat: int | str, text: str) -> int:
        """Send a text that mentions (pings) nobody, and return its id."""
        nobody = discord.AllowedMentions.none()
        return (await self.channel(chat).send(text, allowed_mentions=nobody)).id

    async def edit(self, chat: int | str, message: int | str, text: str) -> None:
        """Edit a message of this bot."""
        await self.channel(chat).get_partial_message(int(message)).edit(content=text)

    async def deliver(self, event: ax.StageEvent, asker: Asker) -> None:
        """Send the tracks as files."""
        files = [
            discord.File(io.BytesIO(await track.read()), f"{track.title or 'song'} {number}.mp3")
            for number, track in enumerate(event.tracks, 1)
        ]
        await self.channel(asker.chat).send(files=files)

    def channel(self, chat: int | str) -> discord.PartialMessageable:
        """Return a channel by its id, which is all that a job's meta holds after a restart."""
        return self.bot.get_partial_messageable(int(chat))


def make_bot() -> commands.Bot:
    """Return a bot that reads commands."""
    intents = discord.Intents.default()
    intents.message_content = True
    return commands.Bot("!", intents=intents)


async def main(token: str) -> None:
    """Run the bot; without AUDIOEXT_PUBLIC_URL the client polls the status."""
    async with make_bot() as bot:
        await bot.add_cog(Music(bot, ax.Client.from_env(store="sqlite:///bot.db")))
        await bot.start(token)


if __name__ == "__main__":
    if "DISCORD_TOKEN" not in os.environ:
        sys.exit("usage: KIE_API_KEY=... DISCORD_TOKEN=... python examples/bot_discord.py")
    discord.utils.setup_logging()
    asyncio.run(main(os.environ["DISCORD_TOKEN"]))
