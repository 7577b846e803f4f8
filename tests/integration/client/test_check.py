"""`client.check()` finds what keeps webhooks away by sending one, over real sockets and through broken proxies."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import apsw
import pytest
import redis
from aiohttp import web
from yarl import URL

import audioext as ax
from audioext.check.reach import Reach
from audioext.clock import mint_id
from audioext.http.urls import callback_url
from audioext.sandbox import Sandbox
from audioext.webhooks.probe import probe_body
from tests.integration.client.conftest import Connect
from tests.support import proxy as broken
from tests.support.ports import free_port
from tests.support.proxy import Breakage, make_certificate, serve_proxy

SECRET = b"0123456789abcdef-secret"
LISTEN = "127.0.0.1:0"


def line(report: ax.CheckReport, name: str) -> ax.CheckLine:
    """Return the report line with that name."""
    (found,) = [each for each in report.lines if each.name == name]
    return found


def states(report: ax.CheckReport) -> dict[str, str]:
    """Return the state of each report line by name."""
    return {each.name: each.state for each in report.lines}


def kie(sandbox: Sandbox, key: str | None = None) -> ax.Kie:
    """Return a provider on the sandbox, whose callbacks also come from this machine."""
    return ax.Kie(key or sandbox.api_key, base_url=sandbox.bases["kie"])


@asynccontextmanager
async def behind(breakage: Breakage, provider: ax.Provider, prefix: str = "/hooks/audio") -> AsyncIterator[ax.Client]:
    """Open a client that listens behind a proxy, which breaks the requests it passes on."""
    async with serve_proxy(breakage) as proxy:
        port = free_port()
        proxy.target = f"http://127.0.0.1:{port}"
        url = f"{proxy.url}{prefix}"
        async with ax.Client(provider, public_url=url, listen=port, store="memory://") as client:
            yield client


async def test_a_client_where_all_is_well_passes(sandbox: Sandbox, tmp_path: Path) -> None:
    """With a working setup every line passes: the nonce comes back through the proxy, key, clock and store are fine."""
    async with serve_proxy() as proxy:
        port = free_port()
        proxy.target = f"http://127.0.0.1:{port}"
        store = f"sqlite:///{tmp_path}/jobs.db"
        async with ax.Client(kie(sandbox), public_url=f"{proxy.url}/a", listen=port, store=store) as client:
            report = await client.check()

    assert report.ok, str(report)
    assert ["name", "webhook", "latency", "body", "length", "key of kie", "clock", "store", "versions"] == [
        *states(report)
    ]
    assert {"POST"} == {passed.method for passed in proxy.seen}
    assert max(len(passed.body) for passed in proxy.seen) == 1_048_576


@pytest.mark.parametrize(
    ("breakage", "words"),
    [
        (broken.redirects, "redirects to https://other.example/hooks/audio/check/"),
        (broken.turns_into_get, "is a receiver that gets no POST (405)"),
        (broken.cuts(1_000), "a body that was changed on its way (400)"),
        (broken.rewrites, "a body that was changed on its way (400)"),
        (broken.answers(200), "answers 200 to any POST, and is not an audioext receiver"),
        (broken.answers(401), "asks for a password (401)"),
        (broken.answers(403), "forbids it (403)"),
        (broken.answers(404), "has no receiver under this path (404)"),
        (broken.answers(418), "refuses it (418)"),
        (broken.answers(502), "is a proxy that reaches no receiver (502)"),
        (broken.refuses_over(1_000), "takes no body of 2 kB (413)"),
    ],
)
async def test_a_broken_proxy_is_found(sandbox: Sandbox, breakage: Breakage, words: str) -> None:
    """The report says what a proxy does to a webhook, and how to fix it."""
    async with behind(breakage, kie(sandbox)) as client:
        report = await client.check()
        secret = client.inbox.secrets[0]

    found = line(report, "webhook")
    assert not report.ok
    assert "failed" == found.state
    assert words in found.seen
    assert found.advice
    assert "body" not in states(report)
    assert secret.hex() not in str(report)


@pytest.mark.parametrize(
    ("breakage", "state", "words"),
    [
        (broken.refuses_over(65_536), "warning", "a body of 1 MiB is refused (413)"),
        (broken.cuts(65_536), "failed", "a body of 1 MiB arrives cut off or changed"),
    ],
)
async def test_a_body_near_the_limit_has_to_come_whole(
    sandbox: Sandbox, breakage: Breakage, state: str, words: str
) -> None:
    """A proxy that passes short webhooks but refuses or truncates long ones is reported."""
    async with behind(breakage, kie(sandbox)) as client:
        report = await client.check()

    assert ("ok", state) == (line(report, "webhook").state, line(report, "body").state)
    assert words in line(report, "body").seen


async def test_no_tag_shows_where_a_proxy_quotes_what_it_was_sent(sandbox: Sandbox) -> None:
    """The report hides the tag when it quotes a redirect target that holds the nonce and its tag."""
    async with behind(broken.redirects, kie(sandbox)) as client:
        report = await client.check()

    assert "/***" in line(report, "webhook").seen


async def test_a_receiver_of_its_own_takes_its_path_with_and_without_the_prefix(sandbox: Sandbox) -> None:
    """A receiver that listens by itself accepts callbacks with and without the prefix, as proxies may strip it."""
    async with behind(broken.strips_prefix, kie(sandbox), "/audio") as client:
        assert (await client.check()).ok


@pytest.mark.parametrize(("breakage", "is_ok"), [(broken.whole, True), (broken.strips_prefix, False)])
async def test_a_mounted_receiver_needs_its_prefix(sandbox: Sandbox, breakage: Breakage, *, is_ok: bool) -> None:
    """A mounted receiver cannot be reached through a proxy that strips the prefix it is mounted under."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(serve_proxy(breakage))
        app = web.Application()
        client = ax.Client(kie(sandbox), public_url=f"{proxy.url}/audio", listen=None)
        client.receiver.add_to(app, "/audio")
        await stack.enter_async_context(client)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        proxy.target = f"http://127.0.0.1:{runner.addresses[0][1]}"
        report = await client.check()

    assert is_ok is report.ok
    assert ("ok" if is_ok else "failed") == line(report, "webhook").state


async def test_a_slow_reply_is_compared_with_the_providers_limit() -> None:
    """A reply that takes a good part of the provider's time limit is a warning, one that exceeds it a failure."""
    async with ax.Client(public_url="http://127.0.0.1:{port}", listen=LISTEN, secrets=[SECRET]) as client:
        # The first case leaves a second for a busy machine.
        for seconds, limit, name, state in ((0.5, 1.6, "latency", "warning"), (9.0, 0.3, "webhook", "failed")):
            async with serve_proxy(broken.waits(seconds)) as proxy:
                proxy.target = str(client.public_url).rstrip("/")
                reach = Reach(url=URL(proxy.url), secret=SECRET, clock=ax.Clock(), is_local=True, limit=limit)
                lines = await reach.look()
            assert [state] == [each.state for each in lines if each.name == name]


async def test_a_tunnel_that_is_down_is_reported(sandbox: Sandbox) -> None:
    """A tunnel that is down is reported, whether the connection is refused or breaks off."""
    client = ax.Client(kie(sandbox), public_url=f"http://127.0.0.1:{free_port()}", listen=None)
    silent = line(await client.check(), "webhook")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        rude = line(
            await ax.Client(kie(sandbox), public_url=f"http://127.0.0.1:{port}", listen=None).check(), "webhook"
        )

    assert "no server answers at 127.0.0.1:" in silent.seen
    assert "closed the connection without an answer" in rude.seen


async def test_another_process_with_the_same_store_answers(sandbox: Sandbox, tmp_path: Path) -> None:
    """A check works while a bot with the same store listens at the address, and says so if nobody does."""
    store = f"sqlite:///{tmp_path}/jobs.db"
    async with ax.Client(public_url="http://127.0.0.1:{port}", listen=LISTEN, store=store) as bot:
        url = str(bot.public_url)
        same = await ax.Client(kie(sandbox), public_url=url, listen=URL(url).port, store=store).check()
        other = await ax.Client(kie(sandbox), public_url=url, listen=None).check()
    alone = await ax.Client(kie(sandbox), public_url=url, listen=URL(url).port, store=store).check()

    assert same.ok, str(same)
    assert alone.ok, str(alone)
    assert "another process listens" in line(same, "listen").seen
    assert "nothing listened" in line(alone, "listen").seen
    assert "is a receiver with another secret (401)" in line(other, "webhook").seen


async def test_a_closed_client_is_opened_for_the_check_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    """On a closed client the check only opens the listener, does no other work, stores nothing, and closes it again."""
    store = f"sqlite:///{tmp_path}/jobs.db"
    async with ax.Client(kie(sandbox), store=store) as first:
        job = await first.extend(audio_id=sandbox.track_ids[0], model="V5")
    later = ax.Clock(now=lambda: ax.Clock().now() + 250.0)  # when the job's status call is due
    client = ax.Client(kie(sandbox), public_url="http://127.0.0.1:{port}", listen=LISTEN, store=store, clock=later)
    report = await client.check()
    async with ax.Client(store=store) as last:
        refs = [each.ref async for each in last.jobs()]
        deliveries = [each async for each in last.deliveries()]
        entries = await last.timeline(job.ref)

    assert report.ok, str(report)
    with pytest.raises(ax.ConfigError, match="make a new one"):
        await client.check()
    assert "<Client kie, closed>" == repr(client)
    assert ([job.ref], [], 2) == (refs, deliveries, len(entries))


async def test_a_framework_of_its_own_answers_checks() -> None:
    """A user's framework that calls `inbox.accept` answers checks: a whole body 200, another one 400, strangers 401."""
    async with ax.Client(secrets=[SECRET]) as client:
        path, ref = check_path(ax.Clock().now())
        body = probe_body(SECRET, ref, 300)
        good = await client.inbox.accept(ax.Webhook(path=path, headers={}, body=body))
        cut = await client.inbox.accept(ax.Webhook(path=path, headers={}, body=body[:-1]))
        old = await client.inbox.accept(ax.Webhook(path=check_path(1e9)[0], headers={}, body=body))
        stranger = await client.inbox.accept(ax.Webhook(path=f"/check/{ref}/{'t' * 43}", headers={}, body=body))

    assert (200, 400, 401, 401) == (good, cut, old, stranger)


def check_path(now: float) -> tuple[str, str]:
    """Return the callback path and the ref of a nonce made at *now*."""
    ref = mint_id(now)
    return callback_url(URL("http://a.test"), SECRET, "check", ref).path, ref


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/audio", "127.0.0.1 can be reached from this network alone"),
        ("http://localhost:1/audio", "localhost, which is "),
        ("https://nobody.invalid/audio", "nobody.invalid cannot be resolved"),
    ],
)
async def test_a_real_api_needs_a_public_address(url: str, words: str) -> None:
    """A private address or an unresolvable name is a failure for a real API, but not for a sandbox on this machine."""
    report = await ax.Client(public_url=url, listen=None).check()

    assert "failed" == line(report, "name").state
    assert words in line(report, "name").seen
    assert ("webhook" in states(report)) is not ("cannot be resolved" in words)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
@pytest.mark.parametrize(
    ("days", "name", "is_known", "state", "words"),
    [
        (90, "IP:127.0.0.1", True, "ok", "; the certificate is good until "),
        (3, "IP:127.0.0.1", True, "warning", "; the certificate ends on "),
        (90, "DNS:other.example", True, "failed", "the certificate of 127.0.0.1 is refused: IP address mismatch"),
        (90, "IP:127.0.0.1", False, "failed", "the certificate of 127.0.0.1 is refused: self-signed certificate"),
    ],
)
async def test_a_bad_certificate_is_a_failure(  # noqa: PLR0913 - a case has this many parts
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
    name: str,
    is_known: bool,
    state: str,
    words: str,
) -> None:
    """A certificate for another name or from an unknown issuer is a failure, one that expires soon a warning."""
    context, certificate = await asyncio.to_thread(make_certificate, tmp_path, days=days, name=name)
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serve_proxy(context=context) as proxy:
        port = free_port()
        proxy.target = f"http://127.0.0.1:{port}"
        async with ax.Client(kie(sandbox), public_url=f"{proxy.url}/a", listen=port) as client:
            report = await client.check()

    assert state == line(report, "tls").state
    assert words in line(report, "tls").seen
    assert (state != "failed") is report.ok


async def test_keys_are_tried_with_a_free_call(sandbox: Sandbox) -> None:
    """Keys are tried with a free call: a wrong, a missing and an untestable key are told apart, and none is shown."""
    wrong = ax.Vidgo("a-wrong-key-that-nobody-may-see", base_url=sandbox.bases["vidgo"])
    untried = ax.MusicGpt(sandbox.api_key, base_url=sandbox.bases["musicgpt"])
    report = await ax.Client(kie(sandbox), wrong, ax.SunoApi(), untried).check()

    assert ("ok", "failed", "warning", "ok") == tuple(
        line(report, f"key of {name}").state for name in ("kie", "vidgo", "sunoapi", "musicgpt")
    )
    assert "VIDGO_API_KEY" in line(report, "key of vidgo").advice
    assert "SUNOAPI_API_KEY" in line(report, "key of sunoapi").advice
    assert "nobody-may-see" not in str(report)


@pytest.mark.parametrize(
    ("ahead", "state", "words"),
    [
        (60.0, "warning", "s ahead of the provider's"),
        (-60.0, "warning", "s behind the provider's"),
        (3_600.0, "failed", "so signed webhooks are refused"),
    ],
)
async def test_a_clock_that_is_off_is_found(sandbox: Sandbox, ahead: float, state: str, words: str) -> None:
    """The Date header of a provider's answer shows whether our clock is right."""
    off = ax.Clock(now=lambda: ax.Clock().now() + ahead)
    report = await ax.Client(kie(sandbox), clock=off).check()

    assert state == line(report, "clock").state
    assert words in line(report, "clock").seen


@pytest.mark.parametrize("driver", ["apsw", "sqlite3"])
async def test_the_version_is_that_of_the_sqlite_that_stores_use(
    sandbox: Sandbox, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the extra it is apsw's own SQLite, which does not lose commits, else Python's."""
    if driver == "sqlite3":
        monkeypatch.setitem(sys.modules, "apsw", None)
    report = await ax.Client(kie(sandbox)).check()

    version = sqlite3.sqlite_version if driver == "sqlite3" else apsw.sqlite_lib_version()
    assert f"SQLite {version}," in line(report, "versions").seen


async def test_a_store_that_cannot_be_opened_leaves_the_rest_to_be_checked(sandbox: Sandbox, tmp_path: Path) -> None:
    """A store that cannot be opened is one failed line, and the other checks still run."""
    report = await ax.Client(kie(sandbox), store=f"sqlite:///{tmp_path}/nosuch/jobs.db").check()

    assert {"store": "failed", "key of kie": "ok", "clock": "ok", "versions": "ok"} == states(report)


async def test_every_store_is_written_and_left_as_it_was(connect: Connect) -> None:
    """The check tests whether each store is writable without changing its contents."""
    async with ax.Client(store=connect()) as client:
        report = await client.check()
        jobs = [job async for job in client.jobs()]
        deliveries = [delivery async for delivery in client.deliveries()]

    assert report.ok, str(report)
    assert {"store"} <= {each.name for each in report.lines}
    assert ([], []) == (jobs, deliveries)


async def test_a_store_that_cannot_be_written_is_a_failed_line(sandbox: Sandbox, tmp_path: Path) -> None:
    """A file that was deleted under an open client is reported as a store that cannot be written."""
    async with ax.Client(kie(sandbox), store=f"sqlite:///{tmp_path}/jobs.db") as client:
        for each in tmp_path.glob("jobs.db*"):
            each.rename(tmp_path / f"gone-{each.name}")
        report = await client.check()
        for each in tmp_path.glob("gone-*"):
            each.rename(tmp_path / each.name.removeprefix("gone-"))

    assert "failed" == line(report, "store").state


async def test_a_server_that_only_reads_is_a_failed_line(valkey: Path) -> None:
    """A server that answers but takes no writes, such as a replica, is reported as a store that cannot be written."""
    async with ax.Client(store=f"unix://{valkey}?prefix=only-reads", secrets=["x" * 32]) as client:
        with redis.Redis(unix_socket_path=str(valkey)) as server:
            server.config_set("min-replicas-to-write", 1)
            try:
                report = await client.check()
            finally:
                server.config_set("min-replicas-to-write", 0)

    assert ("failed", True) == (line(report, "store").state, "NOREPLICAS" in line(report, "store").seen)


async def test_an_address_that_cannot_be_listened_on_is_a_failed_line(sandbox: Sandbox) -> None:
    """An address that the receiver cannot listen on is one failed line."""
    report = await ax.Client(kie(sandbox), public_url="http://127.0.0.1:1", listen="203.0.113.9:8080").check()

    seen = line(report, "listen").seen
    assert ("cannot listen on 203.0.113.9:8080: ", 1) == (seen[:35], seen.count("203.0.113.9"))


def test_a_provider_cannot_have_the_name_of_the_check() -> None:
    """A provider cannot have the reserved name of the check, since its callbacks would be taken for checks."""
    with pytest.raises(ax.ConfigError, match="'check'"):
        ax.Client(ax.Kie(name="check"))
