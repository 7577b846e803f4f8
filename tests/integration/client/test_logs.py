"""A client logs one line for each thing that happens to a job, with fields for machines."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from yarl import URL

import audioext as ax
from audioext.stores import open_store
from tests.integration.client.conftest import WEB, MakeClient, MakeSandbox
from tests.support.api import Api


def lines(caplog: pytest.LogCaptureFixture, ref: str) -> list[tuple[str | None, str]]:
    """Return the stage and text of each log line of a job, without its ref."""
    found = [record for record in caplog.records if getattr(record, "audioext_ref", None) == ref]
    assert {("kie", "task-1")} == {(record.__dict__["provider"], record.__dict__["task_id"]) for record in found}
    return [(record.__dict__["stage"], record.getMessage().replace(ref, "R")) for record in found]


async def test_each_stage_is_a_line(api: Api, open_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    """The submit, each stage and the end are logged once, with how and when the client learned of them."""
    caplog.set_level(logging.INFO, logger="audioext.jobs")
    client = await open_client(**WEB)
    job = await client.extend(audio_id="a", model="V5")
    for stage in ("text", "first", "complete", "complete"):
        assert 200 == await api.call_back(stage)

    said = lines(caplog, job.ref)
    assert ["submitted", "text", "first", "complete"] == [stage for stage, _ in said]
    assert [
        "job R at kie (task task-1): submitted",
        *(f"job R at kie (task task-1): {stage}, by webhook" for stage in ("text", "first", "complete")),
    ] == [text.split(" after ")[0] for _, text in said]


async def test_a_failure_is_a_line_with_the_vendors_words(
    api: Api, open_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line of a failure has the vendor's words."""
    caplog.set_level(logging.INFO, logger="audioext.jobs")
    client = await open_client(**WEB)
    job = await client.extend(audio_id="a", model="V5")
    assert 200 == await api.call_back("error", code=501)

    with pytest.raises(ax.JobFailedError):
        await job
    assert ("submitted", "job R at kie: failed: error (code 501)") == lines(caplog, job.ref)[-1]


async def test_a_poll_that_brought_news_is_a_line(
    api: Api, open_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A poll that brings news is logged, and one that brings none is not."""
    caplog.set_level(logging.INFO, logger="audioext.poller")
    client = await open_client(**WEB)
    job = await client.extend(audio_id="a", model="V5")
    await job.refresh()
    await job.refresh()

    assert [("complete", "job R at kie: a status call brought news")] == lines(caplog, job.ref)


async def test_a_listener_says_what_another_process_submitted(
    api: Api, open_client: MakeClient, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A listener that did not submit a job logs each of its stages once, from the first webhook on."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    listener = await open_client(store=open_store(url), **WEB)
    worker = await open_client(store=open_store(url), public_url=str(listener.public_url), listen=None)
    job = await worker.extend(audio_id="a", model="V5")
    await worker.aclose()
    caplog.set_level(logging.INFO, logger="audioext.jobs")
    for stage in ("text", "complete"):
        assert 200 == await api.call_back(stage)

    assert ["text", "complete"] == [stage for stage, _ in lines(caplog, job.ref)]


async def test_a_handler_that_fails_is_a_line_with_fields(
    api: Api, open_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line of a failing handler has the job's fields and the traceback."""
    client = await open_client(**WEB)

    @client.on(ax.Stage.TEXT)
    async def fail(_: ax.StageEvent) -> None:
        message = "no such chat"
        raise RuntimeError(message)

    job = await client.extend(audio_id="a", model="V5")
    await api.call_back("text")
    await client.aclose()

    (said,) = [record for record in caplog.records if record.name == "audioext.handlers"]
    assert (job.ref, "kie", "task-1", "text") == tuple(
        said.__dict__[name] for name in ("audioext_ref", "provider", "task_id", "stage")
    )
    assert said.exc_info is not None


async def test_debug_logs_each_call_and_each_decision(
    make_client: MakeClient, make_sandbox: MakeSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """DEBUG logs each request with its fields, why a poll is due, and the outcome of each webhook."""
    caplog.set_level(logging.DEBUG, logger="audioext")
    sandbox = await make_sandbox(faults=("duplicate",))
    client = await make_client(sandbox)
    song = await client.run(ax.Extend(audio_id=sandbox.track_ids[0], model="V5"))
    await song.tracks[0].read()
    await sandbox.settled()
    polling = await make_client(sandbox, poll=True)
    await polling.run(ax.Extend(audio_id=sandbox.track_ids[0], model="V5"))

    said = [record.getMessage() for record in caplog.records if record.name.startswith("audioext.")]
    for words in (
        r"POST 127\.0\.0\.1/\S+/extend: 200 in \d+\.\d{3} s",
        r"GET 127\.0\.0\.1/\S+/record-info: 200 in \d+\.\d{3} s",
        r"GET a file at 127\.0\.0\.1: 200 in \d+\.\d{3} s",
        rf"a webhook of kie for job {song.ref} was repeated",
        r"job \w+: polling its status: no news of it for \d+ s, and it has no callback URL",
    ):
        assert [] != [text for text in said if re.fullmatch(words, text)], words
    tags = {URL(str(sent["callBackUrl"])).name for sent in sandbox.submits if "callBackUrl" in sent}
    for secret in (*tags, sandbox.api_key, song.tracks[0].audio_url or "?"):
        assert [] == [text for text in said if secret in text]
