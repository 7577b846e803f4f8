"""What a client says of its jobs while it works: one line for each thing that happened, with fields for machines."""

from __future__ import annotations

import logging

import pytest

import audioext as ax
from tests.integration.client.conftest import WEB, MakeClient
from tests.support.api import Api


def lines(caplog: pytest.LogCaptureFixture, ref: str) -> list[tuple[str | None, str]]:
    """Return stage and text of what was said of a job, its ref left out."""
    found = [record for record in caplog.records if getattr(record, "audioext_ref", None) == ref]
    assert {("kie", "task-1")} == {(record.__dict__["provider"], record.__dict__["task_id"]) for record in found}
    return [(record.__dict__["stage"], record.getMessage().replace(ref, "R")) for record in found]


async def test_each_stage_is_a_line(api: Api, open_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    """The submit, each stage and the end are said once, with how and when they became known."""
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
    """Whoever reads the log learns why a job failed."""
    caplog.set_level(logging.INFO, logger="audioext.jobs")
    client = await open_client(**WEB)
    job = await client.extend(audio_id="a", model="V5")
    assert 200 == await api.call_back("error", code=501)

    with pytest.raises(ax.JobFailedError):
        await job
    assert ("submitted", "job R at kie: failed: error (code 501)") == lines(caplog, job.ref)[-1]
