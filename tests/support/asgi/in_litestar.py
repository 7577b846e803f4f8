"""A Litestar application with a mounted receiver."""

from __future__ import annotations

from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send

from tests.support.asgi.shared import client, lifespan


@asgi("/audio", is_mount=True, copy_scope=True)
async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    """Hand everything under a path over."""
    await client.receiver.asgi(scope, receive, send)  # type: ignore[arg-type]  # Litestar's own names for the same


app = Litestar(route_handlers=[mounted], lifespan=[lifespan])
