"""Cancelled openings leave nothing behind, and an outage does not flood the log."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from pathlib import Path

import apsw
import pytest
from yarl import URL

import audioext as ax
from audioext.http.urls import callback_url
from audioext.stores.sqlite import SqliteStore
from tests.support.api import callback, serve_api
from tests.support.clock import SOON_SECONDS

SECRET = b"0123456789abcdef-secret"
MAX_STEPS = 200


async def test_an_opening_that_is_cancelled_at_any_step_leaves_its_port(unused_tcp_port: int) -> None:
    """After opening is cancelled at any step, the port can be listened on at once."""
    step, is_open = 0, False
    while not is_open:
        client = ax.Client(public_url="https://hooks.test", listen=f"127.0.0.1:{unused_tcp_port}", secrets=[SECRET])
        opening = asyncio.ensure_future(client.__aenter__())
        for _ in range(step):
            await asyncio.sleep(0)
        opening.cancel()
        is_open = not isinstance(*await asyncio.gather(opening, return_exceptions=True), BaseException)
        await client.aclose()
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", unused_tcp_port))
            free.listen()
        step += 1
        assert MAX_STEPS > step
    assert 1 < step


async def test_an_outage_is_one_line_for_each_kind_of_work(caplog: pytest.LogCaptureFixture) -> None:
    """An outage gives one log line for each kind of work that it stops, and one when it is over."""
    caplog.set_level(logging.INFO, "audioext")
    store = ax.MemoryStore()
    hook = ax.Webhook(
        path=callback_url(URL("https://hooks.test"), SECRET, "kie", "r" * 24).path,
        body=json.dumps(callback("text")).encode(),
    )
    async with (
        serve_api() as api,
        ax.Client(
            api.provider(pace=ax.Pace(first=300.0, quiet=300.0)),
            public_url="https://hooks.test",
            listen=None,
            secrets=[SECRET],
            store=store,
        ) as client,
    ):
        jobs = [await client.extend(audio_id="x", model="V5") for _ in range(20)]
        caplog.clear()
        store.fail("the disk is full")
        waits = [asyncio.create_task(job.result()) for job in jobs]
        await asyncio.wait(waits, timeout=0.01)
        statuses = [await client.inbox.accept(hook) for _ in range(100)]
        ready = [await client.receiver.endpoint.readiness() for _ in range(100)]
        failing = [record.getMessage() for record in caplog.records]
        store.fail(None)
        assert 200 == await client.inbox.accept(hook)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    assert ([503] * 100, 100) == (statuses, sum(status == 503 for status, _ in ready))
    assert 1 == sum("deliveries are put off with 503" in line for line in failing)
    assert 1 == sum("waits go on" in line for line in failing)
    assert 1 == sum("not ready" in line for line in failing)
    assert len(failing) <= 6
    assert 1 == caplog.text.count("deliveries are put off with 503: recovered after")


async def test_a_file_that_was_emptied_is_given_back_what_it_lost(tmp_path: Path) -> None:
    """Rows that were deleted from the file are stored again by the process that awaits their job, and the wait ends."""
    path = tmp_path / "jobs.db"
    async with (
        serve_api() as api,
        ax.Client(
            api.provider(pace=ax.Pace(first=300.0, quiet=300.0)),
            public_url="http://127.0.0.1:{port}",
            listen="127.0.0.1:0",
            store=SqliteStore(path, driver="apsw"),
        ) as client,
    ):
        job = await client.extend(audio_id="x", model="V5")
        wait = asyncio.create_task(job.result())
        await client.store.next_due("polls")
        await asyncio.sleep(0)
        connection = apsw.Connection(str(path))
        connection.execute("BEGIN IMMEDIATE; DELETE FROM entries; DELETE FROM jobs; COMMIT")
        connection.close()
        async with asyncio.timeout(SOON_SECONDS):
            while await client.store.read(job.ref) is None:  # noqa: ASYNC110 - turns, in which others go on
                await asyncio.sleep(0)
        assert 200 == await api.call_back("complete")

        assert 1 == len((await wait).tracks)
