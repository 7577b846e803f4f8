"""The live page of a sandbox, over real HTTP and in Chromium: its tasks and webhooks, and controls for both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from audioext.cli.sandbox_page import tasks_page
from audioext.sandbox import Sandbox, TaskStage
from audioext.testing.clients import ClientFactory
from audioext.ui.page import WRITES_HEADER
from tests.integration.ui.test_browser import CHROMIUM, HOSTILE, playwright, window

__all__ = ["window"]
WRITES = {WRITES_HEADER: "test"}
EXTEND = {"model": "V5", "continue_at": 1, "prompt": "p", "style": "s", "title": HOSTILE}


@asynccontextmanager
async def shown(sandbox: Sandbox) -> AsyncIterator[tuple[URL, aiohttp.ClientSession]]:
    """Serve the page of *sandbox*, and open it in a session that keeps its cookie."""
    jar = aiohttp.CookieJar(unsafe=True)  # accepts cookies of IP addresses too
    async with tasks_page(sandbox).served("127.0.0.1", 0) as link, aiohttp.ClientSession(cookie_jar=jar) as session:
        assert 401 == (await session.get(link.with_path("/jobs").with_query(None))).status
        assert 200 == (await session.get(link)).status
        yield link.with_query(None), session


async def test_a_task_is_shown_with_what_was_sent(audioext_client: ClientFactory, audioext_sandbox: Sandbox) -> None:
    """A task is shown with its stages, its tracks and each webhook's answer and body, but with no callback's tag."""
    client = await audioext_client()
    await (await client.extend(audio_id=audioext_sandbox.track_ids[0], **EXTEND))  # type: ignore[arg-type]  # as named
    await audioext_sandbox.settled()
    (task,), sent = audioext_sandbox.tasks, audioext_sandbox.deliveries
    async with shown(audioext_sandbox) as (root, session):
        (row,) = await (await session.get(root / "jobs")).json()
        text = await (await session.get(root / "jobs" / task.id)).text()
        whole = await (await session.get(root / "jobs" / task.id)).json()
        body = await (await session.get(root / "deliveries" / whole["deliveries"][-1]["id"])).json()
        lost = [
            (await session.get(root / path)).status for path in ("jobs/x", "deliveries/x.0", f"deliveries/{task.id}.9")
        ]

    assert (task.id, "complete", HOSTILE) == (row["ref"], row["state"], row["title"])
    assert (
        ["submitted", "text", "first", "complete"] == [step["event"] for step in whole["timeline"]] == [*row["stages"]]
    )
    assert [track.url for track in task.tracks] == [track["audio_url"] for track in whole["tracks"]]
    assert [(200, "text"), (200, "first"), (200, "complete")] == [
        (each["verdict"], each["note"]) for each in whole["deliveries"]
    ]
    assert "complete" in body["body"]
    assert [404] * 3 == lost
    assert URL(sent[0].url).name not in text
    assert "***" in text


async def test_faults_and_stages_are_played_by_hand(audioext_sandbox: Sandbox) -> None:
    """A fault or stage that is wrong is refused, and a request without our header changes nothing."""
    async with shown(audioext_sandbox) as (root, session):

        async def post(verb: str, body: object, headers: dict[str, str]) -> tuple[int, object]:
            async with session.post(root / "control" / verb, json=body, headers=headers) as answer:
                return answer.status, await answer.json() if answer.content_type == "application/json" else None

        assert (403, None) == await post("hold", ["first"], {})
        assert (200, {"held": ["first"], "faults": []}) == await post("hold", ["first"], WRITES)
        assert (200, {"held": ["first"], "faults": ["drop=text*1"]}) == await post("play", ["drop=text*1"], WRITES)
        assert (200, {"held": [], "faults": ["drop=text*1"]}) == await post("release", [], WRITES)
        assert (200, {"held": [], "faults": []}) == await post("clear", [], WRITES)
        for verb, body in (("hold", ["last"]), ("play", ["none"]), ("hold", {"stage": 1})):
            status, answer = await post(verb, body, WRITES)
            assert isinstance(answer, dict)
            assert (400, ["problem"]) == (status, [*answer])


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
async def test_a_browser_steps_through_a_task(
    audioext_client: ClientFactory,
    audioext_sandbox: Sandbox,
    window: playwright.Page,
) -> None:
    """In a browser a held stage can be released and a fault scripted, and updates come without a reload."""
    client = await audioext_client()
    async with tasks_page(audioext_sandbox).served("127.0.0.1", 0) as link:
        await window.goto(str(link))
        await window.get_by_text("live", exact=True).wait_for()
        await window.get_by_label("complete", exact=True).check()
        await window.get_by_label("Fault").fill("duplicate*1")
        await window.get_by_role("button", name="Add fault").click()
        await window.get_by_text("active: duplicate*1").wait_for()
        job = await client.extend(audio_id=audioext_sandbox.track_ids[0], **EXTEND)  # type: ignore[arg-type]  # as named
        row = window.locator("#jobs .job")
        await row.get_by_text("first", exact=True).wait_for()
        await window.get_by_text("no faults").wait_for()
        await row.click()
        await window.locator("#job").get_by_role("heading", name=HOSTILE).wait_for()
        assert TaskStage.FIRST is audioext_sandbox.tasks[0].stage
        await window.get_by_label("complete", exact=True).uncheck()
        await row.get_by_text("complete", exact=True).wait_for()
        await job
        await window.locator("#job audio").nth(1).wait_for()
        await window.locator("#job").get_by_text("complete", exact=True).nth(3).wait_for()  # state, stage, two webhooks

        assert 6 == len(audioext_sandbox.deliveries)
        assert "audioext sandbox" == await window.title()
        assert 0 == await window.locator("#job b, #job script, #jobs b, #jobs script").count()
