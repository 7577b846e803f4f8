"""Serves `/metrics` for Prometheus on an address of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from aiohttp import web
from attrs import define, field

from audioext.models.stats import Stats
from audioext.webhooks.server import BoundedServer, StrangersLog, listen

_log = logging.getLogger("audioext.metrics")

SHUTDOWN_SECONDS = 0.2
"""How long open connections may delay closing: an unread scrape does no harm."""


@define(eq=False, repr=False)
class MetricsServer:
    """Serves `/metrics` at `address`, apart from the public receiver: providers and strangers must not read it."""

    stats: Callable[[], Stats]
    address: tuple[str, int]
    _runner: web.ServerRunner | None = field(default=None, init=False)

    async def start(self) -> None:
        """Start to listen.

        Raises:
            ConfigError: cannot listen on the address.
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
                except Exception:  # noqa: BLE001 - a bug of ours, which StrangersLog would hide
                    _log.exception("/metrics could not be rendered")
                    return web.Response(status=500)
                response = web.Response(body=body, headers={"Content-Type": kind})
                response.enable_compression()
            response.force_close()  # a kept-alive connection would count as silent in BoundedServer
            return response

        server = BoundedServer(serve, logger=StrangersLog(Counter()))
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        where, remedy = "metrics cannot listen on", "`metrics=`"
        await listen(self._runner, self.address, where, remedy=remedy, backlog=server.backlog)

    async def aclose(self) -> None:
        """Stop listening."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
