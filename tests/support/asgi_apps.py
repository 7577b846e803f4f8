"""One application for each ASGI framework, with a receiver mounted into it; a server imports them by name."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send
from starlette.applications import Starlette
from starlette.routing import Mount

import audioext as ax

for name in ("uvicorn", "hypercorn", "granian"):
    logging.getLogger(f"{name}.access").addFilter(ax.MaskingFilter())

client = ax.Client(
    ax.Kie("0123456789abcdef0123", base_url=os.environ["KIE_BASE_URL"]),
    public_url=os.environ["PUBLIC_URL"],
    listen=None,
    store=os.environ["STORE"],
)


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[None]:
    """Open the client with the server."""
    async with client:
        yield


in_fastapi = FastAPI(lifespan=lifespan)
in_fastapi.mount("/audio", client.receiver.asgi)

in_starlette = Starlette(routes=[Mount("/audio", client.receiver.asgi)], lifespan=lifespan)


@asgi("/audio", is_mount=True, copy_scope=True)
async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    """Hand everything under a path over."""
    await client.receiver.asgi(scope, receive, send)  # type: ignore[arg-type]  # Litestar's own names for the same


in_litestar = Litestar(route_handlers=[mounted], lifespan=[lifespan])

alone = client.receiver.asgi
