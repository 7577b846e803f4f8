"""The README's views for Flask and Django accept webhooks, refuse strangers, and log no tag."""

from __future__ import annotations

import asyncio
import io
import logging
import re
from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIApplication

import aiohttp
import pytest
from yarl import URL

import audioext as ax
from audioext.sandbox import Sandbox
from tests.integration.test_examples import example, served_by_wsgi

Take = Callable[..., int]
LOGGERS = ("django.request", "django.server", "werkzeug")


def in_flask(take: Take) -> WSGIApplication:
    """Return a Flask application."""
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = ax.MAX_BODY_BYTES

    @app.post("/audio/<path:rest>")  # type: ignore[untyped-decorator]  # Flask need not be installed
    def webhook(rest: str) -> tuple[str, int]:
        return "", take(flask.request.path, flask.request.headers, flask.request.get_data)

    return app  # type: ignore[no-any-return]  # as above


def in_django(take: Take) -> WSGIApplication:
    """Return a Django application; a process can have only one."""
    django = pytest.importorskip("django")
    conf, http = pytest.importorskip("django.conf"), pytest.importorskip("django.http")
    urls, wsgi = pytest.importorskip("django.urls"), pytest.importorskip("django.core.wsgi")

    def webhook(request: Any, rest: str) -> object:
        return http.HttpResponse(status=take(request.path, request.headers, lambda: request.body))

    conf.settings.configure(
        ALLOWED_HOSTS=["*"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=ax.MAX_BODY_BYTES,
        LOGGING_CONFIG=None,
        ROOT_URLCONF=(urls.path("audio/<path:rest>", webhook),),
    )
    django.setup()
    return wsgi.get_wsgi_application()  # type: ignore[no-any-return]  # as in Flask


@pytest.mark.parametrize(("home", "make_app"), [("flask", in_flask), ("django", in_django)])
async def test_webhooks_come_in_and_no_tag_is_logged(
    unused_tcp_port: int, home: str, make_app: Callable[[Take], WSGIApplication], caplog: pytest.LogCaptureFixture
) -> None:
    """Webhooks complete a song, and a refused one is logged without its tag."""
    pytest.importorskip(home)
    masking = ax.MaskingFilter()
    async with Sandbox(speed=1e6) as sandbox:
        url = f"http://127.0.0.1:{unused_tcp_port}"
        kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=ax.Pace(first=300.0, quiet=300.0))
        music = example("wsgi_app").Music(ax.Client(kie, public_url=f"{url}/audio", listen=None))
        app = make_app(music.take)
        await asyncio.to_thread(music.start)
        for name in LOGGERS:
            logging.getLogger(name).addFilter(masking)
        async with served_by_wsgi(app, unused_tcp_port), aiohttp.ClientSession() as session:

            async def post(path: str, body: bytes) -> int:
                async with session.post(url + path, data=io.BytesIO(body)) as response:
                    return response.status

            links = await asyncio.to_thread(lambda: music.call(music.order(sandbox.tune_url, 2)))
            await sandbox.settled()
            path = URL(sandbox.deliveries[0].url).path
            stranger = await post(f"{path[:-3]}AAA", b"{}")
            malformed = await post(path, b"{")
        await asyncio.to_thread(music.stop)
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(masking)

    assert (2, 401, 400) == (len(links), stranger, malformed)
    assert {200} == {delivery.status for delivery in sandbox.deliveries}
    assert [] == re.findall(r"/[\w-]{43}(?![\w-])", caplog.text)
