"""A bot without a framework: it extends the audio of a message, shows the progress, and sends the tracks.

    KIE_API_KEY=... python examples/bot_plain.py voice.mp3

To try it for free, run `audioext sandbox --port 8000` in another terminal, and put
`KIE_API_KEY=sandbox-key KIE_BASE_URL=http://127.0.0.1:8000/kie` before the command.

Here the chat is the terminal. Give `make_bot` your own functions to send and to edit a text, and a client with a store
that outlives the process: a message that is delivered twice is paid for once, and a restart resumes open jobs.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import audioext as ax
from audioext.bots import Asker, ProgressMessages

Id = int | str
OnMessage = Callable[[Id, Id, bytes], Awaitable[ax.Job | None]]


def make_bot(
    client: ax.Client,
    *,
    send: Callable[[Id, str], Awaitable[Id]],
    edit: Callable[[Id, Id, str], Awaitable[object]],
    send_audio: Callable[[Id, bytes, str], Awaitable[object]],
) -> OnMessage:
    """Register the handlers on *client* and return the function to call for each message with audio."""
    progress = ProgressMessages(client, send=send, edit=edit, name="plain")

    @client.on(ax.Stage.COMPLETE, meta=Asker)
    async def deliver(event: ax.StageEvent, asker: Asker) -> None:
        for track in event.tracks:  # an error here sends all tracks again: a handler is called at least once
            await send_audio(asker.chat, await track.read(), track.title or "untitled")

    async def on_message(chat: Id, message: Id, audio: bytes) -> ax.Job | None:
        return await progress.extend(chat=chat, message=message, file=audio, model="V5", continue_at=2)

    return on_message


async def main(source: Path, *, client: ax.Client) -> None:
    """Play a chat in the terminal."""
    numbers = itertools.count(1)

    async def send(_: Id, text: str) -> Id:
        print(text)
        return next(numbers)

    async def edit(_: Id, __: Id, text: str) -> None:
        print(text)

    async def send_audio(_: Id, data: bytes, title: str) -> None:
        print(f"{title}: {len(data)} bytes")

    on_message = make_bot(client, send=send, edit=edit, send_audio=send_audio)
    async with client:
        job = await on_message("terminal", source.name, await asyncio.to_thread(source.read_bytes))
        if job is not None:
            if not job.is_new and job.verdict is ax.Verdict.COMPLETE:
                print(f"done already: {source.name} was sent before, and bot.db remembers it")
            await job


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: KIE_API_KEY=... python examples/bot_plain.py VOICE")
    try:
        asyncio.run(main(Path(sys.argv[1]), client=ax.Client.from_env(store="sqlite:///bot.db")))
    except (ax.AudioextError, OSError) as error:
        sys.exit(str(error))
