"""aiohttp's low-level server with limits for the open internet, so that a stranger costs no more than one reply."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.web_log import AccessLogger

from audioext.clock import whole
from audioext.errors import ConfigError, cut, shown, why_unbound
from audioext.http.messages import excerpt

try:
    import resource
except ImportError:  # Windows, where sockets are not file descriptors
    resource = None  # type: ignore[assignment]  # a module or None

_log = logging.getLogger("audioext.server")

HEAD_SECONDS = 15.0
"""How long a connection may take to send complete request headers, after it opens and after each reply."""
MAX_CONNECTIONS = 512
"""Open at a time. At most half of the free file descriptors: the store and our own calls need some as well."""
MAX_BACKLOG = 32
"""Connections accepted at once: asyncio accepts a whole backlog, some four times before the oldest can be closed."""
MAX_WAITING = 1024
"""Connections that the system keeps until they are accepted; callers beyond them try again after 1 s, then 3 s."""
LINGERING_SECONDS = 0.5
"""How long the rest of a refused body is read, so that the sender can read the reply; how long the peer of a
connection that is closed to make room may take to read its reply."""
TAIL_SECONDS = 30.0
"""How long the peer of a connection that is closed for silence may take to read the end of its reply."""
LONGEST_COMPLAINT = 200


BOUNDS: Final[dict[str, Any]] = {
    "auto_decompress": False,
    "lingering_time": LINGERING_SECONDS,
    "max_headers": 64,
    "max_field_size": 8190,
}
"""Limits that aiohttp takes as arguments, for all our servers. It decompresses no body, since one can unpack to a
thousand times its size, and reads an unwanted body only briefly. Headers are limited since each connection may hold
incomplete ones: vendors and a chain of proxies send 20 to 40 header lines of up to 2,000 bytes."""


class StrangersLog(logging.LoggerAdapter[logging.Logger]):
    """Logs a malformed request as one masked line at INFO, where aiohttp would log a traceback."""

    def __init__(self, answered: Counter[int]) -> None:
        """Count malformed requests in *answered*, as status 400."""
        super().__init__(_log, {})
        self._answered = answered

    def exception(self, msg: object, *args: object, exc_info: object = None, **_: object) -> None:
        """Count and log one malformed request."""
        self._answered[400] += 1
        said = f"{type(exc_info).__name__}: {exc_info}"
        text = excerpt(said.encode(errors="replace"), longest=LONGEST_COMPLAINT)
        self.logger.info("%s: %s", str(msg) % args if args else msg, text)

    debug = exception  # aiohttp logs a request that is not HTTP at all with `debug`


class BoundedServer(web.Server):
    """A server that closes silent connections, and the longest silent one when there are too many."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        logger: StrangersLog,
        access_log: logging.Logger | None = None,
        access_log_class: type[AbstractAccessLogger] = AccessLogger,
    ) -> None:
        """Call *handler* for each request with complete headers."""
        super().__init__(handler, logger=logger, access_log=access_log, access_log_class=access_log_class, **BOUNDS)
        self._clock = asyncio.get_running_loop()
        self._open = 0
        self._most = most_connections()
        self.backlog = max(1, min(MAX_BACKLOG, self._most // 10))
        self._silent: dict[web.RequestHandler, float] = {}  # loop time at which each is closed, oldest first
        self._sweep: asyncio.TimerHandle | None = None

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Add a connection; if there are too many, close the one that has been silent longest."""
        super().connection_made(handler, transport)
        self._open += 1
        self.rest(handler)
        if self._open > self._most:
            self._end(next(iter(self._silent)))

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Remove a connection."""
        super().connection_lost(handler, exc)
        self._open -= 1
        self._silent.pop(handler, None)
        if not self._open and self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def work(self, handler: web.RequestHandler) -> None:
        """Note that complete headers arrived: the connection's request is being answered."""
        self._silent.pop(handler, None)

    def rest(self, handler: web.RequestHandler) -> None:
        """Note that a connection waits for its next request."""
        if handler.transport is None:
            return  # the connection was lost meanwhile
        ends_at = self._silent[handler] = self._clock.time() + HEAD_SECONDS
        if self._sweep is None:
            self._sweep = self._clock.call_at(ends_at, self._close_silent)

    def _close_silent(self) -> None:
        now = self._clock.time()
        self._sweep = None
        for handler, ends_at in tuple(self._silent.items()):  # oldest first
            if ends_at > now:
                self._sweep = self._clock.call_at(ends_at, self._close_silent)
                return
            self._end(handler, linger=TAIL_SECONDS)

    def _end(self, handler: web.RequestHandler, *, linger: float = LINGERING_SECONDS) -> None:
        del self._silent[handler]
        transport = handler.transport
        handler.force_close()
        if transport is not None:  # close() waits until the peer has read the last reply, which may never happen
            self._clock.call_later(linger, transport.abort)


@contextmanager
def mounting(app: object, prefix: object) -> Generator[None]:
    """Check the arguments of a mount, and report what aiohttp refuses in the block.

    Raises:
        ConfigError: *app* is not an aiohttp application or has started already, or *prefix* cannot be used.
    """
    if not isinstance(app, web.Application):
        what = "in another framework mount `receiver.asgi`, or call `inbox.accept`"
        raise ConfigError(f"app must be an aiohttp web.Application, not {shown(app)}: {what}")
    if not (isinstance(prefix, str) and prefix.startswith("/")):
        raise ConfigError(f"the prefix must begin with a slash, like '/audio', not {shown(prefix)}")
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"cannot add the routes under the prefix {shown(prefix)}: {error}") from error


class _Site(web.TCPSite):
    """Keeps more connections waiting while the event loop is busy than it accepts at once."""

    async def start(self) -> None:
        """Start to listen, then lengthen the system's queue, of which asyncio knows nothing."""
        await super().start()
        for each in getattr(self._server, "sockets", ()):
            # An event loop without descriptors, such as a simulated one, keeps its own queue.
            with suppress(OSError), socket.fromfd(each.fileno(), each.family, each.type) as listening:
                listening.listen(MAX_WAITING)


async def listen(
    runner: web.BaseRunner, address: tuple[str, int], problem: str, *, remedy: str, backlog: int = 128
) -> int:
    """Listen with *runner* and return the port; the error begins with *problem*, and says to choose another *remedy*.

    Raises:
        ConfigError: the address cannot be listened on; the runner is cleaned up.
    """
    host, port = address
    await runner.setup()
    try:
        await whole(_Site(runner, host, port, reuse_address=True, backlog=backlog).start())
    except (OSError, ValueError) as error:
        await runner.cleanup()
        raise ConfigError(f"{problem} {cut(host)}:{port}: {why_unbound(error)}; choose another {remedy}") from error
    return int(runner.addresses[0][1])


async def defer_expect(request: web.Request) -> None:
    """Leave `Expect: 100-continue` to be answered later, and refuse any other expectation."""
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed


def most_connections() -> int:
    """Return how many connections may be open at a time, on top of what is open now."""
    if resource is None:
        return MAX_CONNECTIONS
    left, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if left == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    with suppress(OSError):  # descriptors that are open now; not every system has /dev/fd
        left -= sum(1 for _ in Path("/dev/fd").iterdir())
    return max(1, min(MAX_CONNECTIONS, left // 2))
