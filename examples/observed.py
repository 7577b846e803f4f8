"""An observable worker: Prometheus metrics, one trace per job, and log lines that name their job.

It needs `pip install 'audioext[metrics]' opentelemetry-sdk`.

    KIE_API_KEY=... python examples/observed.py https://example.org/voice.mp3
"""

from __future__ import annotations

import asyncio
import logging
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

import audioext as ax

LINE = "%(asctime)s %(levelname)s %(audioext_ref)s %(message)s"


def observe() -> None:
    """Write spans and log lines to the terminal; in production use your collector's exporters."""
    provider = TracerProvider()  # it flushes the remaining spans at exit
    provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    trace.set_tracer_provider(provider)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LINE, defaults={"audioext_ref": "-"}))
    log = logging.getLogger("audioext")
    log.addHandler(handler)
    log.setLevel(logging.INFO)


async def main(url: str, *, client: ax.Client) -> ax.Stats:
    """Extend the music at *url* and return the stats, which http://127.0.0.1:9464/metrics serves meanwhile."""
    async with client:
        with trace.get_tracer("observed").start_as_current_span("a longer version"):
            song = await client.run(ax.Extend(url=url, model="V5", continue_at=2.0))
        print(song.tracks[0].audio_url)
        return client.stats()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: KIE_API_KEY=... python examples/observed.py URL")
    observe()
    print(asyncio.run(main(sys.argv[1], client=ax.Client.from_env(metrics=True))))
