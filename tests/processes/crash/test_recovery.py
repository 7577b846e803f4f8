"""If a process is killed during a vendor's recovery, the next one waits for that recovery instead of another POST."""

from __future__ import annotations

from pathlib import Path

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from audioext.stores import open_store
from tests.support import warm
from tests.support.clock import soon

HERE = Path(__file__).parent
SLOW_SECONDS = 2.0
"""The real time that a recovery takes, which is longer than killing a process."""


async def posts(sandbox: Sandbox, count: int) -> None:
    """Wait until the sandbox got that many POSTs and answered or cut the last one."""

    async def are_there() -> bool:
        return len(sandbox.submissions) >= count and sandbox.submissions[-1].task_id is not None

    await soon(are_there)


async def stored(url: str, ref: str) -> None:
    """Wait until a recovery's answer is in the journal, as without a receiver nothing else names its task."""
    store = open_store(url)
    await store.open()

    async def is_there() -> bool:
        found = await store.read(ref)
        return found is not None and "recovery_answer" in {entry.kind for entry in found.entries}

    try:
        await soon(is_there)
    finally:
        await store.aclose()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("answer", ["heard", "lost"])
@pytest.mark.parametrize("way", ["webhook", "poll"])
async def test_a_killed_recovery_is_waited_for(way: str, answer: str, tmp_path: Path, unused_tcp_port: int) -> None:
    """Only the process killed during its recovery has sent a POST for it, and the next process gets the files."""
    if (way, answer) == ("poll", "lost"):
        pytest.skip("nobody could ever hear of that one: see the client's own tests")
    async with Sandbox(
        speed=1.0,
        text_seconds=0.0,
        first_seconds=0.0,
        complete_seconds=0.0,
        spread_seconds=0.0,
        ready_seconds=4.0,
        extension_seconds=1.0,
        retry_seconds=(1.0, 1.0, 1.0, 1.0),
        faults=["expire_links"],
    ) as sandbox:
        pace = ax.Pace(first=0.05, every=0.05, slowest=0.1)
        kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=pace)
        async with ax.Client(kie, store=f"sqlite:///{tmp_path}/jobs.db") as client:
            job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
            await job
        sandbox.complete_seconds = SLOW_SECONDS
        if answer == "lost":
            sandbox.script("lose_response*1")
        port = str(unused_tcp_port) if way == "webhook" else ""
        words = (str(HERE / "saver.py"), sandbox.bases["kie"], sandbox.api_key, port, str(tmp_path), job.ref)
        complaints = tmp_path / "complaints"
        killed = await warm.start(*words, complaints=complaints)
        await posts(sandbox, 2)
        if answer == "heard":
            await stored(f"sqlite:///{tmp_path}/jobs.db", job.ref)
        killed.kill()
        await killed.communicate()

        saver = await warm.start(*words, complaints=complaints)
        out = await saver.communicate()

        assert (0, 2) == (saver.returncode, len(out.splitlines())), complaints.read_text()
        assert ["extend", "recovery"] == [submission.operation for submission in sandbox.submissions]
