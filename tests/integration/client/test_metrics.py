"""`/metrics` serves a client's counts in Prometheus format at its own address."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families

import audioext as ax
from audioext import config
from audioext.metrics import StatsCollector
from tests.integration.client.conftest import WEB, MakeClient
from tests.support.api import Api
from tests.support.clock import PROMPT_SECONDS

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


async def get(url: str, accept: str = "text/plain") -> tuple[int, str, str]:
    """Return status, content type and text of a page."""
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Accept": accept}) as response:
        return response.status, response.content_type, await response.text()


def samples(text: str) -> dict[tuple[str, frozenset[str]], float]:
    """Return the samples by name and labels, as Prometheus' own parser reads them."""
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_prometheus_reads_the_counts(api: Api, open_client: MakeClient, unused_tcp_port: int) -> None:
    """Prometheus' own parsers accept the page in both formats, and read the numbers of `client.stats()`."""
    client = await open_client(metrics=unused_tcp_port, **WEB)
    job = await client.extend(audio_id="x", model="V5")
    for stage in ("text", "text", "complete"):
        await api.call_back(stage)
    await job.refresh()
    status, kind, text = await get(f"http://127.0.0.1:{unused_tcp_port}/metrics")
    _, open_kind, open_text = await get(f"http://127.0.0.1:{unused_tcp_port}/metrics", OPEN_METRICS)

    found = samples(text)
    assert (200, "text/plain", "application/openmetrics-text") == (status, kind, open_kind)
    assert 1 == found["audioext_submits_total", frozenset({"kie", "accepted"})]
    assert 2 == found["audioext_webhooks_total", frozenset({"kie", "applied"})]
    assert 1 == found["audioext_webhooks_total", frozenset({"kie", "repeated"})]
    assert 3 == found["audioext_answers_total", frozenset({"200"})]
    assert 1 == found["audioext_polls_total", frozenset({"kie", "nothing"})]
    assert 1 == found["audioext_jobs_ended_total", frozenset({"kie", "complete"})]
    assert 1 == found["audioext_stage_seconds_bucket", frozenset({"kie", "complete", "1.0"})]
    assert 1 == found["audioext_stage_seconds_count", frozenset({"kie", "first"})]
    assert client.stats().appends.count == found["audioext_store_append_seconds_count", frozenset()]
    assert 0 == found["audioext_open_jobs", frozenset()]
    assert 1 == found["audioext_build_info", frozenset({ax.__version__})]
    assert {family.name for family in text_string_to_metric_families(text)} >= {
        family.name
        for family in read_open_metrics(open_text)  # type: ignore[no-untyped-call]  # the one function without types
    }


async def test_a_users_registry_shows_the_counts(api: Api, open_client: MakeClient) -> None:
    """A user adds the collector to an existing registry, where a client that did nothing shows zeros."""
    registry = CollectorRegistry()
    client = await open_client()
    registry.register(StatsCollector(client.stats))

    assert 0 == samples(generate_latest(registry).decode())["audioext_store_append_seconds_count", frozenset()]


async def test_the_receivers_port_has_no_metrics(open_client: MakeClient, unused_tcp_port: int) -> None:
    """The receiver's port has no metrics page, and the metrics port has no other page."""
    client = await open_client(metrics=f"127.0.0.1:{unused_tcp_port}", **WEB)

    assert 404 == (await get(f"{client.public_url}/metrics"))[0]
    assert 404 == (await get(f"http://127.0.0.1:{unused_tcp_port}/healthz"))[0]
    assert 200 == (await get(f"http://127.0.0.1:{unused_tcp_port}/metrics"))[0]


async def test_a_taken_address_is_named(open_client: MakeClient, unused_tcp_port: int) -> None:
    """A client whose metrics address is taken does not open; closing the other client frees the address."""
    with (
        socket.create_server(("127.0.0.1", unused_tcp_port)),
        pytest.raises(
            ax.ConfigError, match=rf"metrics cannot listen on 127\.0\.0\.1:{unused_tcp_port}: [^:']+; choose"
        ),
    ):
        await open_client(metrics=unused_tcp_port)
    client = await open_client(metrics=unused_tcp_port)
    await client.aclose()

    await open_client(metrics=unused_tcp_port)
    assert 200 == (await get(f"http://127.0.0.1:{unused_tcp_port}/metrics"))[0]


async def test_a_scraper_that_hangs_keeps_no_client_from_closing(open_client: MakeClient, unused_tcp_port: int) -> None:
    """A scraper's idle connection is cut off when the client closes."""
    client = await open_client(metrics=unused_tcp_port)
    _, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
    async with asyncio.timeout(PROMPT_SECONDS):
        await client.aclose()
    writer.close()


def test_metrics_are_off_by_default_and_then_on_loopback() -> None:
    """Metrics are off by default, and listen on loopback only unless an address is given."""
    assert [None, ("127.0.0.1", 9464), ("127.0.0.1", 9000), ("0.0.0.0", 9000)] == [  # noqa: S104 - as it was asked for
        config.read_metrics(value) for value in (False, True, 9000, ":9000")
    ]


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", "127.0.0.1:70000", -1])
def test_a_wrong_metrics_address_is_refused(address: str | int) -> None:
    """A wrong metrics address is refused with an example before anything is opened."""
    with pytest.raises(ax.ConfigError, match=r"`metrics=` must look like 127\.0\.0\.1:9464"):
        ax.Client(metrics=address)


def test_without_its_extra_it_says_what_to_install() -> None:
    """Without its extra, `metrics=` raises an error that says what to install, and `client.stats()` still works."""
    program = """
import sys
sys.modules["prometheus_client"] = None
import audioext as ax
print(ax.Client().stats().open_jobs)
try:
    ax.Client(metrics=True)
except ax.ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    stats, refusal = done.stdout.splitlines()
    assert "0" == stats
    assert refusal.startswith(f'`metrics=` needs more packages: {sys.executable} -m pip install "audioext[metrics]"')
