"""Sends what becomes of jobs to an app in any language: events signed by Standard Webhooks, at least once each.

https://www.standardwebhooks.com, read 2026-11-26: `webhook-id` stays the same when an event is sent again.
"""

from __future__ import annotations

import secrets
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import aiohttp
from attrs import field, frozen
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError
from yarl import URL

from audioext.cli.clients import find_job, looking_client
from audioext.cli.execution import ForwardError
from audioext.cli.options import API, Command, ForwardSecret, LookOptions, Ref
from audioext.cli.screen import Screen, dump
from audioext.client import Client
from audioext.errors import ConfigError, RetryLater
from audioext.runtime.jobs import TOLD_STAGES, Failure, Job, StageEvent
from audioext.ui.objects import track_object

DAY_SECONDS = 86_400.0
"""How old an event is at most to wait for an app that is away; after that it has the five tries of every handler."""
LEAST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 3_600.0
WAITED_SHARE = 0.25
"""Of the age of an event, until it is sent again: a day takes some fifty tries."""
TAKEN = 2
"""How a status begins that says so: any 2xx."""


@frozen(slots=False)
class ForwardCommand(LookOptions, Command):
    """`audioext forward`."""

    ref: Ref
    to: Annotated[str, API] = field(kw_only=True)
    """The URL of the app."""
    forward_secret: ForwardSecret = field(default=None, kw_only=True, repr=False)

    async def run(self, screen: Screen) -> None:
        """Send the events of a job once more, as far as it has come."""
        async with open_forwarder(self.to, self.forward_secret) as forwarder, looking_client(self) as client:
            job = await find_job(client, screen, self.ref)
            sent = await forwarder.send_all(job)
        words = f"job {job.ref}: the app took {', '.join(sent) or 'nothing: there is no event yet'}"
        screen.note(words, json={"ref": job.ref, "events": sent})


@frozen(kw_only=True, eq=False)
class Forwarder:
    """Posts events to *url*; `now` is the clock (Unix seconds) by which they age."""

    url: URL
    signer: Webhook
    session: aiohttp.ClientSession
    now: Callable[[], float] = time.time

    def register(self, client: Client) -> None:
        """Be told of every stage and failure of *client*'s store."""
        for stage in TOLD_STAGES:
            client.on(stage)(self.tell)
        client.on_failure(self.tell)

    async def tell(self, event: StageEvent | Failure) -> None:
        """Post one event; what the app does not take is tried again for a day."""
        try:
            await self._post(event)
        except ForwardError as error:
            age = self.now() - event.at.timestamp()
            if age >= DAY_SECONDS:
                raise
            wait = min(max(LEAST_WAIT_SECONDS, WAITED_SHARE * age), LONGEST_WAIT_SECONDS)
            raise RetryLater(wait, str(error)) from error

    async def send_all(self, job: Job) -> Sequence[str]:
        """Post each event of *job* once, and return their types."""
        events: list[StageEvent | Failure] = [
            await job.wait(stage) for stage in TOLD_STAGES if job.stage is not None and stage <= job.stage
        ]
        if job.failure is not None:
            events.append(job.failure)
        return [await self._post(event) for event in events]

    async def _post(self, event: StageEvent | Failure) -> str:
        """Post one event and return its type, which the app branches on: `job.first`, `job.failed`."""
        facts: Sequence[str] = ("source",)
        if isinstance(event, Failure):
            word, facts = "failed", ("reason", "code", "message", "charged")
        else:
            word = event.stage.name.lower()
        kind, name, now = f"job.{word}", f"msg_{event.ref}_{word}", datetime.now(UTC)
        data = {each: getattr(event, each) for each in ("ref", "provider", "task_id", "meta", *facts)}
        data["tracks"] = [track_object(track) for track in event.tracks]
        body = dump({"type": kind, "timestamp": event.at, "data": data})
        headers = {
            "content-type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self.signer.sign(msg_id=name, timestamp=now, data=body),
        }
        call = self.session.post(self.url, data=body.encode(), headers=headers, allow_redirects=False)
        try:
            async with call as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ForwardError(f"{kind}: the app cannot be reached ({type(error).__name__})") from error
        if status // 100 != TAKEN:
            raise ForwardError(f"{kind}: the app answered {status}")
        return kind


@asynccontextmanager
async def open_forwarder(to: str, secret: str | None) -> AsyncGenerator[Forwarder]:
    """Return what posts events to the app at *to*, signed with *secret*."""
    url = URL(to)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(f"events go to a URL like https://app.example.org/hooks, not {to!r:.80}")
    if secret is None:
        made = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
        raise ConfigError(f"events are signed: set AUDIOEXT_FORWARD_SECRET here, and in the app, for example to {made}")
    try:
        signer = Webhook(secret)
    except (ValueError, EmptyWebhookSecretError) as error:
        raise ConfigError("the secret that signs the events must be whsec_ and Base64") from error
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0)) as session:
        yield Forwarder(url=url, signer=signer, session=session)
