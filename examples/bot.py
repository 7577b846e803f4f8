"""A bot: each message asks for a song, each stage is posted to its chat, and a restart loses nothing.

The handlers are called at least once for each (job, stage), also for jobs that an earlier process submitted.
Give the client a store that outlives the process, and a `key` for each message, so that a message which is
delivered twice is paid for once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import audioext as ax

Post = Callable[[int, str], Awaitable[None]]
"""Sends a text to a chat: your bot framework's own function."""


def make_bot(client: ax.Client, post: Post) -> Callable[[int, int, str], Awaitable[ax.Job]]:
    """Register the handlers on *client* and return the function that takes a message."""

    @client.on(ax.Stage.FIRST)
    async def preview(event: ax.StageEvent) -> None:
        await post(chat_of(event), f"a first listen: {event.tracks[0].audio_url}")

    @client.on(ax.Stage.COMPLETE)
    async def finished(event: ax.StageEvent) -> None:
        links = "\n".join(track.audio_url or "" for track in event.tracks)
        await post(chat_of(event), f"here you are:\n{links}")

    @client.on_failure
    async def sorry(failure: ax.Failure) -> None:
        money = {False: "It cost nothing.", True: "It was charged.", None: "Please check your credits."}
        await post(chat_of(failure), f"that did not work ({failure.reason}). {money[failure.charged]}")

    async def on_message(chat: int, message: int, audio_url: str) -> ax.Job:
        job = await client.extend(
            url=audio_url, model="V5", continue_at=2, meta={"chat": chat}, key=f"{chat}:{message}"
        )
        await post(chat, f"working on it: {job.ref}")
        return job

    return on_message


def chat_of(news: ax.StageEvent | ax.Failure) -> int:
    """Return the chat that asked, from what was noted down with the submit."""
    chat = news.meta["chat"]
    if not isinstance(chat, int):
        message = f"job {news.ref} was not submitted by this bot"
        raise TypeError(message)
    return chat
