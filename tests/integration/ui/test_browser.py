"""The live page in a real Chromium follows a job through its stages."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from audioext.testing.clients import ClientFactory
from audioext.ui.jobs import jobs_page

playwright = pytest.importorskip("playwright.async_api", reason="the browser's driver is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
FOCUS = "document.activeElement"
HOSTILE = "<b>Night</b> <script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"


@pytest.fixture
async def window() -> AsyncIterator[playwright.Page]:  # type: ignore[name-defined]  # a module that may be missing
    """Open a window, and fail the test if the page logs an error."""
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        window = await browser.new_page()
        complaints: list[str] = []
        window.on("pageerror", lambda error: complaints.append(str(error)))
        window.on("console", lambda said: complaints.append(said.text))  # such as a violation of the content policy
        yield window
        await browser.close()
    assert [] == [said for said in complaints if "ERR_CONNECTION_REFUSED" not in said]  # the server ends first


async def test_a_job_is_watched_without_a_reload(
    audioext_client: ClientFactory,
    audioext_sandbox: Sandbox,
    window: playwright.Page,  # type: ignore[name-defined]  # as above
) -> None:
    """A job's row and view follow its stages up to two players without a reload, and hostile text stays text."""
    client = await audioext_client()
    audioext_sandbox.hold("first", "complete")
    async with jobs_page(client).served("127.0.0.1", 0) as link:
        await window.goto(str(link))
        assert "token" not in window.url
        await window.get_by_text("live", exact=True).wait_for()
        job = await client.extend(
            audio_id=audioext_sandbox.track_ids[0], model="V5", continue_at=1, prompt="p", style="s", title=HOSTILE
        )
        row = window.locator("#jobs .job")
        await row.get_by_text("text", exact=True).wait_for()
        await row.click()
        await window.locator("#job").get_by_role("heading", name=HOSTILE).wait_for()
        audioext_sandbox.release("first")
        await row.get_by_text("first", exact=True).wait_for()
        audioext_sandbox.release("complete")
        await row.get_by_text("complete", exact=True).wait_for()
        await window.locator("#job audio").nth(1).wait_for()

        assert ax.Stage.COMPLETE is job.stage
        assert "audioext" == await window.title()
        assert 0 == await window.locator("#job b, #job script, #jobs b, #jobs script").count()


async def test_a_list_is_searched_and_walked_by_keys(
    audioext_client: ClientFactory,
    audioext_sandbox: Sandbox,
    window: playwright.Page,  # type: ignore[name-defined]  # as above
) -> None:
    """A search word filters the rows, the arrow keys move between rows, and Enter opens one."""
    client = await audioext_client()
    for title in ("Rain", "Sun", "Rainbow"):
        await (
            await client.extend(
                audio_id=audioext_sandbox.track_ids[0], model="V5", continue_at=1, prompt="p", style="s", title=title
            )
        )
    async with jobs_page(client).served("127.0.0.1", 0) as link:
        await window.goto(str(link))
        await window.locator("#jobs .job").nth(2).wait_for()
        await window.get_by_label("Find").fill("rain")
        await window.get_by_text("2 of 3").wait_for()
        await window.locator("#jobs .job:visible").first.focus()
        await window.keyboard.press("ArrowDown")
        await window.keyboard.press("Enter")
        await window.locator("#job h2").get_by_text("Rain", exact=True).wait_for()


async def test_all_of_it_works_by_keys_and_has_names(
    audioext_client: ClientFactory,
    audioext_sandbox: Sandbox,
    window: playwright.Page,  # type: ignore[name-defined]  # as above
) -> None:
    """Enter opens a job, Tab reaches its buttons, updates keep the focus, and Escape goes back."""
    client = await audioext_client()
    audioext_sandbox.hold("complete")
    job = await client.extend(audio_id=audioext_sandbox.track_ids[0], model="V5")
    await job.first
    async with jobs_page(client).served("127.0.0.1", 0) as link:
        await window.goto(str(link))
        row = window.locator("#jobs .job")
        await row.focus()
        await window.keyboard.press("Enter")
        await window.locator("#job audio").wait_for()
        for _ in range(20):
            await window.keyboard.press("Tab")
            if await window.evaluate(f"{FOCUS}.innerText") == "Body":
                break
        await window.keyboard.press("Enter")
        await window.get_by_role("region", name="The body of the delivery").wait_for()
        audioext_sandbox.release()
        await window.locator("#job audio").nth(1).wait_for()
        held, shown = await window.evaluate(f"{FOCUS}.innerText"), await window.locator("#job pre").inner_text()
        nodes = (await (await window.context.new_cdp_session(window)).send("Accessibility.getFullAXTree"))["nodes"]
        await window.keyboard.press("Escape")
        back = await window.evaluate(f"{FOCUS}.className")

    assert ("Body", True, "job") == (held, '"first"' in shown, back)
    roles = {"button", "searchbox", "combobox", "textbox", "checkbox", "article", "region", "list", "table", "Audio"}
    told = [(node["role"]["value"], node["name"]["value"]) for node in nodes if not node["ignored"] and "name" in node]
    assert [] == [role for role, name in told if role in roles and not name.strip()]
