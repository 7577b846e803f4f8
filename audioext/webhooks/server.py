"""The low-level server of aiohttp with bounds, since it stands on the open internet: a stranger costs one reply."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypedDict

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.web_log import AccessLogger

from audioext.http.messages import excerpt

try:
    import resource
except ImportError:  # Windows, where sockets are no descriptors
    resource = None  # type: ignore[assignment]  # a module or none

_log = logging.getLogger("audioext.server")

HEAD_SECONDS = 15.0
"""How long a connection may be open without a whole head, at first and between two requests."""
MAX_CONNECTIONS = 512
"""Open at a time, and at most half of the descriptors that are left: the store and our own calls need some as well."""
MAX_BACKLOG = 64
"""Connections that may wait to be accepted, which all are at once, and some times over before the oldest are closed."""
LINGERING_SECONDS = 0.5
"""How long the rest of a body is read that was refused, so that the sender can read why; how long an answer may take
to be read on a connection that is closed."""
TAIL_SECONDS = 30.0
"""How long the end of an answer may take to be read, where there are connections enough."""
LONGEST_COMPLAINT = 200


class ServerBounds(TypedDict):
    """What aiohttp is told to bound."""

    auto_decompress: bool
    lingering_time: float
    max_headers: int
    max_field_size: int


BOUNDS: Final[ServerBounds] = {
    "auto_decompress": False,
    "lingering_time": LINGERING_SECONDS,
    "max_headers": 64,
    "max_field_size": 8190,
}
"""Of each server of ours: a compressed body stays as it is, since it may unpack to a thousand times more, and one that
nobody wants is not read for long. Each connection may hold a head that is not whole, and so all of them a lot: vendors
and a chain of proxies send 20 to 40 lines, of up to 2,000 bytes."""


class StrangersLog(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp has to say of malformed requests: one masked line each at INFO, and never a traceback."""

    def __init__(self, answered: Counter[int]) -> None:
        """Count them among the answers."""
        super().__init__(_log, {})
        self._answered = answered

    def exception(self, msg: object, *args: object, exc_info: object = None, **_: object) -> None:
        """Note one."""
        self._answered[400] += 1
        said = f"{type(exc_info).__name__}: {exc_info}"
        text = excerpt(said.encode(errors="replace"), longest=LONGEST_COMPLAINT)
        self.logger.info("%s: %s", str(msg) % args if args else msg, text)

    debug = exception  # so it calls what is no HTTP at all


class BoundedServer(web.Server):
    """A server that closes the connections on which nothing comes, and the oldest of these where there are too many."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        logger: StrangersLog,
        access_log: logging.Logger | None = None,
        access_log_class: type[AbstractAccessLogger] = AccessLogger,
    ) -> None:
        """Serve with *handler*, and call it for what has a whole head."""
        super().__init__(handler, logger=logger, access_log=access_log, access_log_class=access_log_class, **BOUNDS)
        self._clock = asyncio.get_running_loop()
        self._open = 0
        self._most = most_connections()
        self.backlog = max(1, min(MAX_BACKLOG, self._most // 5))
        self._silent: dict[web.RequestHandler, float] = {}  # until when each may be silent
        self._sweep: asyncio.TimerHandle | None = None

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Take a connection; where there are too many, the one that was silent longest goes."""
        super().connection_made(handler, transport)
        self._open += 1
        self.rest(handler)
        if self._open > self._most:
            self._end(next(iter(self._silent)))

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        super().connection_lost(handler, exc)
        self._open -= 1
        self._silent.pop(handler, None)
        if not self._open and self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def work(self, handler: web.RequestHandler) -> None:
        """Note that a whole head came: its request is being answered."""
        self._silent.pop(handler, None)

    def rest(self, handler: web.RequestHandler) -> None:
        """Note that a connection waits for its next head."""
        if handler.transport is None:
            return  # it was lost meanwhile
        ends_at = self._silent[handler] = self._clock.time() + HEAD_SECONDS
        if self._sweep is None:
            self._sweep = self._clock.call_at(ends_at, self._close_silent)

    def _close_silent(self) -> None:
        now = self._clock.time()
        self._sweep = None
        for handler, ends_at in tuple(self._silent.items()):  # the oldest first
            if ends_at > now:
                self._sweep = self._clock.call_at(ends_at, self._close_silent)
                return
            self._end(handler, linger=TAIL_SECONDS)

    def _end(self, handler: web.RequestHandler, *, linger: float = LINGERING_SECONDS) -> None:
        del self._silent[handler]
        transport = handler.transport
        handler.force_close()
        if transport is not None:  # it is open until its peer has read the last answer, who may never do so
            self._clock.call_later(linger, transport.abort)


async def ask_later(request: web.Request) -> None:
    """Do not answer `Expect: 100-continue` yet, and refuse what else is expected."""
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed


def most_connections() -> int:
    """Return how many connections may be open at a time, besides what is open now."""
    if resource is None:
        return MAX_CONNECTIONS
    left, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if left == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    with suppress(OSError):  # what is open now; not every system says it
        left -= sum(1 for _ in Path("/dev/fd").iterdir())
    return max(1, min(MAX_CONNECTIONS, left // 2))
