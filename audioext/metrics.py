"""A client's counters as Prometheus metrics, also on an address of their own; it needs `audioext[metrics]`.

Names follow prometheus.io/docs/practices/naming, read 2026-11-26.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from aiohttp import web
from attrs import define, field, frozen
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.registry import Collector

from audioext.models.stats import Histogram, Stats
from audioext.version import __version__
from audioext.webhooks.server import BoundedServer, StrangersLog, listen

_log = logging.getLogger("audioext.metrics")

SHUTDOWN_SECONDS = 0.2
"""How long open connections may delay closing: an unread scrape does no harm."""


@frozen
class StatsCollector(Collector):
    """Collects from `client.stats`: `prometheus_client.REGISTRY.register(StatsCollector(client.stats))`."""

    stats: Callable[[], Stats]

    def describe(self) -> Sequence[Metric]:
        """Return nothing, since a registry would otherwise call `collect` on registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with their current values."""
        stats = self.stats()
        for name, text, labels, counts in (
            ("submits", "Calls of submit.", ["provider", "outcome"], stats.submits),
            ("jobs_ended", "Jobs that are complete, failed or expired.", ["provider", "verdict"], stats.ended),
            ("webhooks", "Webhooks.", ["provider", "verdict"], stats.webhooks),
            ("answers", "Answers of the receiver, to strangers too.", ["status"], stats.answers),
            ("polls", "Status calls.", ["provider", "outcome"], stats.polls),
            ("handler_runs", "Calls of handlers.", ["topic", "outcome"], stats.handlers),
            ("downloads", "Files that were fetched, or were not.", ["outcome"], stats.downloads),
        ):
            family = CounterMetricFamily(f"audioext_{name}", text, labels=labels)
            for key, count in counts.items():
                family.add_metric(_values(key), count)
            yield family
        yield _histogram(
            "stage_seconds", "Seconds from a submit to a stage of its job.", ["provider", "stage"], stats.stages
        )
        yield _histogram("store_append_seconds", "Seconds until the store had an append.", [], {(): stats.appends})
        yield GaugeMetricFamily(
            "audioext_open_jobs", "Jobs without an end that are held in this process.", value=stats.open_jobs
        )
        info = GaugeMetricFamily("audioext_build_info", "The release of audioext.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info


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
        server = BoundedServer(self._serve, logger=StrangersLog(Counter()))
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        where, remedy = "metrics cannot listen on", "`metrics=`"
        await listen(self._runner, self.address, where, remedy=remedy, backlog=server.backlog)

    async def aclose(self) -> None:
        """Stop listening."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/metrics":
            response = web.Response(status=404)
        elif request.method not in {"GET", "HEAD"}:
            response = web.Response(status=405, headers={"Allow": "GET, HEAD"})
        else:
            response = self._page(request.headers.get("Accept", ""))
        response.force_close()  # a kept-alive connection would count as silent in BoundedServer
        return response

    def _page(self, accept: str) -> web.Response:
        try:
            encode, kind = choose_encoder(accept)
        except (TypeError, ValueError):  # the header has an invalid version
            encode, kind = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
        try:
            response = web.Response(body=encode(StatsCollector(self.stats)), headers={"Content-Type": kind})
        except Exception:  # noqa: BLE001 - a bug of ours, which StrangersLog would hide
            _log.exception("/metrics could not be rendered")
            return web.Response(status=500)
        response.enable_compression()
        return response


def _histogram(name: str, text: str, labels: list[str], found: Mapping[Any, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"audioext_{name}", text, labels=labels)
    for key, histogram in found.items():
        bounds = [*map(str, histogram.bounds), "+Inf"]
        family.add_metric(_values(key), list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.sum)
    return family


def _values(key: object) -> list[str]:
    parts = key if isinstance(key, tuple) else (key,)
    return [str(each) for each in parts]
