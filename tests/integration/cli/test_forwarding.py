"""`audioext listen --forward-to` sends every stage and failure to an app, signed and at least once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest
from aiohttp import web
from attrs import define, field
from standardwebhooks import Webhook

import audioext as ax
from audioext.cli import trigger
from audioext.cli.commands import TriggerEvent
from audioext.cli.execution import ForwardError
from audioext.cli.listening import open_forwarder
from audioext.sandbox import Sandbox
from tests.integration.cli.conftest import HOOKS, STORE, TRACK, Invoke, Serve, aside, short_sandbox
from tests.support.clock import JumpClock, soon

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STAGES = ["job.text", "job.first", "job.complete"]
DAY_SECONDS = 86_400.0


@define(kw_only=True, eq=False)
class App:
    """An app that verifies events with the Standard Webhooks library; *answers* are its first statuses."""

    port: int
    answers: list[int] = field(factory=list)
    usual: int = 204
    tries: list[str] = field(factory=list)
    events: list[dict[str, Any]] = field(factory=list)
    ended: asyncio.Event = field(factory=asyncio.Event)

    @property
    def url(self) -> str:
        """The app's URL for events."""
        return f"http://127.0.0.1:{self.port}/hooks"

    async def take(self, request: web.Request) -> web.Response:
        """Answer with the planned status, and keep the events that it accepts."""
        event = Webhook(SECRET).verify(await request.read(), dict(request.headers))
        self.tries.append(request.headers["webhook-id"])
        status = self.answers.pop(0) if self.answers else self.usual
        if status == self.usual == 204:
            self.events.append(event)
            if event["type"] in {"job.complete", "job.failed"}:
                self.ended.set()
        return web.Response(status=status)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[App]:
        """Serve."""
        app = web.Application()
        app.router.add_post("/hooks", self.take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield self
        finally:
            await runner.cleanup()


@pytest.fixture
def app(unused_tcp_port: int) -> App:
    """Return an app that is not running."""
    return App(port=unused_tcp_port)


@pytest.fixture
def clock() -> JumpClock:
    """Return a clock that skips waits."""
    return JumpClock()


@asynccontextmanager
async def forwarding(app: App, sandbox: Sandbox, clock: JumpClock) -> AsyncIterator[ax.Client]:
    """Return an open client that forwards its events to *app*."""
    kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"])
    client = ax.Client(
        kie,
        public_url="http://127.0.0.1:{port}",
        listen="127.0.0.1:0",
        clock=clock.clock,
        store="sqlite:///jobs.db",
    )
    async with open_forwarder(app.url, SECRET) as forwarder:
        attrs.evolve(forwarder, now=clock.now).register(client)
        async with client:
            yield client


async def test_every_stage_is_forwarded_in_order(app: App, clock: JumpClock) -> None:
    """Each event has its own id, the submit's meta, and the tracks known at that time."""
    running = app.running()
    async with running, short_sandbox(faults=("duplicate",)) as sandbox, forwarding(app, sandbox, clock) as client:
        job = await client.extend(audio_id=TRACK, model="V5", meta={"chat": 42})
        await app.ended.wait()

    assert STAGES == [event["type"] for event in app.events]
    assert [f"msg_{job.ref}_{name}" for name in ("text", "first", "complete")] == app.tries
    assert {(job.ref, "kie", 42)} == {
        (event["data"]["ref"], event["data"]["provider"], event["data"]["meta"]["chat"]) for event in app.events
    }
    assert 2 == len([track for track in app.events[-1]["data"]["tracks"] if track["audio_url"]])


async def test_an_app_that_was_down_gets_the_events_later(app: App, clock: JumpClock) -> None:
    """An app that is down for hours and then overloaded still gets all events, in order and with the same ids."""
    app.answers = [503, 429, 302]
    async with short_sandbox() as sandbox, forwarding(app, sandbox, clock) as client:
        job = await client.extend(audio_id=TRACK, model="V5")
        await clock.run(job.result())
        for _ in range(8 * 6):
            await clock.advance(600)
        async with app.running():
            await clock.run(app.ended.wait())

    # An event may come twice if the clock jumped past a claim's expiry.
    assert STAGES == list(dict.fromkeys(event["type"] for event in app.events))
    assert [f"msg_{job.ref}_text"] * 4 == app.tries[:4]
    assert () == job.record.handler_faults


@pytest.mark.parametrize(("code", "charged"), [(501, None), (531, False)])
async def test_a_forwarded_failure_says_whether_it_was_charged(
    app: App, clock: JumpClock, code: int, charged: bool | None
) -> None:
    """A failure event has the provider's code and message, and whether the task was charged."""
    running, faults = app.running(), (f"error=complete:{code}",)
    async with running, short_sandbox(faults=faults) as sandbox, forwarding(app, sandbox, clock) as client:
        await client.extend(audio_id=TRACK, model="V5")
        await app.ended.wait()

    failed = app.events[-1]
    assert ("job.failed", str(code), charged) == (failed["type"], failed["data"]["code"], failed["data"]["charged"])
    assert failed["data"]["message"]


async def outcome_of(call: Awaitable[None]) -> BaseException | None:
    """Return what a call raised, if anything."""
    (outcome,) = await asyncio.gather(call, return_exceptions=True)
    return outcome


async def test_an_event_is_retried_for_a_day_with_growing_pauses(app: App) -> None:
    """After each refusal the pause grows, and an event is given up about a day after it happened."""
    app.usual = 500
    event = ax.StageEvent(
        stage=ax.Stage.TEXT, tracks=(), source="webhook", at=datetime.now(UTC), ref="r" * 24, provider="kie"
    )
    pauses: list[float] = []
    async with app.running(), open_forwarder(app.url, SECRET) as forwarder:
        told = attrs.evolve(forwarder, now=lambda: event.at.timestamp() + sum(pauses))
        while isinstance(outcome := await outcome_of(told.tell(event)), ax.RetryLater):
            pauses.append(outcome.retry_after)

    assert isinstance(outcome, ForwardError)
    assert sorted(pauses) == pauses
    assert DAY_SECONDS <= sum(pauses) < 1.5 * DAY_SECONDS
    assert len(app.tries) < 200


async def test_an_undelivered_event_is_listed_and_can_be_sent_again(app: App, clock: JumpClock, invoke: Invoke) -> None:
    """An event that its app never accepts is given up; `jobs --undelivered` lists it, and `forward` sends it again."""
    app.usual = 500
    async with app.running(), short_sandbox() as sandbox:
        async with forwarding(app, sandbox, clock) as client:
            job = await client.extend(audio_id=TRACK, model="V5")
            await job.result()
            await clock.run(soon(lambda: truth(app.tries)))
            await clock.advance(DAY_SECONDS / 2)
            await clock.run(soon(lambda: truth(app.tries[1:])))
            assert () == job.record.handler_faults
            await clock.advance(DAY_SECONDS)
            await clock.run(soon(lambda: truth(job.record.handler_faults[2:])))
        listed = await aside(invoke, "jobs", "--undelivered", "--json", *STORE)
        refused = await aside(invoke, "forward", job.ref, "--to", app.url, "--forward-secret", SECRET, *STORE)
        app.usual = 204
        sent = await aside(invoke, "forward", job.ref, "--to", app.url, "--forward-secret", SECRET, *STORE, "--json")

    assert job.ref == listed.json["ref"]
    assert "text: ForwardError: job.text: the app answered 500" in listed.json["handler_faults"]
    assert ("answered 500", 3) == (refused.err.strip()[-12:], refused.code)
    assert STAGES == sent.json["events"] == [event["type"] for event in app.events]


async def truth(found: Sequence[str]) -> bool:
    """Return whether *found* has any item."""
    return bool(found)


async def test_a_listener_forwards_events_to_an_app(
    app: App, serve: Serve, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command forwards the events of another process's jobs to an app that verifies them."""
    async with app.running(), short_sandbox() as sandbox:
        monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
        listener = serve(
            "listen", *HOOKS, *STORE, "--json", "--forward-to", app.url, env={"AUDIOEXT_FORWARD_SECRET": SECRET}
        )
        ready = json.loads(await asyncio.to_thread(listener.stdout.readline))
        api = ("--base-url", sandbox.bases["kie"], "--public-url", ready["public_url"], "--listen", "none")
        song = await aside(invoke, "extend", TRACK, "--model", "V5", *STORE, *api, "--no-save", "--json")
        await app.ended.wait()

    assert (0, STAGES) == (song.code, [event["type"] for event in app.events])


async def test_a_listener_serves_an_account_that_only_a_worker_has(app: App, serve: Serve, invoke: Invoke) -> None:
    """`listen`, `jobs` and `wait` read the jobs of a provider whose name begins with that of its API."""
    async with app.running(), short_sandbox() as sandbox:
        listener = serve(
            "listen", *HOOKS, *STORE, "--json", "--forward-to", app.url, env={"AUDIOEXT_FORWARD_SECRET": SECRET}
        )
        ready = json.loads(await asyncio.to_thread(listener.stdout.readline))
        acme = ax.Kie(sandbox.api_key, name="kie-acme", base_url=sandbox.bases["kie"])
        async with ax.Client(acme, public_url=ready["public_url"], listen=None, store=STORE[1]) as worker:
            job = await worker.extend(audio_id=TRACK, model="V5")
            event = await job.complete
            await app.ended.wait()
        listed = await aside(invoke, "jobs", *STORE, "--json")
        waited = await aside(invoke, "wait", job.ref, *STORE, "--no-save", "--json")
        hinted = await aside(invoke, "wait", job.ref, *STORE, "--no-save")

    assert "--provider kie " in hinted.err, hinted.out
    assert ("webhook", STAGES) == (event.source, [event["type"] for event in app.events])
    assert [("kie-acme", "complete")] * 2 == [(each.json["provider"], each.json["state"]) for each in (listed, waited)]


async def test_a_stage_can_be_triggered_by_hand(app: App, clock: JumpClock, invoke: Invoke) -> None:
    """While the sandbox holds a job, `trigger` plays its stages one by one, and the app gets each."""
    async with app.running(), short_sandbox() as sandbox, forwarding(app, sandbox, clock) as client:
        sandbox.hold()
        job = await client.extend(audio_id=TRACK, model="V5")
        for stage in (ax.Stage.TEXT, ax.Stage.FIRST, ax.Stage.COMPLETE):
            played = await aside(invoke, "trigger", f"kie.{stage.name.lower()}", "--job", job.ref, *STORE, "--json")
            await clock.run(job.wait(stage))
            assert (0, stage, 200) == (played.code, job.stage, played.json["status"])
        again = await aside(invoke, "trigger", "kie.first", "--job", job.ref, *STORE)
        assert f"job {job.ref} received first; nothing changed, it is at complete\n" == again.out
        await clock.run(app.ended.wait())
        other = await client.extend(audio_id=TRACK, model="V5")
        failed = await aside(invoke, "trigger", "kie.error", "--job", other.ref, *STORE)
        assert f"job {other.ref} received error\n" == failed.out
        with pytest.raises(ax.JobFailedError):
            await clock.run(other.result())

    assert STAGES == [event["type"] for event in app.events][: len(STAGES)]
    assert app.events[1]["data"]["tracks"][0]["id"] in {track["id"] for track in app.events[2]["data"]["tracks"]}


def test_every_stage_that_can_be_made_up_is_a_choice() -> None:
    """The parser's choices, which a shell completes, are the stages of the APIs that `trigger` can play."""
    assert {f"{api}.{stage}" for api in trigger.FORMS for stage in trigger.STAGES} == {*get_args(TriggerEvent)}


async def test_only_a_job_at_a_sandbox_can_be_triggered(invoke: Invoke, unused_tcp_port: int) -> None:
    """An event of another API than the job's, and a job of a real API, are refused."""
    elsewhere = f"http://0.0.0.0:{unused_tcp_port}"  # nobody answers there, and it is not a loopback address
    async with ax.Client(ax.Kie("key", base_url=elsewhere), store="sqlite:///jobs.db") as client:
        with pytest.raises(ax.ProviderDownError):
            await client.extend(audio_id=TRACK, model="V5")
        (job,) = [each async for each in client.jobs()]
    for event, words in (
        ("kie.never", 'Invalid value "kie.never" for EVENT. Choose from: "kie.text", '),
        ("vidgo.first", "Choose from: "),
        ("sunoapi.first", "was not submitted to sunoapi at a sandbox"),
        ("kie.first", "was not submitted to kie at a sandbox"),
    ):
        ended = await aside(invoke, "trigger", event, "--job", job.ref, *STORE)
        assert 2 == ended.code
        assert words in ended.err


def test_the_forward_secret_may_be_in_a_file(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret is read from a mounted file, and a wrong one is refused before anything is sent."""
    (folder / "secret").write_text("whsec_\n")
    monkeypatch.setenv("AUDIOEXT_FORWARD_SECRET_FILE", "secret")
    ended = invoke("listen", *HOOKS, "--store", "memory://", "--forward-to", "https://app.example.org")

    assert 2 == ended.code
    assert "whsec_ and Base64" in ended.err


@pytest.mark.parametrize(
    ("to", "secret", "words"),
    [
        ("app.example.org", SECRET, "not 'app.example.org'"),
        ("https://app.example.org", None, "AUDIOEXT_FORWARD_SECRET"),
        ("https://app.example.org", "whsec_", "whsec_ and Base64"),
        ("https://app.example.org", "whsec_x", "whsec_ and Base64"),
        ("https://app.example.org", "abc", "whsec_ and Base64"),
        ("https://app.example.org", SECRET.removeprefix("whsec_"), "whsec_ and Base64"),
        ("https://app.example.org", SECRET[:-4], "whsec_ and Base64 of 24 bytes or more"),
    ],
)
def test_a_listener_with_a_wrong_url_or_secret_does_not_start(
    invoke: Invoke, to: str, secret: str | None, words: str
) -> None:
    """A listener that forwards with a wrong URL, a wrong secret or none does not start."""
    given = () if secret is None else ("--forward-secret", secret)
    ended = invoke("listen", *HOOKS, "--store", "memory://", "--forward-to", to, *given)

    assert 2 == ended.code
    assert words in ended.err
