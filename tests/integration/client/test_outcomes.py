"""A POST ends as a task, a refusal or unknown; each ref is sent once, and no paid task is lost."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import attrs
import pytest
from yarl import URL

import audioext as ax
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.http.urls import callback_url
from audioext.models.events import Event, Progress, SubmitOutcome
from audioext.models.requests import Request
from audioext.runtime.submitter import RESEND_SECONDS
from tests.integration.client.conftest import WEB, MakeClient, MakeSandbox
from tests.support.api import BRISK, Api, callback, failing
from tests.support.clock import SOON_SECONDS, JumpClock, LoopTime, soon
from tests.support.stores import FaultyMemory

GRACE_SECONDS = 900.0


async def extend(client: ax.Client, **extra: object) -> ax.Job:
    """Submit a plain extension."""
    return await client.extend(audio_id="x", model="V5", **extra)  # type: ignore[arg-type]  # submit's


# --- a refusal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (401, ax.AuthError),
        (402, ax.CreditsError),
        (422, ax.ProviderError),
        (451, ax.SourceError),
    ],
)
async def test_a_refusal_costs_nothing_and_is_kept(
    code: int, error: type[ax.ProviderError], api: Api, open_client: MakeClient
) -> None:
    """A refused submit raises its typed error; its journal keeps the vendor's words and is not open."""
    api.codes = [code]
    client = await open_client(store=(store := ax.MemoryStore()))

    with pytest.raises(error) as caught:
        await client.extend(audio_id="x", model="V5", key="once")

    assert (str(code), False) == (caught.value.code, caught.value.charged)
    assert [] == [job.ref async for job in client.jobs(open=True)]
    assert None is await store.find(key="once")
    (job,) = [job async for job in client.jobs()]
    assert (ax.Verdict.REFUSED, None, False) == (job.verdict, job.task_id, job.record.is_unsent)
    assert "the vendor's words" in str(job.record.refusal)
    with pytest.raises(ax.JobError, match="the vendor's words") as waited:
        await job
    assert ax.JobError is type(waited.value)
    assert "(not charged)" in str(waited.value)
    with pytest.raises(ax.AudioextError):
        await job.refresh()


async def test_no_connection_means_that_nothing_was_sent(
    unused_tcp_port: int, make_client: MakeClient, loop_time: LoopTime
) -> None:
    """If no connection can be made, the error says that nothing was charged, and the job that nothing was sent."""
    provider = ax.Kie("key", base_url=f"http://127.0.0.1:{unused_tcp_port}", limits=ax.Limits(submits=1, per=600.0))
    async with ax.Client(provider) as client:
        for _ in range(2):  # it takes no place in the limit's window
            with pytest.raises(ax.ProviderDownError, match="nothing was sent") as caught:
                await loop_time.run(client.extend(audio_id="a", model="V5", key="once"))
            assert (False, True) == (caught.value.charged, caught.value.retryable)
        jobs = [job async for job in client.jobs()]
        assert [(ax.Verdict.REFUSED, True)] * 2 == [(job.verdict, job.record.is_unsent) for job in jobs]
        assert [] == [job async for job in client.jobs(open=True)]


async def test_a_failed_name_lookup_says_that_this_machine_may_be_offline(loop_time: LoopTime) -> None:
    """An error of name resolution says that this machine may be offline, and cuts a long name (newcomer A)."""
    provider = ax.Kie("key", base_url=f"https://{'.'.join(['x' * 60] * 3)}.nowhere.invalid")
    async with ax.Client(provider) as client:
        for call in (client.extend(audio_id="a", model="V5"), client.credits()):
            with pytest.raises(
                ax.ProviderDownError, match=r"you may be offline.*; nothing was sent \(not charged\)"
            ) as down:
                await loop_time.run(call)
            assert len(str(down.value)) < 350


@pytest.mark.parametrize("code", [429, 402, 430])
async def test_a_refusal_after_the_callback_is_ignored(code: int, api: Api, open_client: MakeClient) -> None:
    """A callback proves that the task exists: a later refusal is ignored, nothing is resent, and the song arrives."""

    async def done_first(api: Api) -> None:
        assert 200 == await api.call_back("complete")

    api.codes, api.on_post = [code], done_first
    client = await open_client(**WEB)

    job = await extend(client)
    song = await job

    assert ["a"] == [track.id for track in song.tracks]
    assert 1 == len(api.posts)
    assert [job.ref] == [stored.ref async for stored in client.jobs()]


async def test_a_refused_task_that_has_begun_is_waited_for(api: Api, open_client: MakeClient) -> None:
    """A job whose text arrived before its POST was refused ends with the later callback."""

    async def begun_first(api: Api) -> None:
        assert 200 == await api.call_back("text")

    api.codes, api.on_post = [429], begun_first
    client = await open_client(**WEB)

    job = await extend(client)
    assert (ax.Stage.TEXT, "task-1") == (job.stage, job.task_id)
    await api.call_back("complete")

    assert 1 == len((await job).tracks)
    assert 1 == len(api.posts)


async def test_a_callback_after_the_refusal_brings_the_song(api: Api, open_client: MakeClient) -> None:
    """A callback after a refusal completes the job, as the vendor made the task after all."""
    api.codes = [402]
    client = await open_client(**WEB)
    with pytest.raises(ax.CreditsError):
        await extend(client)
    (job,) = [job async for job in client.jobs()]

    assert 200 == await api.call_back("complete")

    assert 1 == len((await job).tracks)
    assert ax.Verdict.COMPLETE is job.verdict


async def test_a_submit_refused_for_now_is_resent(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """A submit refused for now waits and is resent under a new ref; the caller gets the job that was accepted."""
    api.codes = [429, 429]
    client = await open_client(clock=clock.clock)

    job = await clock.run(extend(client, key="once"))

    assert "task-3" == job.task_id
    assert clock.time - job.record.created_at < 60
    assert 3 == len(api.posts)
    verdicts = [job.verdict async for job in client.jobs()]
    assert [ax.Verdict.REFUSED, ax.Verdict.REFUSED] == verdicts[:2]


async def test_a_callback_while_a_resend_waits_is_the_task(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """If a callback names the task of a submit that was refused for now, that job is returned and nothing is resent."""
    api.codes = [429]
    client = await open_client(clock=clock.clock, **WEB)
    submit = asyncio.create_task(extend(client))

    async def refused() -> list[ax.Job]:
        return [job async for job in client.jobs(open=False)]

    await soon(refused)
    assert 200 == await api.call_back("text")
    job = await clock.run(submit)

    assert (True, "task-1", 1) == (job.is_new, job.task_id, len(api.posts))


async def test_a_callback_to_an_earlier_refusal_is_the_task(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """The same holds for the task of any POST that was refused before, not only of the last one."""
    api.codes = [429, 429]
    client = await open_client(clock=clock.clock, **WEB)
    submit = asyncio.create_task(extend(client))

    async def both_refused() -> bool:
        return 2 == len([job async for job in client.jobs(open=False)])

    await clock.run(soon(both_refused))
    assert 200 == await api.call_back("text", post=0)
    job = await clock.run(submit)

    assert (True, "task-1", 2) == (job.is_new, job.task_id, len(api.posts))


async def test_a_callback_while_a_resend_waits_for_room_is_the_task(api: Api, clock: JumpClock) -> None:
    """The same holds while the resend waits for the limits of its account."""
    api.codes = [429]
    provider = api.provider(limits=ax.Limits(submits=1, per=60.0))
    async with ax.Client(provider, clock=clock.clock, permit_timeout=120.0, **WEB) as client:  # type: ignore[arg-type]  # two texts
        submit = asyncio.create_task(extend(client))
        await api.arrived.wait()
        while [ax.Verdict.REFUSED] != [job.verdict async for job in client.jobs()]:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        await clock.advance(RESEND_SECONDS + 1.0)

        assert 200 == await api.call_back("text")
        job = await clock.run(submit)

        assert (True, "task-1", 1) == (job.is_new, job.task_id, len(api.posts))


async def test_after_five_refusals_the_refusal_is_raised(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """After five refused POSTs the caller gets the vendor's refusal."""
    api.codes = [429] * 100
    client = await open_client(clock=clock.clock)

    with pytest.raises(ax.RateLimitError):
        await clock.run(extend(client))

    assert 5 == len(api.posts)


# --- unknown outcomes --------------------------------------------------------------------------------------------


async def test_a_refusal_is_not_waited_out_beyond_the_permit_timeout(api: Api, open_client: MakeClient) -> None:
    """A refusal whose next try would come after the permit timeout is raised at once."""
    api.codes = [429]
    client = await open_client(permit_timeout=1.0)

    with pytest.raises(ax.RateLimitError) as caught:
        await client.extend(audio_id="x", model="V5")

    assert (False, 1) == (caught.value.charged, len(api.posts))


async def test_a_lost_answer_is_adopted_by_its_callback(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """After a lost answer nothing is resent, submit returns the job, and its callback completes the same await."""
    sandbox = await make_sandbox(faults=["lose_response"])
    client = await make_client(sandbox)

    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    song = await job

    assert 2 == len(song.tracks)
    assert 1 == len(sandbox.submissions)


async def test_a_lost_answer_without_callbacks_is_unknown_at_once(
    make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """Without webhooks a lost answer has no grace period: the wait raises at once, and the error holds the job."""
    sandbox = await make_sandbox(faults=["lose_response"])
    client = await make_client(sandbox, poll=True)
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    with pytest.raises(ax.SubmitUnknownError) as caught:
        await job

    assert job is caught.value.job
    assert 1 == len(sandbox.submissions)


@pytest.mark.parametrize("fault", ["http=502", "http=500", "http=524", "code=500", "http=408", "lose_response=half"])
async def test_an_answer_that_says_nothing_certain_is_never_resent(
    fault: str, make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """A 5xx page, a timeout or half an answer leaves one POST and one open job."""
    sandbox = await make_sandbox(faults=[fault])
    client = await make_client(sandbox, poll=True)
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    assert (None, ax.Verdict.OPEN) == (job.task_id, job.verdict)
    assert 1 == len(sandbox.submissions)
    assert [job.ref] == [open_job.ref async for open_job in client.jobs(open=True)]


async def test_a_lost_answer_is_unknown_after_the_grace(api: Api, open_client: MakeClient, clock: JumpClock) -> None:
    """With webhooks a wait lasts for the grace period, and a callback after that still completes the job."""
    api.codes = [0]
    client = await open_client(clock=clock.clock, **WEB)
    job = await extend(client)
    wait = asyncio.create_task(job.result(timeout=2 * GRACE_SECONDS))
    await asyncio.sleep(0)  # it has begun

    await clock.advance(GRACE_SECONDS - 1.0)
    assert not wait.done()
    await clock.advance(2.0)
    with pytest.raises(ax.SubmitUnknownError, match="nothing was resent") as caught:
        await wait
    assert job is caught.value.job
    assert ax.Verdict.OPEN is job.verdict

    await api.call_back("complete")
    assert 1 == len((await job).tracks)
    assert 1 == len(api.posts)


async def test_a_lost_answer_is_an_unknown_outcome_while_the_store_is_down(api: Api, open_client: MakeClient) -> None:
    """A lost answer is an unknown outcome also when the store is away: no error says that nothing was sent."""
    store = ax.MemoryStore()
    api.codes, api.on_post = [0], failing(store)
    client = await open_client(store=store, public_url="http://127.0.0.1:9", listen=None)

    job = await extend(client, key="once")

    assert (None, ax.Verdict.OPEN) == (job.task_id, job.verdict)
    store.fail(None)
    assert job == await extend(client, key="once")
    assert 1 == len(api.posts)


async def test_cancelling_the_caller_does_not_cancel_the_post(
    make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """A caller that is cancelled during the POST leaves a job that completes."""
    sandbox = await make_sandbox(faults=["callback_before_response"])
    client = await make_client(sandbox)
    told = asyncio.Event()

    @client.on(ax.Stage.TEXT)
    async def tell(event: ax.StageEvent) -> None:
        told.set()

    caller = asyncio.create_task(client.extend(audio_id=sandbox.track_ids[0], model="V5", meta={"chat": 7}))
    await told.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    (job,) = [job async for job in client.jobs(meta={"chat": 7})]

    assert 2 == len((await job).tracks)
    assert 1 == len(sandbox.submissions)


# --- providers with a bug ----------------------------------------------------------------------------------------


@attrs.frozen
class Mute(ax.Kie):
    """A buggy provider that cannot build some requests."""

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Raise an unexpected error for a certain title."""
        if request.title == "unsayable":
            message = "surrogates not allowed"
            raise UnicodeError(message)
        return super().build_submit(request, callback)


@attrs.frozen
class Garbled(ax.Kie):
    """A buggy provider whose request breaks while it is sent."""

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return a request with an invalid header."""
        return attrs.evolve(super().build_submit(request, callback), headers={"X-Odd": "two\nlines"})


@attrs.frozen
class Puzzled(ax.Kie):
    """A buggy provider that cannot parse an answer."""

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Raise an unexpected error."""
        raise ZeroDivisionError(response.status)


async def test_a_request_that_cannot_be_built_costs_nothing(api: Api) -> None:
    """A request that cannot be built raises its error, takes no place in the limits, and leaves its key free."""
    mute = Mute("key", base_url=api.base, limits=ax.Limits(submits=1, per=60.0, parallel=1))
    async with ax.Client(mute) as client:
        with pytest.raises(ax.ProviderError, match="nothing was sent") as caught:
            await extend(client, title="unsayable", custom=False, key="k")

        assert False is caught.value.charged
        assert [] == [job async for job in client.jobs(open=True)]
        assert [] == api.posts
        async with asyncio.timeout(SOON_SECONDS):
            assert "task-1" == (await extend(client, key="k")).task_id


@pytest.mark.parametrize("kind", [Garbled, Puzzled])
async def test_a_bug_in_the_middle_of_a_post_is_an_unknown_outcome(kind: type[ax.Kie], api: Api) -> None:
    """After a bug in the middle of a POST nothing is resent, since bytes may have left; the callback adopts the job."""
    secret = "a secret that is long enough"
    async with ax.Client(kind("key", base_url=api.base), secrets=[secret], **WEB) as client:  # type: ignore[arg-type]  # two texts
        job = await extend(client)
        assert (None, ax.Verdict.OPEN) == (job.task_id, job.verdict)
        assert job.record.answer_problem

        path = callback_url(URL("http://x.test"), secret.encode(), "kie", job.ref).raw_path
        hook = ax.Webhook(path=path, body=json.dumps(callback("complete")).encode())
        assert 200 == await client.inbox.accept(hook)

        assert 1 == len((await job).tracks)
        assert len(api.posts) <= 1


# --- a store that fails or forgets during the POST ---------------------------------------------------------------


async def test_an_id_that_was_read_is_stored_when_the_store_is_back(api: Api, open_client: MakeClient) -> None:
    """If the store fails just after the answer, the job knows its task and ends by poll once the store is back."""
    store = ax.MemoryStore()
    api.on_post = failing(store)
    client = await open_client(store=store)

    job = await extend(client)
    wait = asyncio.create_task(job.result())
    assert "task-1" == job.task_id
    store.fail(None)
    song = await wait

    stored = await store.read(job.ref)
    assert stored is not None
    assert ("task-1", False) == (stored.index.task_id, stored.index.is_open)
    assert 1 == len(song.tracks)
    assert 1 == len(api.posts)


async def test_an_await_begun_when_the_store_is_back_finds_the_id(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """Reading an older state from the store neither makes the job forget its task nor makes it unknown."""
    store = ax.MemoryStore()
    api.on_post = failing(store)
    client = await open_client(store=store, clock=clock.clock)
    job = await extend(client)
    store.fail(None)

    with pytest.raises(ax.StageTimeoutError):
        await job.result(timeout=1e-9)  # shorter than the clock's resolution
    again = await client.job(job.ref)

    assert again == job
    assert "task-1" == job.task_id


async def test_a_refusal_while_the_store_fails_is_raised_and_stored_later(
    api: Api, open_client: MakeClient, clock: JumpClock
) -> None:
    """A submit raises its refusal although the store fails, and the key is resent as soon as the store can free it."""
    store = ax.MemoryStore()
    api.codes, api.on_post = [402], failing(store)
    client = await open_client(store=store, clock=clock.clock)
    with pytest.raises(ax.CreditsError):
        await extend(client, key="once")

    store.fail(None)
    api.on_post = None
    job = await extend(client, key="once")

    assert (2, ["task-2"]) == (len(api.posts), api.made)
    assert [ax.Verdict.REFUSED, ax.Verdict.OPEN] == [job.verdict async for job in client.jobs()]
    assert [job.ref] == [open_job.ref async for open_job in client.jobs(open=True)]


async def test_a_store_emptied_during_a_post_gets_the_job_again(api: Api, open_client: MakeClient) -> None:
    """A store that restarts empty during a POST gets the task's id and its key again."""
    store = FaultyMemory()

    async def forget(_: Api) -> None:
        await store.lose_all()

    api.on_post = forget
    client = await open_client(store=store)

    job = await extend(client, key="mine")
    again = await extend(client, key="mine")

    assert job == again
    assert "task-1" == job.task_id
    assert 1 == len((await job).tracks)
    assert 1 == len(api.posts)


async def test_a_status_answer_of_another_task_is_reported(api: Api, stack: AsyncExitStack) -> None:
    """It changes nothing, and the error of a refresh and of a wait says why."""

    class Confused(ax.Kie):
        def parse_status(self, response: ax.HttpResponse) -> tuple[Event, ...]:
            return (Progress(task_id="task-9", claimed_stage=ax.Stage.COMPLETE), *super().parse_status(response))

    provider = Confused("key", base_url=api.base, limits=ax.Limits(), pace=BRISK)
    client = await stack.enter_async_context(ax.Client(provider))
    job = await client.extend(audio_id="source", model="V5")

    with pytest.raises(ax.DecodeError, match="it names another task than task-1"):
        await job.refresh()
    with pytest.raises(ax.StageTimeoutError, match=r"its last status call said: .* another task than task-1"):
        await job.wait(ax.Stage.FIRST, timeout=0.2)
    assert ax.Stage.SUBMITTED is job.stage
