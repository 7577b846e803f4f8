"""A progress link shows one job's stages as server-sent events, on each face of the receiver."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import MutableMapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from aiohttp.test_utils import TestServer

import audioext as ax
from audioext.errors import ConfigError
from audioext.http.urls import callback_url, mask
from audioext.sandbox import Sandbox
from audioext.webhooks.progress import MAX_WATCHERS_PER_JOB
from tests.integration.client.conftest import BRIEF, MakeClient, MakeSandbox
from tests.support.clock import PROMPT_SECONDS, soon

Told = list[tuple[str, dict[str, Any]]]


async def extend(client: ax.Client, sandbox: Sandbox) -> ax.Job:
    """Submit a task with notes of our own."""
    return await client.extend(
        audio_id=sandbox.track_ids[0],
        model="V5",
        continue_at=1,
        meta={"user": "me"},
        key="mine",
        prompt="a secret plan",
        style="s",
        title="t",
    )


def read(text: str) -> Told:
    """Return the events of a stream."""
    found: Told = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("is_mounted", [False, True], ids=["its own server", "mounted"])
async def test_the_stream_has_each_stage_until_the_end(
    make_sandbox: MakeSandbox, make_client: MakeClient, stack: AsyncExitStack, *, is_mounted: bool
) -> None:
    """Each stage comes with its playable links, and without the request, the meta or the provider's ids."""
    sandbox = await make_sandbox(**BRIEF)
    client = await make_client(sandbox)
    job = await extend(client, sandbox)
    url = client.progress_url(job)
    if is_mounted:
        app = web.Application()
        client.receiver.add_to(app, "/audio")
        server = await stack.enter_async_context(TestServer(app))
        url = server.make_url(url.raw_path)
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert (200, "text/event-stream") == (response.status, response.content_type)
        text = await response.text()

    told = read(text)
    assert ["stage", "stage", "stage", "end"] == [name for name, _ in told]
    assert ["text", "first", "complete"] == [value["stage"] for name, value in told if name == "stage"]
    assert 2 == len(told[2][1]["tracks"])
    assert not any(word in text for word in ("secret plan", "mine", "user"))


@pytest.mark.parametrize("path", ["progress/{ref}/wrong", "progress/{other}/{token}", "progress/{ref}/{tag}"])
async def test_a_link_opens_only_its_own_job(make_sandbox: MakeSandbox, make_client: MakeClient, path: str) -> None:
    """A guess, another job's token and a callback's tag open no link; nor is a link's token a tag."""
    sandbox = await make_sandbox(**BRIEF)
    client = await make_client(sandbox)
    assert client.public_url is not None
    job, other = await extend(client, sandbox), "0" * 24
    *_, ref, token = client.progress_url(job).parts
    tag = callback_url(client.public_url, client.inbox.secrets[0], "kie", ref).parts[-1]
    url = client.public_url / path.format(ref=ref, token=token, other=other, tag=tag)
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert 404 == response.status
        async with session.post(client.public_url / "kie" / ref / token, data=b"{}") as response:
            assert 401 == response.status
    assert token not in mask(str(client.progress_url(job)))


async def test_the_stream_ends_with_the_failure(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """A failure event has the provider's own words, and is the last one."""
    sandbox = await make_sandbox(**BRIEF, faults=["error=first:531"])
    client = await make_client(sandbox)
    job = await extend(client, sandbox)
    async with aiohttp.ClientSession() as session, session.get(client.progress_url(job)) as response:
        told = read(await response.text())

    assert ["stage", "failed", "end"] == [name for name, _ in told]
    assert job.failure is not None
    assert job.failure.message == told[1][1]["message"]


async def test_the_stream_of_a_refused_job_ends(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """A job without a task has one failure event and the last one: a browser would connect for ever."""
    sandbox = await make_sandbox(**BRIEF, faults=["code=402"])
    client = await make_client(sandbox)
    with pytest.raises(ax.CreditsError) as caught:
        await extend(client, sandbox)
    job = await client.job(caught.value.ref)
    async with aiohttp.ClientSession() as session, session.get(client.progress_url(job)) as response:
        told = read(await response.text())

    assert [("failed", {"reason": "unknown", "message": "the job is refused"}), ("end", {})] == told


async def test_closing_ends_open_streams(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """Closing the client ends an open stream without an `end` event, so that the browser connects again."""
    sandbox = await make_sandbox(**BRIEF)
    sandbox.hold("complete")
    client = await make_client(sandbox)
    job = await extend(client, sandbox)
    async with aiohttp.ClientSession() as session, session.get(client.progress_url(job)) as response:
        await job.first
        async with asyncio.timeout(PROMPT_SECONDS):
            await client.aclose()
        assert "end" not in [name for name, _ in read(await response.text())]


async def test_the_asgi_app_sends_the_same_events(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """The ASGI face sends one message for each event, until the end."""
    sandbox = await make_sandbox(**BRIEF)
    client = await make_client(sandbox)
    job = await extend(client, sandbox)
    sent: list[MutableMapping[str, Any]] = []
    never = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    path = client.progress_url(job).raw_path
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": []}
    await client.receiver.asgi(scope, receive, send)
    bad = {**scope, "raw_path": path[:-1].encode()}
    await client.receiver.asgi(bad, receive, send)

    told = read(b"".join(message.get("body", b"") for message in sent[:-2]).decode())
    assert [200, 404] == [message["status"] for message in sent if "status" in message]
    assert ["stage", "stage", "stage", "end"] == [name for name, _ in told]


async def test_an_aiohttp_app_with_open_streams_stops_at_once(
    make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """An app that is told to stop ends its streams; aiohttp would wait a minute for them, and no webhook comes in."""
    sandbox = await make_sandbox(**BRIEF)
    client = await make_client(sandbox)
    sandbox.hold("complete")
    job = await extend(client, sandbox)
    app = web.Application()
    client.receiver.add_to(app, "/audio")
    server = TestServer(app)
    await server.start_server()
    async with aiohttp.ClientSession() as session:
        response = await session.get(server.make_url(client.progress_url(job).raw_path))
        await response.content.readline()
        async with asyncio.timeout(PROMPT_SECONDS):
            await server.close()
            assert b"event: end" not in await response.read()  # so the browser comes back to the next process


async def test_uvicorn_with_open_streams_stops_soon(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """Uvicorn waits for open streams without an end; ours notice that it stops, and end."""
    sandbox = await make_sandbox(**BRIEF)
    client = await make_client(sandbox)
    sandbox.hold("complete")
    job = await extend(client, sandbox)
    server = uvicorn.Server(uvicorn.Config(client.receiver.asgi, port=0, lifespan="off", log_level="error"))
    serving = asyncio.create_task(server.serve())
    await soon(lambda: asyncio.sleep(0, server.started))
    port = server.servers[0].sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        response = await session.get(client.progress_url(job).with_port(port))
        await response.content.readline()
        server.should_exit = True
        async with asyncio.timeout(PROMPT_SECONDS):
            assert b"event: end" not in await response.read()
            await serving


async def test_a_client_without_a_public_url_has_no_progress_link(
    make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """A client without a public URL raises an error that says what is missing."""
    sandbox = await make_sandbox(**BRIEF)
    client = await make_client(sandbox, poll=True)
    job = await extend(client, sandbox)
    with pytest.raises(ConfigError, match="public_url"):
        client.progress_url(job)


async def test_one_link_leaves_room_for_others(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """The streams of one link are limited, so that other links can still be opened."""
    sandbox = await make_sandbox()
    sandbox.hold("text")
    client = await make_client(sandbox)
    one, other = await extend(client, sandbox), await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    url = client.progress_url(one)

    async with aiohttp.ClientSession() as session, AsyncExitStack() as open_links:
        for _ in range(MAX_WATCHERS_PER_JOB):
            response = await open_links.enter_async_context(session.get(url))
            assert 200 == response.status
        async with session.get(url) as refused, session.get(client.progress_url(other)) as taken:
            assert (503, 200) == (refused.status, taken.status)


async def test_the_limit_of_streams_holds_for_simultaneous_ones(
    make_sandbox: MakeSandbox, make_client: MakeClient, tmp_path: Path
) -> None:
    """The limit of streams holds also while the store is asked for a job that this process does not hold."""
    sandbox = await make_sandbox(**BRIEF)
    sandbox.hold("complete")
    store = f"sqlite:///{tmp_path}/jobs.db"
    first = await make_client(sandbox, store=store)
    path = first.progress_url(await extend(first, sandbox)).raw_path
    client = await make_client(sandbox, store=store)
    assert client.public_url is not None
    url = client.public_url.with_path(path, encoded=True)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        responses = await asyncio.gather(*(session.get(url) for _ in range(3 * MAX_WATCHERS_PER_JOB)))
        statuses = Counter(response.status for response in responses)
        for response in responses:
            response.close()

    assert {200: MAX_WATCHERS_PER_JOB, 503: 2 * MAX_WATCHERS_PER_JOB} == statuses
