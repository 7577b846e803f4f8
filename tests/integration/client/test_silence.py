"""A client that expects webhooks warns when a poll finds news that a webhook should have brought."""

from __future__ import annotations

import pytest
from attrs import evolve

import audioext as ax
from tests.integration.client.conftest import WEB, MakeClient
from tests.support.api import BRISK, Api

QUICK = {"pace": evolve(BRISK, quiet=0.02)}
WORDS = "a status call brought news, and no webhook did: the provider could not reach http://127.0.0.1:"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about missing webhooks."""
    return [record.getMessage() for record in caplog.records if "no webhook did" in record.getMessage()]


async def test_the_first_poll_that_brings_news_says_that_no_webhook_came(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """The first poll with news gives one warning per client, not one per job, which names `check()`."""
    async with ax.Client(api.provider(**QUICK), wait_timeout=20.0, **WEB) as client:  # type: ignore[arg-type]  # strings
        for number in range(3):
            await (await client.extend(audio_id=f"track-{number}", model="V5"))

    (warning,) = said(caplog)
    assert WORDS in warning
    assert "`audioext doctor`, or client.check(), says why" in warning
    assert ["WARNING"] == [record.levelname for record in caplog.records if record.getMessage() == warning]


async def test_a_client_that_only_polls_is_not_warned(
    open_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A client without a public URL gives no warning, as it only polls."""
    client = await open_client()
    await (await client.extend(audio_id="track", model="V5"))

    assert [] == said(caplog)


async def test_a_job_that_received_a_webhook_is_not_warned_of(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """A job that received a webhook gives no warning when a poll finds its end."""
    api.is_done = False
    async with ax.Client(api.provider(**QUICK), wait_timeout=20.0, **WEB) as client:  # type: ignore[arg-type]  # strings
        job = await client.extend(audio_id="track", model="V5")
        assert 200 == await api.call_back("text")
        api.is_done = True
        await job

    assert [] == said(caplog)
