"""A FastAPI application that receives the webhooks, and answers when the song is complete.

KIE_API_KEY=... AUDIOEXT_PUBLIC_URL=https://example.org/audio uvicorn --app-dir examples --factory fastapi_app:make_app
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import audioext as ax


class SongRequest(BaseModel):
    """What to extend, and from which second on."""

    url: str
    continue_at: float


def make_app(client: ax.Client | None = None) -> FastAPI:
    """Return an application with the receiver mounted at /audio, and the route /songs."""
    chosen = client or ax.Client.from_env(listen=None)
    logging.getLogger("uvicorn.access").addFilter(ax.MaskingFilter())  # the tags are secrets

    @asynccontextmanager
    async def run_client(_: FastAPI) -> AsyncGenerator[None]:
        async with chosen:
            yield

    app = FastAPI(lifespan=run_client)
    app.mount("/audio", chosen.receiver.asgi)  # the path of public_url

    @app.post("/songs")
    async def order_song(wanted: SongRequest) -> dict[str, object]:
        """Submit a task and answer with its links when it is complete."""
        try:
            job = await chosen.extend(url=wanted.url, model="V5", continue_at=wanted.continue_at)
            song = await job
        except ax.RequestError as error:
            raise HTTPException(400, [str(problem) for problem in error.problems]) from error
        except ax.AudioextError as error:
            raise HTTPException(502, str(error)) from error
        return {"ref": job.ref, "links": [track.audio_url for track in song.tracks]}

    return app
