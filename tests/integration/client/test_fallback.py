"""A submit falls back to another provider only if the first certainly made no task and the request is portable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import audioext as ax
from audioext.runtime.orders import Order, refuse_other
from tests.integration.client.conftest import WEB, Connect, MakeSandbox, Providers
from tests.support.api import Api, serve_api
from tests.support.clock import JumpClock, soon

URL = "https://files.test/voice.mp3"
REQUEST = ax.Extend(url=URL, model="V5", continue_at=2)


@pytest.fixture
async def second(stack: AsyncExitStack) -> Api:
    """Return a second API."""
    return await stack.enter_async_context(serve_api())


@pytest.fixture
async def client(api: Api, second: Api) -> AsyncIterator[ax.Client]:
    """Return a client of two accounts, "kie" and "second"."""
    async with ax.Client(api.provider(), second.provider(name="second"), wait_timeout=20.0) as client:
        yield client


async def notes(client: ax.Client, ref: str) -> list[str]:
    """Return the notes in a job's journal."""
    return [entry.note for entry, _ in await client.timeline(ref) if entry.note]


@pytest.mark.parametrize("code", [401, 402, 429, 455])
async def test_after_a_refusal_the_next_provider_is_tried(client: ax.Client, api: Api, second: Api, code: int) -> None:
    """After a refusal the second provider gets the job and the key at once, and the first journal keeps the refusal."""
    api.codes = [code] * 9
    job = await client.submit(REQUEST, fallback=("second",), key="chat:1", meta={"chat": 1})
    song = await job

    assert ("second", "second", {"chat": 1}) == (job.provider, song.provider, job.meta)
    assert (1, 1) == (len(api.posts), len(second.posts))
    assert job == await client.job(key="chat:1")
    (refused,) = [each async for each in client.jobs() if each != job]
    assert ("kie", ax.Verdict.REFUSED) == (refused.provider, refused.verdict)
    assert [f"kie refused job {refused.ref}: the vendor's words"] == await notes(client, job.ref)


async def test_without_a_connection_the_next_provider_is_tried(second: Api, unused_tcp_port: int) -> None:
    """A provider that refuses connections got nothing, so the next one is tried."""
    away = ax.Kie("0123456789abcdef", base_url=f"http://127.0.0.1:{unused_tcp_port}", name="away")
    async with ax.Client(away, second.provider(name="second"), wait_timeout=20.0) as client:
        song = await client.run(REQUEST, fallback=["second"])

    assert ("second", 1) == (song.provider, len(second.posts))


@pytest.mark.parametrize("code", [0, 500])
async def test_after_an_unknown_outcome_no_other_provider_is_tried(
    client: ax.Client, api: Api, second: Api, code: int
) -> None:
    """A lost or unclear answer may mean a paid task, so no other provider is tried."""
    api.codes = [code]
    job = await client.submit(REQUEST, fallback=("second",), key="chat:1")
    again = await client.submit(REQUEST, fallback=("second",), key="chat:1")

    assert ("kie", job) == (job.provider, again)
    assert (1, 0) == (len(api.posts), len(second.posts))


async def test_a_callback_while_the_fallback_waits_is_the_task(api: Api, second: Api, clock: JumpClock) -> None:
    """If a callback names the refused task while the fallback waits for room, that job is returned, nothing is sent."""
    api.codes = [402]
    crowded = second.provider(name="second", limits=ax.Limits(submits=1, per=60.0))
    async with ax.Client(api.provider(), crowded, clock=clock.clock, **WEB) as client:  # type: ignore[arg-type]  # two texts
        await clock.run(client.submit(REQUEST, provider="second"))
        submit = asyncio.create_task(client.submit(REQUEST, fallback=("second",), key="chat:1"))

        async def is_refused() -> bool:
            return any([job.verdict is ax.Verdict.REFUSED async for job in client.jobs()])

        await soon(is_refused)
        assert 200 == await api.call_back("text")
        job = await clock.run(submit)

        assert ("kie", "task-1", True) == (job.provider, job.task_id, job.is_new)
        assert job == await client.job(key="chat:1")
        assert (1, 1) == (len(api.posts), len(second.posts))


async def test_closing_while_the_fallback_waits_returns_a_task_that_a_callback_named(
    api: Api, second: Api, clock: JumpClock
) -> None:
    """A client that is closed after such a callback does not say that nothing was paid: the caller gets the job."""
    api.codes = [402]
    crowded = second.provider(name="second", limits=ax.Limits(submits=1, per=60.0))
    async with ax.Client(api.provider(), crowded, clock=clock.clock, **WEB) as client:  # type: ignore[arg-type]  # two texts
        await clock.run(client.submit(REQUEST, provider="second"))
        submit = asyncio.create_task(client.submit(REQUEST, fallback=("second",)))

        async def is_refused() -> bool:
            return any([job.verdict is ax.Verdict.REFUSED async for job in client.jobs()])

        await soon(is_refused)
        assert 200 == await api.call_back("text")

    job = await submit
    assert ("kie", "task-1", True) == (job.provider, job.task_id, job.is_new)


async def test_a_callback_during_the_fallbacks_own_refusal_is_the_task(api: Api, second: Api) -> None:
    """If a callback names the refused task while the last provider refuses, its job is returned and no error raised."""
    api.codes, second.codes = [402], [402]
    second.on_post = lambda _: api.call_back("text")
    async with ax.Client(api.provider(), second.provider(name="second"), **WEB) as client:  # type: ignore[arg-type]  # two texts
        job = await client.submit(REQUEST, fallback=("second",), key="chat:1")

        assert ("kie", "task-1", True) == (job.provider, job.task_id, job.is_new)


async def test_if_the_first_provider_accepts_no_other_is_called(client: ax.Client, api: Api, second: Api) -> None:
    """If the first provider accepts, no other one is called and the journal has no note."""
    job = await client.extend(url=URL, model="V5", continue_at=2, fallback="second")

    assert ("kie", 1, 0) == (job.provider, len(api.posts), len(second.posts))
    assert [] == await notes(client, job.ref)


async def test_the_last_refusal_is_raised_with_the_others_as_notes(client: ax.Client, api: Api, second: Api) -> None:
    """If all providers refuse, the last refusal is raised with the earlier ones as notes, and the key is free."""
    api.codes, second.codes = [402], [401]
    with pytest.raises(ax.AuthError) as refused:
        await client.submit(REQUEST, fallback=("second",), key="chat:1")
    jobs = {job.provider: job.ref async for job in client.jobs()}
    with pytest.raises(ax.RequestError):
        await client.job(key="chat:1")

    assert jobs["second"] == refused.value.ref
    assert [f"kie refused job {jobs['kie']}: the vendor's words"] == refused.value.__notes__
    assert {"kie", "second"} == jobs.keys()


async def test_the_same_call_again_gives_the_same_job(client: ax.Client, api: Api, second: Api) -> None:
    """A repeated call finds the job of its key at the second provider, now or later, and pays once."""
    api.codes = [402]
    first, twin = await asyncio.gather(*(client.submit(REQUEST, fallback=("second",), key="chat:1") for _ in range(2)))
    later = await client.submit(REQUEST, fallback=("second",), key="chat:1")
    with pytest.raises(ax.KeyConflictError):
        await client.submit(REQUEST, key="chat:1")
    with pytest.raises(ax.KeyConflictError):
        await client.submit(ax.Extend(url=URL, model="V4", continue_at=2), fallback=("second",), key="chat:1")

    assert first == twin == later
    assert (1, 1) == (len(api.posts), len(second.posts))


def test_a_keys_job_at_any_provider_of_the_chain_is_accepted() -> None:
    """A call accepts its key's job at any provider of its chain, since another process may have got the key there."""
    first, second, other = ax.Kie(name="first"), ax.Kie(name="second"), ax.Kie(name="other")
    order = Order(request=REQUEST, provider=first, fallback=(second,), key="chat:1")
    order = order.after(ax.CreditsError("no credits", provider="first", charged=False))

    assert (second, ()) == (order.provider, order.fallback)
    for provider in (first, second):
        refuse_other(order, "ref", Order(request=REQUEST, provider=provider, key="chat:1"))
    with pytest.raises(ax.KeyConflictError):
        refuse_other(order, "ref", Order(request=REQUEST, provider=other, key="chat:1"))


async def test_a_key_in_a_handler_is_found_at_the_second_provider(client: ax.Client, api: Api, second: Api) -> None:
    """A handler that runs again gets the job that it submitted before, at whichever provider it is."""
    api.codes = [200, 402]
    refs: list[str] = []
    done = asyncio.Event()

    @client.on(ax.Stage.COMPLETE)
    async def go_on(event: ax.StageEvent) -> None:
        if event.provider == "second":
            return
        job = await client.submit(ax.Extend(url=URL, model="V5", continue_at=3), fallback=("second",))
        refs.append(job.ref)
        if len(refs) == 1:
            raise ax.RetryLater(0.01)
        done.set()

    await client.submit(REQUEST)
    async with asyncio.timeout(30):
        await done.wait()

    assert 1 == len(set(refs))
    assert (2, 1) == (len(api.posts), len(second.posts))


@pytest.mark.parametrize(
    "bound",
    [
        {"audio_id": "a"},
        {"url": URL, "persona_id": "p", "title": "t", "style": "s", "prompt": "p", "continue_at": 2},
    ],
)
async def test_an_id_of_one_provider_is_refused_with_a_fallback(
    client: ax.Client, api: Api, second: Api, bound: dict[str, Any]
) -> None:
    """A track id or a persona id, which only one provider knows, is refused with a fallback before anything is sent."""
    request = ax.Extend(model="V5", **bound)
    with pytest.raises(ax.RequestError, match="fallback: cannot be used with") as refused:
        await client.submit(request, fallback=("second",))
    await client.submit(request, fallback=("kie",))  # a fallback to itself alone

    assert ["fallback"] == [problem.field for problem in refused.value.problems]
    assert (1, 0) == (len(api.posts), len(second.posts))


async def test_the_problems_of_all_providers_are_raised_before_anything_is_sent(
    make_sandbox: MakeSandbox, providers: Providers
) -> None:
    """The problems of all providers in the chain are raised together before anything is sent."""
    sandbox = await make_sandbox()
    by_name = providers(sandbox)
    async with ax.Client(by_name["kie"], by_name["musicgpt"], by_name["sunoapi"]) as client:
        with pytest.raises(ax.RequestError) as refused:
            await client.extend(url=URL, style="x" * 2_000, title="t", model="V5", fallback=("musicgpt", "sunoapi"))
        with pytest.raises(ax.RequestError, match="fallback: musicgpt has no call for"):
            await client.add_instrumental(
                url=URL, title="Rain", tags="piano", negative_tags="metal", fallback="musicgpt"
            )
        with pytest.raises(ax.ConfigError, match="no provider named 'vidgo'"):
            await client.submit(REQUEST, fallback=("vidgo",))
    said = [str(problem) for problem in refused.value.problems]

    assert any(text.startswith("style: musicgpt does not take it") for text in said)
    assert any("kie" in text for text in said)
    assert any("sunoapi" in text for text in said)
    assert [] == list(sandbox.submissions)


async def test_a_missing_key_of_the_fallback_is_raised_before_anything_is_sent(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing key of the fallback provider is raised before anything is sent."""
    monkeypatch.delenv("SUNOAPI_API_KEY", raising=False)
    async with ax.Client(api.provider(), ax.SunoApi()) as client:
        with pytest.raises(ax.ConfigError, match="no API key for sunoapi"):
            await client.submit(REQUEST, fallback=("sunoapi",))

    assert [] == api.posts


@pytest.mark.parametrize("kind", ["path", "bytes"])
async def test_a_file_reaches_the_fallback_provider_too(
    kind: str, make_sandbox: MakeSandbox, providers: Providers, voice_file: Path, connect: Connect
) -> None:
    """A file that was uploaded to the first provider also reaches the second one, served or in the body."""
    sandbox = await make_sandbox(faults=["code=402*1"])
    by_name = providers(sandbox)
    file = voice_file if kind == "path" else voice_file.read_bytes()
    async with ax.Client(
        by_name["kie"],
        by_name["vidgo"],
        store=connect(),
        wait_timeout=20.0,
        **WEB,  # type: ignore[arg-type]  # a test's own
    ) as client:
        song = await client.run(
            ax.Extend(file=file, model="V5", continue_at=2), fallback=("vidgo",), key="chat:1", meta={"chat": 1}
        )

    assert ("vidgo", 2) == (song.provider, len(song.tracks))
    assert ["kie", "vidgo"] == [submission.provider for submission in sandbox.submissions]
