"""An aiohttp application that receives the webhooks on its own port, and answers when the song is complete.

KIE_API_KEY=... AUDIOEXT_PUBLIC_URL=https://hooks.example.org/audio python examples/mounted.py
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

import audioext as ax

CLIENT = web.AppKey("client", ax.Client)


def make_app(client: ax.Client) -> web.Application:
    """Return an application with the receiver mounted at /audio, and the route /songs."""
    app = web.Application()
    app[CLIENT] = client
    app.cleanup_ctx.append(run_client)
    app.router.add_post("/songs", order_song)
    client.receiver.add_to(app, "/audio")  # the path of public_url
    return app


async def run_client(app: web.Application) -> AsyncIterator[None]:
    """Keep the client open while the application runs."""
    async with app[CLIENT]:
        yield


async def order_song(request: web.Request) -> web.Response:
    """Submit a task and answer with its links when it is complete."""
    try:
        wanted = await request.json()
        url, continue_at = wanted["url"], wanted["continue_at"]
    except (ValueError, LookupError, TypeError) as error:
        raise web.HTTPBadRequest(text="send JSON with url and continue_at") from error
    try:
        job = await request.app[CLIENT].extend(url=url, model="V5", continue_at=continue_at)
        song = await job
    except ax.RequestError as error:
        return web.json_response({"problems": [str(problem) for problem in error.problems]}, status=400)
    except ax.AudioextError as error:
        return web.json_response({"error": str(error)}, status=502)
    return web.json_response({"ref": job.ref, "links": [track.audio_url for track in song.tracks]})


if __name__ == "__main__":
    app = make_app(ax.Client.from_env(listen=None))  # without AUDIOEXT_PUBLIC_URL it polls
    web.run_app(app, port=8080, access_log_class=ax.MaskedAccessLogger)  # a plain access log would print the tags
