"""OpenTelemetry: each job is one trace, whichever processes work on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import audioext as ax
from audioext.stores import open_store
from tests.integration.client.conftest import WEB, MakeClient
from tests.support.api import Api


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    """Return the exporter of this process's spans, of which a process can set only one."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    exporter.shutdown()  # not the provider, which would warn of every later span in this process


@pytest.fixture(autouse=True)
def _empty(exporter: InMemorySpanExporter) -> None:
    exporter.clear()


async def extend(client: ax.Client, **extra: object) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5", **extra)  # type: ignore[arg-type]  # submit's


def named(spans: Sequence[ReadableSpan], name: str) -> list[ReadableSpan]:
    """Return the spans of that name."""
    return [span for span in spans if span.name == name]


def of(span: ReadableSpan, name: str) -> object:
    """Return one of our attributes."""
    return (span.attributes or {}).get(f"audioext.{name}")


async def test_a_job_is_one_trace(api: Api, open_client: MakeClient, exporter: InMemorySpanExporter) -> None:
    """Webhooks, polls and handlers are child spans of the submit, with the job's names as attributes."""
    client = await open_client(**WEB)

    @client.on(ax.Stage.TEXT)
    async def tell(event: ax.StageEvent) -> None:
        with trace.get_tracer("bot").start_as_current_span("message"):
            assert event.task_id == "task-1"

    job = await extend(client)
    for stage in ("text", "text", "complete"):
        await api.call_back(stage)
    await job.refresh()
    await client.aclose()

    spans = exporter.get_finished_spans()
    (submit,) = named(spans, "submit kie")
    (message,) = named(spans, "message")
    (handler,) = named(spans, "handler text")
    assert {submit.context.trace_id} == {span.context.trace_id for span in spans}
    assert [(None, SpanKind.CLIENT)] == [(submit.parent, submit.kind)]
    assert ["webhook kie"] * 3 + ["poll kie", "handler text"] == sorted(
        (span.name for span in spans if span.parent is not None and span.parent.span_id == submit.context.span_id),
        reverse=True,
    )
    assert message.parent is not None
    assert handler.context.span_id == message.parent.span_id
    assert ["applied", "repeated", "applied"] == [of(span, "verdict") for span in named(spans, "webhook kie")]
    assert {SpanKind.CONSUMER} == {span.kind for span in named(spans, "webhook kie")}
    assert {(job.ref, "kie", "extend", "task-1")} == {
        tuple(of(span, name) for name in ("ref", "provider", "operation", "task_id"))
        for span in spans
        if span is not message
    }


async def test_the_trace_goes_on_in_another_process(
    api: Api, open_client: MakeClient, exporter: InMemorySpanExporter, tmp_path: Path
) -> None:
    """A separate listener and a restarted process continue the trace, whose context is in the journal."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    listener = await open_client(store=open_store(url), **WEB)
    worker = await open_client(store=open_store(url), public_url=str(listener.public_url), listen=None)
    with trace.get_tracer("app").start_as_current_span("request") as request:
        job = await extend(worker)
    await worker.aclose()
    assert 200 == await api.call_back("text")
    heir = await open_client(store=open_store(url))
    with trace.get_tracer("app").start_as_current_span("another"):
        await (await heir.job(job.ref)).refresh()

    spans = exporter.get_finished_spans()
    (submit,) = named(spans, "submit kie")
    later = [*named(spans, "webhook kie"), *named(spans, "poll kie")]
    assert submit.parent == request.get_span_context()
    assert [(submit.context.trace_id, submit.context.span_id)] * 2 == [
        (span.parent.trace_id, span.parent.span_id) for span in later if span.parent is not None
    ]


async def test_a_webhook_is_linked_to_the_servers_own_span(
    api: Api, open_client: MakeClient, exporter: InMemorySpanExporter
) -> None:
    """A webhook's span is linked to the server's own request span."""
    client = await open_client(public_url="http://127.0.0.1:9/audio", listen=None)
    await extend(client)
    path = api.posts[0]["callBackUrl"].removeprefix("http://127.0.0.1:9/audio")
    with trace.get_tracer("server").start_as_current_span("POST", kind=SpanKind.SERVER) as request:
        assert 400 == await client.inbox.accept(ax.Webhook(path=path, headers={}, body=b"["))

    (webhook,) = named(exporter.get_finished_spans(), "webhook kie")
    assert "unreadable" == of(webhook, "verdict")
    assert [request.get_span_context()] == [link.context for link in webhook.links]


async def test_a_failed_call_is_an_error_span(
    api: Api, open_client: MakeClient, exporter: InMemorySpanExporter
) -> None:
    """A refused submit, a failed poll and a handler that raised are error spans with the message."""
    client = await open_client(**WEB)

    @client.on(ax.Stage.TEXT)
    async def fail(event: ax.StageEvent) -> None:
        raise RuntimeError(event.ref)

    job = await extend(client)
    api.codes, api.status_codes = [413], [500]
    with pytest.raises(ax.ProviderError):
        await extend(client)
    with pytest.raises(ax.ProviderError):
        await job.refresh()
    assert 200 == await api.call_back("text", post=0)
    await client.aclose()

    failed = [span for span in exporter.get_finished_spans() if span.status.status_code is StatusCode.ERROR]
    assert ["handler text", "poll kie", "submit kie"] == sorted(span.name for span in failed)


def test_without_tracing_opentelemetry_is_not_imported() -> None:
    """A program without OpenTelemetry does not import it, even if it is installed."""
    program = """
import asyncio, sys
import audioext as ax
async def main():
    async with ax.Client(ax.Kie("key", base_url="http://127.0.0.1:9")) as client:
        try:
            await client.extend(audio_id="x", model="V5")
        except ax.ProviderDownError:
            print([name for name in sys.modules if name.partition(".")[0] in {"opentelemetry", "prometheus_client"}])
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert "[]" == done.stdout.strip()
