"""A Starlette application with a mounted receiver."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount

from tests.support.asgi.shared import client, lifespan

app = Starlette(routes=[Mount("/audio", client.receiver.asgi)], lifespan=lifespan)
