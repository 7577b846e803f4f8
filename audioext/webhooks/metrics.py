"""`/metrics` for Prometheus, at an address of its own."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from attrs import define, field

from audioext.clock import whole
from audioext.errors import ConfigError
from audioext.models.stats import Stats

SHUTDOWN_SECONDS = 0.2
"""How long connections may keep it from closing: numbers that nobody heard are in nobody's way."""


@define(eq=False, repr=False)
class MetricsServer:
    """Serves `/metrics` at *address*, which is not the receiver's: providers and strangers have no business there."""

    stats: Callable[[], Stats]
    address: tuple[str, int]
    _runner: web.AppRunner | None = field(default=None, init=False)

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - an extra
        from prometheus_client.aiohttp import make_aiohttp_handler  # noqa: PLC0415 - as above

        from audioext.metrics import StatsCollector  # noqa: PLC0415 - as above

        registry = CollectorRegistry()
        registry.register(StatsCollector(self.stats))
        app = web.Application()
        app.router.add_get("/metrics", make_aiohttp_handler(registry))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        host, port = self.address
        try:
            await whole(web.TCPSite(self._runner, host, port, reuse_address=True).start())
        except OSError as error:
            message = f"metrics cannot listen on {host}:{port}: {error.strerror or error}; choose another `metrics=`"
            raise ConfigError(message) from error

    async def aclose(self) -> None:
        """Stop."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
