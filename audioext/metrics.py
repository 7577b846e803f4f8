"""What a client has counted, as metrics of Prometheus; it needs `audioext[metrics]`.

Names follow prometheus.io/docs/practices/naming, read 2026-11-26.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import frozen
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from audioext.models.stats import Histogram, Stats
from audioext.version import __version__


@frozen
class StatsCollector(Collector):
    """Shows what `client.stats` returns: `prometheus_client.REGISTRY.register(StatsCollector(client.stats))`."""

    stats: Callable[[], Stats]

    def describe(self) -> Sequence[Metric]:
        """Name no metrics beforehand: a registry that asks would count them now."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
        stats = self.stats()
        yield _counter("submits", "Calls of submit.", ["provider", "outcome"], stats.submits.items())
        text = "Seconds from a submit to a stage of its job."
        stages = [((provider, stage.name.lower()), found) for (provider, stage), found in stats.stages.items()]
        yield _histogram("stage_seconds", text, ["provider", "stage"], stages)
        ended = [((provider, verdict.name.lower()), count) for (provider, verdict), count in stats.ended.items()]
        yield _counter("jobs_ended", "Jobs that are complete, failed or expired.", ["provider", "verdict"], ended)
        yield _counter("webhooks", "Webhooks.", ["provider", "verdict"], stats.webhooks.items())
        answers = [((str(status),), count) for status, count in stats.answers.items()]
        yield _counter("answers", "Answers of the receiver, to strangers too.", ["status"], answers)
        yield _counter("polls", "Status calls.", ["provider", "outcome"], stats.polls.items())
        yield _counter("handler_runs", "Calls of handlers.", ["topic", "outcome"], stats.handlers.items())
        downloads = [((outcome,), count) for outcome, count in stats.downloads.items()]
        yield _counter("downloads", "Files that were fetched, or were not.", ["outcome"], downloads)
        yield _histogram("store_append_seconds", "Seconds until the store had an append.", [], [((), stats.appends)])
        yield GaugeMetricFamily(
            "audioext_open_jobs", "Jobs without an end that are held in this process.", value=stats.open_jobs
        )
        info = GaugeMetricFamily("audioext_build_info", "The release of audioext.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info


def _counter(name: str, text: str, labels: list[str], counts: Iterable[tuple[Sequence[str], int]]) -> Metric:
    family = CounterMetricFamily(f"audioext_{name}", text, labels=labels)
    for values, count in counts:
        family.add_metric(values, count)
    return family


def _histogram(name: str, text: str, labels: list[str], found: Iterable[tuple[Sequence[str], Histogram]]) -> Metric:
    family = HistogramMetricFamily(f"audioext_{name}", text, labels=labels)
    for values, histogram in found:
        so_far = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        family.add_metric(values, buckets, histogram.sum)
    return family
