"""`audioext listen`: accepts webhooks for the jobs of other processes, and prints a line for each.

It may forward events to an app in any language, at least once each, signed by Standard Webhooks; `audioext forward`
sends them again. https://www.standardwebhooks.com, read 2026-11-26: `webhook-id` stays the same when an event is sent
again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import cast

import aiohttp
from attrs import define, field, frozen
from rich.filesize import decimal
from yarl import URL

from audioext.cli.clients import find_job, listening_providers, looking_client, make_client, read_listen
from audioext.cli.commands import ForwardCommand, ListenCommand
from audioext.cli.execution import ForwardError, stop_signals
from audioext.cli.screen import DAY_SECONDS, Screen, clean, dump, moment, span
from audioext.client import Client
from audioext.config import client_options
from audioext.errors import AudioextError, ConfigError, RequestError, RetryLater
from audioext.http.urls import without_password
from audioext.models.entries import Entry
from audioext.runtime.jobs import LATER_STAGES, Failure, Job, StageEvent
from audioext.stores import Store, open_store
from audioext.stores.base import Appended, to_delivery
from audioext.ui.objects import delivery_object, timeline, track_object

_log = logging.getLogger("audioext.cli")

RETRIED_SECONDS = DAY_SECONDS
"""How long an event is retried if the app is down; after that it has the tries of every handler."""
LEAST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 3_600.0
WAITED_SHARE = 0.25
"""The wait before the next try, as a share of the event's age: some fifty tries in a day."""
LEAST_SECRET_BYTES = 24
"""github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md, "Signing secret", read 2026-11-27."""
TAKEN = 2
"""The first digit of a status that accepts an event: any 2xx."""


async def listen(command: ListenCommand, screen: Screen) -> None:
    """Accept webhooks of all providers into the store until Ctrl-C or SIGTERM, and print a line for each."""
    if command.public_url is None:
        raise ConfigError("say where providers reach this listener: --public-url https://hooks.example.org/audio")
    address = read_listen(command.listen)
    if address is None:
        raise ConfigError("a listener has to listen: --listen HOST:PORT, not none")
    store = RecordingStore(open_store(command.store_url))
    set_up = client_options(os.environ).get("metrics")  # the address, if `--metrics` has none
    client = make_client(
        *listening_providers(command),
        public_url=command.public_url,
        listen=address,
        store=cast("Store", store),
        metrics=set_up if command.metrics is True and isinstance(set_up, str) else command.metrics,
    )
    page = None
    if command.ui:
        from audioext.ui.jobs import jobs_page  # noqa: PLC0415 - its package is an extra

        page = jobs_page(client)
    async with AsyncExitStack() as stack:
        stopped = stack.enter_context(stop_signals())
        if command.forward_to is not None:
            forwarder = await stack.enter_async_context(open_forwarder(command.forward_to, command.forward_secret))
            forwarder.register(client)
        await stack.enter_async_context(client)
        shown, where = without_password(str(client.public_url)), without_password(command.store_url)
        ready, events = f"listening for {shown}", "no handlers run here: your bot's process has them"
        bound = client.receiver.address
        at = f" at {bound[0]}:{bound[1]}" if bound else ""
        if command.forward_to is not None:
            events = f"events go to {without_password(command.forward_to)}"
        screen.note(
            f"{ready}{at}; jobs in {where}; {events}; Ctrl-C ends it",
            json={"event": "listening", "public_url": shown, "store": where},
        )
        printing = asyncio.create_task(_print_all(screen, client, store))
        if page is not None:
            link = str(await stack.enter_async_context(page.served("127.0.0.1", command.ui_port)))
            screen.note(f"the live page: {link}", json={"event": "page", "url": link})
        async with supervised(ready):
            await stopped.wait()
        await store.appends.join()
        printing.cancel()


async def forward(command: ForwardCommand, screen: Screen) -> None:
    """Send the events that a job has so far once more."""
    async with open_forwarder(command.to, command.forward_secret) as forwarder, looking_client(command) as client:
        job = await find_job(client, screen, command.ref)
        sent = await forwarder.send_all(job)
    words = f"job {job.ref}: the app accepted {', '.join(sent) or 'nothing: there is no event yet'}"
    screen.note(words, json={"ref": job.ref, "events": sent})


@define(eq=False)
class RecordingStore:
    """A proxy of a store that also queues each append, with the entries that the store already had.

    `listen` has no handlers to print stages with: they would claim the handler work of other processes.
    """

    _store: Store
    appends: asyncio.Queue[tuple[str, str, Sequence[Entry], Sequence[Entry]]] = field(factory=asyncio.Queue, init=False)

    async def append(self, ref: str, entries: Sequence[Entry], *, provider: str, **rest: object) -> Appended:
        """Append to the store, then queue the entries."""
        done = await self._store.append(ref, entries, provider=provider, **rest)  # type: ignore[arg-type]  # as they came
        if entries and not done.is_lost and not done.is_full:
            self.appends.put_nowait((ref, provider, entries, done.missed))
        return done

    def __getattr__(self, name: str) -> object:
        """Return the store's attribute *name*."""
        return getattr(self._store, name)


async def _print_all(screen: Screen, client: Client, store: RecordingStore) -> None:
    """Print a line for each stored delivery and each new stage, until cancelled."""
    while True:
        ref, provider, entries, missed = await store.appends.get()
        repeated = {entry.id for entry in missed}
        try:
            async for at, event, words, facts in _lines(client, ref, provider, entries, repeated):
                named = {"event": event, "ref": ref, "provider": provider}
                screen.result(f"{moment(at)}  {provider} {ref}  {words}".rstrip(), json={**named, **facts})
        except AudioextError as error:
            screen.note(f"job {ref}: {clean(error)}")
        finally:
            store.appends.task_done()


async def _lines(
    client: Client, ref: str, provider: str, entries: Sequence[Entry], repeated: Collection[str]
) -> AsyncIterator[tuple[float, str, str, Mapping[str, object]]]:
    """Yield the lines to print for *entries*: time, event, text, and facts for `--json`."""
    record = None
    with suppress(RequestError):  # the store may have a delivery without its job
        record = (await client.job(ref)).record
    for entry in entries:
        if entry.kind == "webhook":
            one = to_delivery(ref, provider, entry, is_orphan=record is None)
            verdict = "repeat" if entry.id in repeated else one.verdict
            words = f"delivery {verdict}, {decimal(len(one.body))}  {clean(one.note)}"
            yield entry.at, "delivery", words, {**delivery_object(one), "verdict": verdict}
    if record is None:
        return
    new = {entry.at for entry in entries if entry.id not in repeated}
    for word, at, how, source in timeline(record):
        if at in new and word != "submitted":
            after, tracks = at - record.created_at, [track_object(track) for track in record.tracks]
            facts = {"task_id": record.task_id, "source": source, "seconds": round(after, 3), "tracks": tracks}
            yield at, word, f"{word} +{span(after)} {clean(how)}", facts


# --- forwarding to an app ---------------------------------------------------------------------------------------


@frozen(kw_only=True, eq=False)
class Forwarder:
    """Posts events to `url`; `now` is the clock (Unix seconds) for their age."""

    url: URL
    sign: Callable[..., str]
    session: aiohttp.ClientSession
    now: Callable[[], float] = time.time

    def register(self, client: Client) -> None:
        """Handle every stage and failure of *client*'s store."""
        for stage in LATER_STAGES:
            client.on(stage)(self.tell)
        client.on_failure(self.tell)

    async def tell(self, event: StageEvent | Failure) -> None:
        """Post one event; if the app does not accept it, it is retried for a day."""
        try:
            await self._post(event)
        except ForwardError as error:
            age = self.now() - event.at.timestamp()
            if age >= RETRIED_SECONDS:
                raise
            wait = min(max(LEAST_WAIT_SECONDS, WAITED_SHARE * age), LONGEST_WAIT_SECONDS)
            raise RetryLater(wait, str(error)) from error

    async def send_all(self, job: Job) -> Sequence[str]:
        """Post each event of *job* once, and return their types."""
        events: list[StageEvent | Failure] = [
            await job.wait(stage) for stage in LATER_STAGES if job.stage is not None and stage <= job.stage
        ]
        if job.failure is not None:
            events.append(job.failure)
        return [await self._post(event) for event in events]

    async def _post(self, event: StageEvent | Failure) -> str:
        """Post one event and return its type, such as `job.first` or `job.failed`.

        Raises:
            ForwardError: the app did not accept it.
        """
        facts: Sequence[str] = ("source",)
        if isinstance(event, Failure):
            word, facts = "failed", ("reason", "code", "message", "charged")
        else:
            word = str(event.stage)
        kind, name, now = f"job.{word}", f"msg_{event.ref}_{word}", datetime.now(UTC)
        data = {each: getattr(event, each) for each in ("ref", "provider", "task_id", "meta", *facts)}
        data["tracks"] = [track_object(track) for track in event.tracks]
        body = dump({"type": kind, "timestamp": event.at, "data": data})
        headers = {
            "content-type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self.sign(msg_id=name, timestamp=now, data=body),
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
    """Yield a `Forwarder` that posts to the app at *to*, signing with *secret*.

    Raises:
        ConfigError: *to* is not an http(s) URL, or *secret* is missing or malformed.
    """
    url = URL(to)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(f"events go to a URL like https://app.example.org/hooks, not {to!r:.80}")
    if secret is None:
        made = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
        raise ConfigError(f"events are signed: set AUDIOEXT_FORWARD_SECRET here, and in the app, for example to {made}")
    from standardwebhooks import Webhook  # noqa: PLC0415 - an extra

    encoded = secret.removeprefix("whsec_")
    try:
        size = 0 if encoded == secret else len(b64decode(encoded, validate=True))
    except ValueError:
        size = 0
    if size < LEAST_SECRET_BYTES:
        raise ConfigError("the secret that signs the events must be whsec_ and Base64 of 24 bytes or more")
    sign = Webhook(secret).sign
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0)) as session:
        yield Forwarder(url=url, sign=sign, session=session)


# --- under a service manager --------------------------------------------------------------------------------------
# With `Type=notify` and `WatchdogSec=` systemd expects one datagram per message:
# freedesktop.org/software/systemd/man/latest/sd_notify.html, read 2026-11-26.


@asynccontextmanager
async def supervised(status: str) -> AsyncGenerator[None]:
    """Send READY and *status* now, WATCHDOG as long as the event loop runs, and STOPPING at the end."""
    notify(f"READY=1\nSTATUS={status}")
    beat = asyncio.create_task(_beat())
    try:
        yield
    finally:
        notify("STOPPING=1")
        beat.cancel()


def notify(state: str) -> None:
    """Send *state* to the service manager, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:  # "@" stands for the zero byte of an abstract address
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # noqa: FBT003 - the socket's own
            sender.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError as error:
        _log.warning("the service manager at NOTIFY_SOCKET could not be sent %r: %s", state, error)


def watchdog_seconds() -> float | None:
    """Return the service manager's watchdog timeout for this process, `None` if it has none."""
    text = os.environ.get("WATCHDOG_USEC", "")
    is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 1_000_000 if is_for_us and text.isdecimal() and int(text) else None


async def _beat() -> None:
    while (seconds := watchdog_seconds()) is not None:
        await asyncio.sleep(seconds / 2)  # twice per timeout, to be in time
        notify("WATCHDOG=1")
