"""Why no webhook comes: a look at our own public URL, from here."""

from __future__ import annotations

import asyncio
import ipaddress

import aiohttp
from yarl import URL

LISTENED_SECONDS = 10.0
"""How long a wait listens before it looks: a task takes longer than that, but a wrong address need not."""
LOOK_SECONDS = 5.0
HTTP_OK = 200


async def reason_for_silence(public_url: URL, *, is_local: bool, after: float = LISTENED_SECONDS) -> str | None:
    """Wait *after* seconds, then return why providers cannot reach *public_url*, `None` if nothing speaks for that.

    *is_local* says that the provider itself runs on this machine, as a sandbox does.
    """
    await asyncio.sleep(after)
    health = public_url / "healthz"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LOOK_SECONDS)) as session,
            session.get(health, allow_redirects=False) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"nobody answers at {health} ({type(error).__name__}): is the tunnel or the proxy up?"
    if status != HTTP_OK:
        return f"{health} answers {status}: does the path of --public-url lead to the receiver?"
    if not is_local and _is_private(public_url.host or ""):
        return f"{public_url.host} can be reached from this network alone: --public-url must be a public address"
    return None


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
