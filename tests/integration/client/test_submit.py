"""Submitting: sent once, refused before anything is spent, and never lost when the answer is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import audioext as ax
from audioext.sandbox import Sandbox

MakeSandbox = Callable[..., Awaitable[Sandbox]]
MakeClient = Callable[..., Awaitable[ax.Client]]
Providers = Callable[[Sandbox], dict[str, ax.Provider]]


async def test_a_lost_answer_is_adopted_by_its_callback(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """When the answer is lost nothing is resent, submit returns the job, and the same await completes."""
    sandbox = await make_sandbox(faults=["lose_response"])
    client = await make_client(sandbox)

    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    song = await job

    assert 2 == len(song.tracks)
    assert 1 == len(sandbox.submissions)


async def test_a_lost_answer_without_callbacks_is_unknown_at_once(
    make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """Poll-only, a lost answer has no grace period: the wait says so and holds the job."""
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


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (401, ax.AuthError),
        (402, ax.CreditsError),
        (422, ax.ProviderError),
        (451, ax.SourceError),
    ],
)
async def test_a_refusal_costs_nothing_and_leaves_nothing(
    code: int, error: type[ax.ProviderError], make_sandbox: MakeSandbox, make_client: MakeClient
) -> None:
    """A refused submit raises its typed error, says that nothing was charged, and leaves no job."""
    sandbox = await make_sandbox(faults=[f"code={code}"])
    client = await make_client(sandbox)

    with pytest.raises(error) as caught:
        await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="once")

    assert (str(code), False) == (caught.value.code, caught.value.charged)
    assert [] == [job.ref async for job in client.jobs()]


async def test_a_refused_key_may_be_used_again(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """After a refusal the same key submits anew; after a success it returns the same job."""
    sandbox = await make_sandbox(faults=["code=402*1"])
    client = await make_client(sandbox)
    with pytest.raises(ax.CreditsError):
        await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="once")

    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="once")
    again = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="once")

    assert job is again
    assert 2 == len(sandbox.submissions)


async def test_one_key_is_one_task_however_many_submit_it(sandbox: Sandbox, make_client: MakeClient) -> None:
    """Ten concurrent submits with one key make one POST and one job."""
    client = await make_client(sandbox)

    jobs = await asyncio.gather(
        *(client.extend(audio_id=sandbox.track_ids[0], model="V5", key="chat:7") for _ in range(10))
    )

    assert 1 == len({job.ref for job in jobs})
    assert 1 == len(sandbox.submissions)


async def test_a_key_that_is_taken_by_another_request_is_told(
    sandbox: Sandbox, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The job of the first request is returned, as promised; the second one's difference is a warning."""
    client = await make_client(sandbox)
    first = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="chat:8")

    again = await client.extend(audio_id=sandbox.track_ids[0], model="V5", key="chat:8")
    assert [] == [record for record in caplog.records if "another request" in record.getMessage()]
    other = await client.extend(audio_id=sandbox.track_ids[1], model="V5", key="chat:8")

    assert {first.ref} == {again.ref, other.ref}
    assert [f"key 'chat:8': it has job {first.ref} already, which was for another request"] == [
        record.getMessage() for record in caplog.records if "another request" in record.getMessage()
    ]


@pytest.mark.parametrize("key", ["", "x" * 513, "half a pair: \ud800"])
async def test_a_key_that_no_store_can_keep_is_refused(sandbox: Sandbox, make_client: MakeClient, key: str) -> None:
    """Before anything is sent; and no store is asked for such a ref."""
    client = await make_client(sandbox)

    with pytest.raises(ax.RequestError, match="key"):
        await client.extend(audio_id=sandbox.track_ids[0], model="V5", key=key)
    with pytest.raises(ax.RequestError, match="holds no job"):
        await client.job("\ud800")
    assert () == sandbox.submissions


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


async def test_all_problems_are_told_at_once_and_nothing_is_sent(sandbox: Sandbox, make_client: MakeClient) -> None:
    """General problems and the provider's own come in one error, in the user's field names."""
    client = await make_client(sandbox)

    with pytest.raises(ax.RequestError) as caught:
        await client.extend(
            audio_id="x",
            model="V4",
            prompt="p" * 3001,
            style_weight=1.5,
            continue_at=-1,
            num_outputs=2,
            vocal_gender="neutral",
        )

    fields = {problem.field for problem in caught.value.problems}
    assert {"prompt", "style", "title", "style_weight", "continue_at", "num_outputs", "vocal_gender"} <= fields
    assert () == tuple(sandbox.submissions)


async def test_a_missing_file_is_told_before_anything_is_sent(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A local file that is not there is a problem of the request."""
    client = await make_client(sandbox)

    with pytest.raises(ax.RequestError, match="there is no file"):
        await client.extend(file="not-there.wav", model="V5", continue_at=1)

    assert () == tuple(sandbox.submissions)


async def test_a_local_files_duration_bounds_continue_at(
    sandbox: Sandbox, make_client: MakeClient, voice_file: Path
) -> None:
    """The file's own duration is read, so a continue_at beyond its end is refused."""
    client = await make_client(sandbox)

    with pytest.raises(ax.RequestError, match="below the source's duration"):
        await client.extend(file=voice_file, model="V5", continue_at=60)


async def test_a_chain_knows_its_provider_and_model(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A track's own extend goes to its provider, with the model it was made with."""
    client = await make_client(sandbox)
    song = await client.run(ax.Extend(audio_id=sandbox.track_ids[0], model="V5"))

    longer = await client.run(
        song.tracks[0].extend(continue_at=2, prompt="more", style="Piano", title="Coda"), timeout=20
    )

    assert 2 == len(longer.tracks)
    assert {("kie", "V5")} == {(track.provider, track.model) for track in longer.tracks}


async def test_two_hundred_submits_stay_inside_the_limit(
    make_sandbox: MakeSandbox, make_client: MakeClient, providers: Providers
) -> None:
    """A burst of 200 submits passes a sandbox that enforces 20 in every window, without one refusal."""
    sandbox = await make_sandbox(submit_limit=20, submit_window_seconds=0.2)
    limits = ax.Limits(submits=20, per=0.2)
    client = await make_client(
        sandbox, ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], limits=limits), poll=True
    )

    jobs = await asyncio.gather(*(client.extend(audio_id=sandbox.track_ids[0], model="V5") for _ in range(200)))

    assert 200 == len({job.task_id for job in jobs if job.task_id})
    assert {200} == {submission.code for submission in sandbox.submissions}


async def test_parallel_jobs_wait_for_a_free_place(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """With one parallel job allowed, the next is sent when the one before is final."""
    sandbox = await make_sandbox(parallel_limit=1)
    provider = ax.MusicGpt(
        sandbox.api_key,
        base_url=sandbox.bases["musicgpt"],
        limits=ax.Limits(parallel=1),
        pace=ax.Pace(first=0.01, every=0.02),
    )
    client = await make_client(sandbox, provider)

    songs = await asyncio.gather(*(client.run(ax.Extend(url=sandbox.voice_url, continue_at=2)) for _ in range(3)))

    assert [2, 2, 2] == [len(song.tracks) for song in songs]
    assert 3 == len(sandbox.submissions)


async def test_no_permit_in_time_sends_nothing(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """A submit whose turn does not come raises RateLimitError, with no record and no POST."""
    sandbox = await make_sandbox()
    provider = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], limits=ax.Limits(submits=1, per=600))
    client = await make_client(sandbox, provider, permit_timeout=0.05)
    first = await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    with pytest.raises(ax.RateLimitError, match="no permit"):
        await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    assert [first.ref] == [job.ref async for job in client.jobs()]
    assert 1 == len(sandbox.submissions)


async def test_nothing_listening_means_nothing_sent(make_client: MakeClient, unused_tcp_port: int) -> None:
    """When no connection can be made, the error says that nothing was charged and no job stays."""
    provider = ax.Kie("key", base_url=f"http://127.0.0.1:{unused_tcp_port}")
    async with ax.Client(provider) as client:
        with pytest.raises(ax.ProviderDownError) as caught:
            await client.extend(audio_id="a", model="V5")

        assert caught.value.charged is False
        assert [] == [job.ref async for job in client.jobs()]


async def test_a_missing_key_is_told_before_anything_is_sent(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an API key the error names the environment variable."""
    monkeypatch.delenv("KIE_API_KEY", raising=False)
    async with ax.Client(ax.Kie(base_url=sandbox.bases["kie"])) as client:
        with pytest.raises(ax.ConfigError, match="KIE_API_KEY"):
            await client.extend(audio_id="a", model="V5")


async def test_the_key_comes_from_the_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment is used where none is given."""
    monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
    async with ax.Client(ax.Kie(base_url=sandbox.bases["kie"])) as client:
        assert await client.credits() > 0


async def test_a_rehosted_url_goes_through_the_providers_upload(sandbox: Sandbox, make_client: MakeClient) -> None:
    """`rehost=True` sends a foreign URL through the url-upload, and the task gets the uploaded copy."""
    client = await make_client(sandbox)

    song = await client.run(ax.Extend(url=sandbox.voice_url, model="V5", continue_at=2, rehost=True))

    assert 2 == len(song.tracks)
    (submission,) = sandbox.submissions
    assert sandbox.voice_url not in str(submission)


async def test_upload_progress_is_told_in_bytes(sandbox: Sandbox, make_client: MakeClient, voice_file: Path) -> None:
    """The progress callback ends at the file's size."""
    client = await make_client(sandbox)
    told: list[tuple[int, int | None]] = []

    await client.extend(
        file=voice_file, model="V5", continue_at=1, progress=lambda so_far, in_all: told.append((so_far, in_all))
    )

    size = voice_file.stat().st_size
    assert (size, size) == told[-1]


async def test_a_submit_needs_an_open_client(sandbox: Sandbox) -> None:
    """Before `async with` and after it, a submit says what to do."""
    client = ax.Client(ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"]))
    with pytest.raises(ax.ConfigError, match="async with"):
        await client.extend(audio_id="a", model="V5")
    async with client:
        pass
    with pytest.raises(ax.ConfigError, match="async with"):
        await client.extend(audio_id="a", model="V5")
