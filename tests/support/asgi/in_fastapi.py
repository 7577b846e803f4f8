"""A FastAPI application with a mounted receiver."""

from __future__ import annotations

from fastapi import FastAPI

from tests.support.asgi.shared import client, lifespan

app = FastAPI(lifespan=lifespan)
app.mount("/audio", client.receiver.asgi)
