"""The commands that work with deliveries: `inbox` lists them, `replay` feeds one in again."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import aiohttp
from attrs import field, frozen
from cyclopts import Parameter
from yarl import URL

from audioext import config
from audioext.cli import text
from audioext.cli.clients import find_job, job_options, looking_client, the_one
from audioext.cli.exits import Exit
from audioext.cli.failures import NoSuchRefError
from audioext.cli.options import API_GROUP, Command, Limit, LookOptions, option
from audioext.cli.records import delivery_object
from audioext.cli.screen import Screen
from audioext.client import Client
from audioext.errors import ConfigError, RequestError, WebhookError
from audioext.http.urls import callback_url, mask
from audioext.stores.base import Delivery

HTTP_OK = 200
REPLAY_TIMEOUT_SECONDS = 30.0


@frozen(slots=False)
class InboxCommand(LookOptions, Command):
    """`audioext inbox`."""

    ref: Annotated[str | None, Parameter(help="List those of this job alone.")] = None
    limit: Limit = field(default=20, kw_only=True)

    async def run(self, screen: Screen) -> Exit:
        """Print the newest deliveries, newest first."""
        found: list[Delivery] = []
        async with looking_client(self) as client:
            ref = self.ref
            if ref is not None:
                with suppress(NoSuchRefError):  # a delivery may be of a job that this store does not hold
                    ref = (await find_job(client, self, ref)).ref
            async for delivery in client.deliveries(ref):
                if len(found) >= self.limit:
                    break
                found.append(delivery)
        if screen.json:
            for delivery in found:
                # A body may quote the callback URL, whose last segment is a secret.
                body = mask(delivery.body.decode("utf-8", "replace"))
                screen.emit({**delivery_object(delivery), "body": body})
            return Exit.OK
        rows = [
            (
                one.id,
                text.moment(one.received_at),
                one.ref,
                one.provider,
                one.verdict,
                text.size(len(one.body)),
                one.note,
            )
            for one in found
        ]
        if rows:
            screen.table(("delivery", "received", "ref", "provider", "verdict", "size", "note"), rows)
        else:
            screen.note("no such deliveries in this store")
        return Exit.OK


@frozen(slots=False)
class ReplayCommand(LookOptions, Command):
    """`audioext replay`."""

    delivery: Annotated[str, Parameter(help="Its id as `inbox` prints it, or how it alone begins.")]
    to: Annotated[
        str | None, option("POST it to the receiver with this public URL, which has the same secret.", API_GROUP)
    ] = field(default=None, kw_only=True)

    async def run(self, screen: Screen) -> Exit:
        """Give the delivery to this store's inbox again, or POST it to another receiver."""
        target = config.read_public_url(self.to)
        async with looking_client(self) as client:
            found = await find_delivery(client, self, self.delivery)
            if target is None:
                status = await client.replay(found.id)
            else:
                # Whoever has the store has the secret that makes the tag again.
                status = await _post(callback_url(target, client.inbox.secrets[0], found.provider, found.ref), found)
        if status != HTTP_OK:
            message = f"delivery {found.id} was answered with {status}"
            raise WebhookError(message, http_status=status)
        if screen.json:
            screen.emit({"delivery": found.id, "ref": found.ref, "status": status})
        else:
            screen.result(f"delivery {found.id} of job {found.ref} was answered with {status}")
        return Exit.OK


async def find_delivery(client: Client, options: LookOptions, delivery_id: str) -> Delivery:
    """Return the delivery of *delivery_id*, or the only one whose id begins so.

    Raises:
        NoSuchRefError: the store holds none, or several.
    """
    with suppress(RequestError):
        return await client.delivery(delivery_id)
    found = {one.id: one async for one in client.deliveries() if delivery_id and one.id.startswith(delivery_id)}
    return found[the_one(found, delivery_id, "delivery", job_options(options).command("inbox"))]


async def _post(url: URL, delivery: Delivery) -> int:
    timeout = aiohttp.ClientTimeout(total=REPLAY_TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=delivery.body, headers=delivery.headers, allow_redirects=False) as response,
        ):
            return response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        message = f"nobody answers at {url.origin()}: {type(error).__name__}"
        raise ConfigError(message) from None  # the cause may quote the URL, which holds a secret
