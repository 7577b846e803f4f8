"""The types that users get: mypy and pyright check this file, and nothing in it is awaited."""

# An ignore comment marks an expected error, and one without an error is reported as unused.
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, assert_type

import audioext as ax

ROOT = Path(__file__).parents[2]

PROVIDERS: tuple[ax.Provider, ...] = (
    ax.Kie("key", webhook_key="hook"),
    ax.KieJobs(name="second"),
    ax.SunoApi(base_url="https://api.example.org", grace=900.0),
    ax.Vidgo(limits=ax.Limits(parallel=1)),
    ax.MusicGpt(pace=ax.Pace(first=10.0, every=30.0)),
)
"""Type checkers accept each class of the package as a provider."""


def opens() -> None:
    """A client takes providers, and a store as a URL or as an object."""
    assert_type(ax.Client(*PROVIDERS, public_url="https://hooks.test", listen=None, store="memory://"), ax.Client)
    assert_type(ax.Client(ax.Kie(), store=ax.MemoryStore(), clock=ax.Clock()), ax.Client)
    ax.Client(ax.Kie)  # type: ignore[arg-type]  # the class instead of its instance
    ax.Client("kie")  # type: ignore[arg-type]  # no provider
    ax.Client(publicurl=None)  # type: ignore[call-arg]  # a misspelled setting
    assert_type(ax.Client.from_env(ax.Kie(), file="my.toml", public_url=None), ax.Client)
    ax.Client.from_env(publicurl=None)  # type: ignore[call-arg]  # as above


async def checks(client: ax.Client) -> None:
    """A check returns a report of lines."""
    report = await client.check()
    assert_type(report, ax.CheckReport)
    assert_type(report.lines, tuple[ax.CheckLine, ...])
    assert_type(report.ok, bool)
    assert_type(report.lines[0].state, Literal["ok", "warning", "failed"])


def counts(client: ax.Client) -> None:
    """Statistics are typed down to their names, so that a misspelled one is an error."""
    stats = client.stats()
    assert_type(stats, ax.Stats)
    assert_type(stats.submits["kie", "accepted"], int)
    assert_type(stats.stages["kie", ax.Stage.FIRST], ax.Histogram)
    assert_type(stats.stages["kie", ax.Stage.FIRST].mean, float)
    assert_type(stats.ended["kie", ax.Verdict.FAILED], int)
    assert_type(stats.open_jobs, int)
    stats.webhooks["kie", "aplied"]  # type: ignore[index]  # an unknown outcome


def shows(sent: int, size: int | None) -> None:
    """Show the progress of an upload."""


SHOWS: ax.UploadProgress = shows
CONFIRM: ax.Confirm = "always"
SETTINGS: ax.ClientOptions = {"confirm": CONFIRM}


async def submits(client: ax.Client) -> None:
    """Both operations take keyword fields and return a job, and an unknown field is an error."""
    job = await client.extend(audio_id="e231", model="V5", continue_at=60, style="Classical", vocal_gender="f")
    assert_type(job, ax.Job)
    assert_type(await client.extend(file=Path("a.wav"), provider="vidgo", key="k", meta={"chat": 42}), ax.Job)
    assert_type(await client.add_instrumental(url="https://a.test/a.mp3", title="Rain", tags="piano"), ax.Job)
    assert_type(await client.submit(ax.Extend(url="https://a.test/a.mp3"), key="k"), ax.Job)
    assert_type(await client.run(ax.AddInstrumental(file="a.wav"), timeout=900), ax.Song)
    assert_type(await client.submit(ax.Extend(url="https://a.test"), fallback=("vidgo",), meta=Chat(42)), ax.Job)
    options: ax.ExtendOptions = {"url": "https://a.test", "model": "V5"}
    assert_type(await client.extend(**options, fallback=["vidgo"]), ax.Job)
    meta: ax.Meta = Chat(42)
    more: ax.SubmitOptions = {"key": "k", "meta": meta, "progress": shows, "permit_timeout": 5.0}
    assert_type(await client.run(ax.Extend(url="https://a.test"), **more), ax.Song)
    await client.extend("voice.mp3")  # type: ignore[arg-type]  # its argument name has to say if it is a path, a URL or an id
    await client.extend(audioid="e231")  # type: ignore[call-arg]  # a misspelled field
    await client.extend(continue_at="60")  # type: ignore[arg-type]  # seconds are a number
    await client.extend(vocal_gender="alto")  # type: ignore[arg-type]  # one of a few words
    await client.add_instrumental(audio_id="e231")  # type: ignore[call-arg]  # the other operation's field


async def waits(job: ax.Job) -> None:
    """A job gives its song, and its stages give events, one at a time or as an iteration."""
    assert_type(await job, ax.Song)
    assert_type(await job.result(timeout=900), ax.Song)
    assert_type(await job.text, ax.StageEvent)
    assert_type(await job.first, ax.StageEvent)
    assert_type(await job.complete, ax.StageEvent)
    assert_type(await job.wait(ax.Stage.FIRST, timeout=240), ax.StageEvent)
    assert_type(await job.refresh(), ax.Job)
    async for event in job:
        assert_type(event, ax.StageEvent)
        assert_type(event.stage, ax.Stage)
        assert_type(event.source, Literal["webhook", "poll", "implied"])
        assert_type(event.at, datetime)
        assert_type(event.job, ax.Job)
        assert_type(event.is_latest, bool)


async def looks_at(job: ax.Job) -> None:
    """A job's facts are typed, and are `None` if they may be missing."""
    assert_type(job.ref, str)
    assert_type(job.provider, str)
    assert_type(job.task_id, str | None)
    assert_type(job.key, str | None)
    assert_type(job.stage, ax.Stage | None)
    assert_type(job.verdict, ax.Verdict)
    assert_type(job.tracks, tuple[ax.Track, ...])
    assert_type(job.failure, ax.Failure | None)
    assert_type(job.record, ax.Record)
    assert_type(job.meta, Mapping[str, object])
    assert_type(job.created_at, datetime)


async def goes_on_with(song: ax.Song, client: ax.Client) -> None:
    """A track makes the next request with the fields of an extension."""
    request = song.tracks[0].extend(continue_at=90, prompt="more")
    assert_type(request, ax.Extend)
    assert_type(await client.run(request), ax.Song)
    assert_type(await song.save("out/"), tuple[Path, ...])
    assert_type(await song.recover(), ax.Song)
    assert_type(song.source_name, str | None)
    assert_type(await song.tracks[0].read(), bytes)
    assert_type(song.tracks[0].stream(), AsyncIterator[bytes])
    assert_type(song.tracks[0].audio_url, str | None)
    assert_type(song.tracks[0].duration, float | None)
    assert_type(song.tracks[0].timed_lyrics, tuple[ax.TimedLine, ...] | None)
    song.tracks[0].extend(continueAt=90)  # type: ignore[call-arg]  # the API's spelling


async def finds(client: ax.Client) -> None:
    """Jobs are found one by one or listed, and credits are a number."""
    assert_type(await client.job("ref"), ax.Job)
    assert_type(client.jobs(open=True, meta={"chat": 42}), AsyncIterator[ax.Job])
    async for job in client.jobs():
        assert_type(job, ax.Job)
    assert_type(await client.credits(), float)
    assert_type(await client.credits("kie"), float)
    assert_type(await client.inbox.accept(ax.Webhook(path="/kie/ref/tag", headers={}, body=b"{}")), int)
    async with client as same:
        assert_type(same, ax.Client)
    assert_type(await client.open(), ax.Client)
    receiver: ax.Receiver = client.receiver
    store: ax.Store = client.store
    async for delivery in client.deliveries():
        assert_type(delivery, ax.Delivery)
    del receiver, store


@dataclass(frozen=True)
class Chat:
    """A user's meta class."""

    chat: int


class TellingEvent:
    """A handler object with attributes, which the decorator must keep."""

    chat = 42

    async def __call__(self, event: ax.StageEvent) -> None:
        """Take an event."""


def handles(client: ax.Client, telling: TellingEvent) -> None:
    """A decorated handler keeps its type, and one with wrong parameters is an error."""

    async def tell(event: ax.StageEvent) -> None:
        """Take an event."""

    async def sorry(failure: ax.Failure) -> None:
        """Take a failure."""

    def not_async(event: ax.StageEvent) -> None:
        """Take an event without returning an awaitable."""

    async def with_chat(event: ax.StageEvent, chat: Chat) -> None:
        """Take an event and its meta."""

    async def sorry_with_chat(failure: ax.Failure, chat: Chat) -> None:
        """Take a failure and its meta."""

    assert_type(client.on(ax.Stage.FIRST)(telling), TellingEvent)
    client.on(ax.Stage.FIRST, meta=Chat)(with_chat)
    client.on_failure(meta=Chat)(sorry_with_chat)
    as_before: Callable[[ax.StageEvent], Awaitable[None]] = client.on(ax.Stage.FIRST)(tell)
    failing: Callable[[ax.Failure], Awaitable[None]] = client.on_failure(sorry)
    del as_before, failing
    client.on(ax.Stage.FIRST)(sorry)  # type: ignore[type-var]  # a failure handler for a stage
    client.on(ax.Stage.FIRST)(not_async)  # type: ignore[type-var]  # not awaitable
    client.on_failure(tell)  # type: ignore[type-var]  # a stage handler for failures
    client.on(ax.Stage.FIRST)(with_chat)  # type: ignore[type-var]  # the class of the meta is not given
    client.on(ax.Stage.FIRST, meta=int)(with_chat)  # type: ignore[arg-type]  # another class


def fails_with(error: Exception) -> None:
    """Each error has its fields, and the bases by which it can be caught."""
    if isinstance(error, ax.RateLimitError):
        assert_type(error.retry_after, float | None)
    if isinstance(error, ax.ProviderError):
        assert_type(error.provider, str)
        assert_type(error.http_status, int | None)
        assert_type(error.code, str | None)
        assert_type(error.message, str)
        assert_type(error.retryable, bool)
        assert_type(error.charged, bool | None)
    if isinstance(error, ax.RequestError):
        assert_type(error.problems, tuple[ax.Problem, ...])
    if isinstance(error, ax.JobFailedError):
        assert_type(error.job, ax.Job)
        assert_type(error.reason, ax.FailureReason)
        assert_type(error.charged, bool | None)
        assert_type(error.tracks, tuple[ax.Track, ...])
    if isinstance(error, ax.SubmitUnknownError):
        assert_type(error.job, ax.Job)
    if isinstance(error, ax.DecodeError):
        assert_type(error.paths, tuple[str, ...])
    if isinstance(error, ax.WebhookError):
        assert_type(error.http_status, int)
    if isinstance(error, ax.DownloadError):
        assert_type(error.paths, tuple[Path, ...])


def is_caught(late: ax.StageTimeoutError, refused: ax.AuthError, closed: ax.ClientClosedError) -> None:
    """Errors can be caught by the base that says who is at fault, or by Python's own."""
    in_time: TimeoutError = late
    of_the_job: tuple[ax.JobError, ...] = (late, closed)
    of_theirs: ax.ProviderError = refused
    of_ours: tuple[ax.AudioextError, ...] = (*of_the_job, of_theirs)
    del in_time, of_ours


def test_both_type_checkers_read_this_file() -> None:
    """The checks of every change include this file, and the names it uses exist at run time too."""
    tools: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]

    assert "tests" in tools["mypy"]["files"]
    assert "tests/typing" in tools["pyright"]["include"]
    assert all(isinstance(provider, ax.Provider) for provider in PROVIDERS)
