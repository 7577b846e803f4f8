"""The client of the applications in this folder, and its receiver as an application on its own.

Each framework has its own module, which a server imports by name, since all three load slowly.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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


alone = client.receiver.asgi
