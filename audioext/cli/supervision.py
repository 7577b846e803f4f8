"""Tells systemd that a server is ready, alive and stopping, where it runs under `Type=notify` and `WatchdogSec=`.

The protocol is a datagram a message: freedesktop.org/software/systemd/man/latest/sd_notify.html, read 2026-11-26.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_log = logging.getLogger("audioext.cli")


@asynccontextmanager
async def supervised(status: str) -> AsyncGenerator[None]:
    """Say READY and *status* now, WATCHDOG for as long as the event loop turns, and STOPPING at the end."""
    notify(f"READY=1\nSTATUS={status}")
    beat = asyncio.create_task(_beat())
    try:
        yield
    finally:
        notify("STOPPING=1")
        beat.cancel()


def notify(state: str) -> None:
    """Send *state* to the service manager, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:  # "@" stands for the zero byte of an abstract address
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # noqa: FBT003 - the socket's own
            sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError as error:
        _log.warning("the service manager at NOTIFY_SOCKET cannot be told %r: %s", state, error)


def watchdog_seconds() -> float | None:
    """Return within which time the service manager wants to hear of this process, `None` if it does not."""
    text = os.environ.get("WATCHDOG_USEC", "")
    is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 1_000_000 if is_for_us and text.isdecimal() and int(text) else None


async def _beat() -> None:
    while (seconds := watchdog_seconds()) is not None:
        await asyncio.sleep(seconds / 2)  # twice within the time after which it would be taken for dead
        notify("WATCHDOG=1")
