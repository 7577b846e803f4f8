"""`/metrics` for Prometheus, at an address of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from aiohttp import web
from attrs import define, field

from audioext.clock import whole
from audioext.errors import ConfigError
from audioext.models.stats import Stats
from audioext.webhooks.server import BoundedServer, StrangersLog

_log = logging.getLogger("audioext.metrics")

SHUTDOWN_SECONDS = 0.2
"""How long connections may keep it from closing: numbers that nobody heard are in nobody's way."""


@define(eq=False, repr=False)
class MetricsServer:
    """Serves `/metrics` at *address*, which is not the receiver's: providers and strangers have no business there."""

    stats: Callable[[], Stats]
    address: tuple[str, int]
    _runner: web.ServerRunner | None = field(default=None, init=False)

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        from audioext.metrics import metrics_page  # noqa: PLC0415 - an extra

        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            if request.path != "/metrics":
                response = web.Response(status=404)
            elif request.method not in {"GET", "HEAD"}:
                response = web.Response(status=405, headers={"Allow": "GET, HEAD"})
            else:
                try:
                    body, kind = metrics_page(self.stats, request.headers.get("Accept", ""))
                except Exception:  # noqa: BLE001 - a bug of ours, which the log of what strangers do would hide
                    _log.exception("the numbers could not be shown")
                    return web.Response(status=500)
                response = web.Response(body=body, headers={"Content-Type": kind})
                response.enable_compression()
            response.force_close()  # each scrape has a connection of its own: one that is kept counts as silent
            return response

        server = BoundedServer(serve, logger=StrangersLog(Counter()))
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        host, port = self.address
        try:
            await whole(web.TCPSite(self._runner, host, port, reuse_address=True, backlog=server.backlog).start())
        except OSError as error:
            message = f"metrics cannot listen on {host}:{port}: {error.strerror or error}; choose another `metrics=`"
            raise ConfigError(message) from error

    async def aclose(self) -> None:
        """Stop."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
