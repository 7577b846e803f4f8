"""The live page over real HTTP: who may see it, what it shows, and that it only shows data."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from attrs import frozen
from yarl import URL

import audioext as ax
from audioext.errors import ConfigError
from audioext.sandbox import Sandbox
from audioext.testing.clients import ClientFactory
from audioext.ui.jobs import jobs_page
from audioext.ui.page import COOKIE, WRITES_HEADER, Page

HOSTILE = "<b>Night</b> <script>alert(1)</script>"
WRITES = {WRITES_HEADER: "test"}


@frozen
class Shown:
    """A served page: the client, its link, and a browser session without a cookie."""

    client: ax.Client
    link: URL
    session: aiohttp.ClientSession

    @property
    def root(self) -> URL:
        """Return the page's URL without its token."""
        return self.link.with_query(None)

    async def let_in(self) -> None:
        """Open the link, which sets a cookie."""
        async with self.session.get(self.link) as response:
            assert 200 == response.status

    async def ask(self, path: str, method: str = "GET", **how: object) -> tuple[int, object]:
        """Return the status of an answer, and its JSON or text."""
        async with self.session.request(method, self.root / path, **how) as response:  # type: ignore[arg-type]  # any
            text = await response.text()
            return response.status, json.loads(text) if response.content_type == "application/json" else text


@asynccontextmanager
async def shown(client: ax.Client) -> AsyncIterator[Shown]:
    """Serve the page of *client* on its own."""
    jar = aiohttp.CookieJar(unsafe=True)  # accepts cookies of IP addresses too
    async with (
        jobs_page(client).served("127.0.0.1", 0) as link,
        aiohttp.ClientSession(cookie_jar=jar) as session,
    ):
        yield Shown(client, link, session)


async def extend(client: ax.Client, sandbox: Sandbox, **options: str) -> ax.Job:
    """Submit a task."""
    fields = {"prompt": "p", "style": "s", "title": HOSTILE, **options}
    return await client.extend(audio_id=sandbox.track_ids[0], model="V5", continue_at=1, **fields)  # type: ignore[arg-type]  # texts


async def test_without_the_token_every_path_is_401(audioext_client: ClientFactory) -> None:
    """Without the token every path is 401; the link sets a cookie that scripts and other sites cannot use."""
    async with shown(await audioext_client()) as page:
        for path in ("", "page.js", "jobs", "jobs/x", "events", "health"):
            assert 401 == (await page.ask(path))[0]
        for token in ("wrong", "ünïcode"):
            async with page.session.get(page.root, params={"token": token}) as response:
                assert 401 == response.status
        async with page.session.get(page.link, allow_redirects=False) as response:
            cookie = response.cookies[COOKIE.format(port=page.root.port)]
            assert (303, "/") == (response.status, response.headers["Location"])
            assert ("Strict", True, "/") == (cookie["samesite"], cookie["httponly"], cookie["path"])
        assert 200 == (await page.ask("jobs"))[0]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "attacker.example"}, {"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}],
    ids=["another name", "a proxy", "a newer proxy"],
)
async def test_other_hosts_and_proxies_are_refused(audioext_client: ClientFactory, headers: dict[str, str]) -> None:
    """A rebound DNS name, and a request through a proxy, are refused even with the cookie."""
    async with shown(await audioext_client()) as page:
        await page.let_in()

        assert (403, "this page is only for the machine that serves it\n") == await page.ask("jobs", headers=headers)


async def test_nothing_is_changed_without_our_own_header(audioext_client: ClientFactory) -> None:
    """A form or link of another site cannot send our header, without which nothing is changed."""
    async with shown(await audioext_client()) as page:
        await page.let_in()

        assert 403 == (await page.ask("jobs/x/refresh", "POST"))[0]
        assert 404 == (await page.ask("jobs/x/refresh", "POST", headers=WRITES))[0]


async def test_the_page_may_load_nothing_from_elsewhere(audioext_client: ClientFactory) -> None:
    """Scripts, styles and calls come only from the page's origin; audio and images may come from the vendors."""
    async with shown(await audioext_client()) as page:
        await page.let_in()
        for path, kind in (("", "text/html"), ("page.js", "text/javascript"), ("page.css", "text/css")):
            async with page.session.get(page.root / path) as response:
                assert (200, kind) == (response.status, response.content_type)
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'" in policy
                assert "http://" not in (await response.text()).replace("http://www.w3.org", "")


async def test_a_jobs_view_shows_all_that_is_known(audioext_client: ClientFactory, audioext_sandbox: Sandbox) -> None:
    """A job has a row in the list, and its view has stages, journal, tracks, deliveries and their bodies."""
    client = await audioext_client()
    job = await extend(client, audioext_sandbox)
    song = await job
    async with shown(client) as page:
        await page.let_in()
        _, rows = await page.ask("jobs")
        _, whole = await page.ask(f"jobs/{job.ref}")
        assert isinstance(rows, list)
        assert isinstance(whole, dict)
        delivery = whole["deliveries"][0]["id"]
        _, kept = await page.ask(f"deliveries/{delivery}")
        assert isinstance(kept, dict)

    assert [(job.ref, "complete", HOSTILE, 2)] == [
        (row["ref"], row["state"], row["title"], row["playable"]) for row in rows
    ]
    assert ["submitted", "text", "first", "complete"] == [step["event"] for step in whole["timeline"]]
    assert [track.audio_url for track in song.tracks] == [track["audio_url"] for track in whole["tracks"]]
    assert "request" == whole["journal"][0]["kind"]
    assert "complete" in kept["body"]


async def test_the_state_picks_from_the_list(audioext_client: ClientFactory, audioext_sandbox: Sandbox) -> None:
    """The list can be filtered by open and ended jobs."""
    client = await audioext_client()
    await (await extend(client, audioext_sandbox))
    async with shown(client) as page:
        await page.let_in()
        found = [len((await page.ask("jobs", params={"state": state}))[1]) for state in ("", "open", "ended")]  # type: ignore[arg-type]  # lists

    assert [1, 0, 1] == found


async def test_a_delivery_can_be_replayed_and_the_provider_asked(
    audioext_client: ClientFactory, audioext_sandbox: Sandbox
) -> None:
    """The page can replay a delivery and refresh a job like the client's methods, and shows the outcome."""
    client = await audioext_client()
    job = await extend(client, audioext_sandbox)
    await job
    delivery = await anext(client.deliveries(job.ref))
    async with shown(client) as page:
        await page.let_in()

        assert (200, {"status": 200}) == await page.ask(f"deliveries/{delivery.id}/replay", "POST", headers=WRITES)
        assert 200 == (await page.ask(f"jobs/{job.ref}/refresh", "POST", headers=WRITES))[0]
        assert 404 == (await page.ask("deliveries/none/replay", "POST", headers=WRITES))[0]


async def test_an_open_page_gets_each_change(audioext_client: ClientFactory, audioext_sandbox: Sandbox) -> None:
    """An open page gets each change of a job until its end, and a closed page leaves no watcher."""
    client = await audioext_client()
    async with shown(client) as page:
        await page.let_in()
        async with page.session.get(page.root / "events") as stream:
            job = await extend(client, audioext_sandbox)
            states: list[str] = []
            async with asyncio.timeout(20):
                while "complete" not in states:
                    line = (await stream.content.readline()).decode()
                    if line.startswith("data: {"):
                        row = json.loads(line.removeprefix("data: "))
                        assert job.ref == row["ref"]
                        states.append(row["state"])


async def test_the_page_says_that_the_store_is_down(audioext_client: ClientFactory) -> None:
    """While the store is down the page is still served, and says so."""
    store = ax.MemoryStore()
    async with shown(await audioext_client(store=store)) as page:
        await page.let_in()
        store.fail("the disk is full")
        health, jobs = await page.ask("health"), await page.ask("jobs")
        store.fail(None)

    assert (200, {"problem": "the disk is full", "warnings": []}) == health
    assert (503, {"problem": "the disk is full"}) == jobs


async def test_it_can_be_mounted_into_an_app(audioext_client: ClientFactory) -> None:
    """`add_ui` returns the mounted page's path with the token; the prefix without a slash redirects to it."""
    client = await audioext_client()
    app = web.Application()
    path = client.receiver.add_ui(app, "/audio/ui")
    async with TestServer(app) as server, aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(server.make_url(path)) as response:
            assert ("/audio/ui/", 200) == (response.url.path, response.status)
        async with session.get(server.make_url("/audio/ui")) as response:
            assert ("/audio/ui/", 200) == (response.url.path, response.status)
    with pytest.raises(ConfigError, match="must begin with a slash"):
        client.receiver.add_ui(web.Application(), "ui")
    with pytest.raises(ConfigError, match="is_local must be True or False, not None"):
        client.receiver.add_ui(web.Application(), is_local=None)  # type: ignore[arg-type]  # wrong on purpose


async def test_a_taken_port_is_named(audioext_client: ClientFactory) -> None:
    """The error for a taken port names the address and what to do."""
    client = await audioext_client()
    async with shown(client) as page:
        with pytest.raises(ConfigError, match="choose another port"):
            async with jobs_page(client).served("127.0.0.1", page.link.port or 0):
                pass


async def test_a_browser_that_reads_no_more_does_not_hold_up_the_end() -> None:
    """The page ends soon, though a browser keeps its event stream open and does not read it."""
    sent = asyncio.Event()

    async def changes() -> AsyncGenerator[str]:
        yield "a row"
        await asyncio.get_running_loop().create_future()

    async def row(_: str) -> object:
        sent.set()
        return {"title": "x" * 50_000_000}  # more than any socket's buffers take

    page = Page(kind="jobs", routes=(), changes=changes, row=row)
    async with asyncio.timeout(30), page.served("127.0.0.1", 0) as link:
        _, writer = await asyncio.open_connection(link.host, link.port, limit=1)
        cookie = f"{COOKIE.format(port=link.port)}={link.query['token']}"
        writer.write(f"GET /events HTTP/1.1\r\nHost: {link.authority}\r\nCookie: {cookie}\r\n\r\n".encode())
        await sent.wait()
        await asyncio.sleep(0)  # it is being written now
    writer.close()
