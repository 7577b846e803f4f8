"""A WSGI application, such as one of Flask or Django: the client runs in a thread, a view passes it the webhooks.

KIE_API_KEY=... AUDIOEXT_PUBLIC_URL=https://a.example/audio gunicorn --chdir examples --threads 8 'wsgi_app:make_app()'
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from attrs import field, frozen

import audioext as ax

T = TypeVar("T")
PHRASES = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 413: "Content Too Large"}


@frozen(eq=False)
class Music:
    """A client in a thread of its own, for code that cannot await. Create it after the server has forked."""

    client: ax.Client
    loop: asyncio.AbstractEventLoop = field(factory=asyncio.new_event_loop)

    def start(self) -> None:
        """Start the thread and open the client; it is closed when the process ends."""
        threading.Thread(target=self.run, name="music", daemon=True).start()
        self.call(self.client.open())
        atexit.register(self.stop)

    def run(self) -> None:
        """Run the client's loop until `stop`."""
        self.loop.run_forever()
        self.loop.close()

    def stop(self) -> None:
        """Close the client and end its thread."""
        atexit.unregister(self.stop)
        self.call(self.client.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* in the client's thread and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def take(self, path: str, headers: Mapping[str, str], read: Callable[[], bytes]) -> int:
        """Accept a webhook whose body *read* returns, and return the HTTP status for its reply."""
        try:
            self.client.inbox.admit(path)  # check the tag before reading the body of a stranger
        except ax.WebhookError as error:
            return error.http_status
        return self.call(self.client.inbox.accept(ax.Webhook(path=path, headers=headers, body=read())))

    async def order(self, url: str | None, continue_at: float | None) -> list[str | None]:
        """Submit a task and return its links when it is complete; a required field that is `None` is refused."""
        song = await (await self.client.extend(url=url, model="V5", continue_at=continue_at))
        return [track.audio_url for track in song.tracks]


def make_app(music: Music | None = None) -> WSGIApplication:
    """Return an application with the webhooks below /audio, and the route /songs."""
    if music is None:
        music = Music(ax.Client.from_env(listen=None))
        music.start()
    chosen = music
    logging.getLogger("gunicorn.access").addFilter(ax.MaskingFilter())  # the tags are secrets

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, links = 404, []
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "POST" and path.startswith("/audio/"):
            status = chosen.take(path, _headers(environ), lambda: _body(environ))
        elif environ["REQUEST_METHOD"] == "POST" and path == "/songs":
            asked = json.loads(_body(environ))
            try:
                status, links = 200, chosen.call(chosen.order(asked.get("url"), asked.get("continue_at")))
            except ax.RequestError as error:
                status, links = 400, [str(problem) for problem in error.problems]
        start_response(f"{status} {PHRASES.get(status, 'Error')}", [("Content-Type", "application/json")])
        return [json.dumps(links).encode()]

    return app


def _headers(environ: WSGIEnvironment) -> Mapping[str, str]:
    """Return the headers of a request; in Flask and Django that is `request.headers`."""
    found = {name[5:].replace("_", "-"): str(value) for name, value in environ.items() if name.startswith("HTTP_")}
    return {**found, "Content-Type": environ.get("CONTENT_TYPE", "")}


def _body(environ: WSGIEnvironment) -> bytes:
    """Read at most one byte more than the limit, so that a longer body is answered 413."""
    length = min(int(environ.get("CONTENT_LENGTH") or 0), ax.MAX_BODY_BYTES + 1)
    body: bytes = environ["wsgi.input"].read(length)
    return body
