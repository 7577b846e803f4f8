"""`audioext listen`: accepts webhooks for the jobs of other processes, and prints a line for each."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Annotated, cast

from attrs import define, field, frozen
from cyclopts import Parameter
from rich.filesize import decimal

from audioext import config
from audioext.cli.clients import listening_providers, make_client, read_listen
from audioext.cli.execution import stop_signals
from audioext.cli.options import API, OUTPUT, SHOWN, Command, ForwardSecret, StoreOptions, WebhookOptions, env
from audioext.cli.screen import Screen, clean, moment, span
from audioext.client import Client
from audioext.config import client_options
from audioext.errors import AudioextError, ConfigError, RequestError
from audioext.http.urls import without_password
from audioext.models.entries import Entry
from audioext.stores import Store, open_store
from audioext.stores.base import Appended, to_delivery
from audioext.ui.objects import delivery_object, timeline, track_object

_log = logging.getLogger("audioext.cli")


@frozen(kw_only=True, slots=False)
class ListenCommand(WebhookOptions, StoreOptions, Command):
    """`audioext listen`."""

    is_server = True
    metrics: Annotated[bool | str, API, env("AUDIOEXT_METRICS"), Parameter(metavar="[HOST:PORT]")] = False
    """Serve /metrics for Prometheus at HOST:PORT, else where the settings say, else at 127.0.0.1:9464."""
    forward_to: Annotated[str | None, API] = None
    """A URL of your app that is told of every stage and failure, signed."""
    forward_secret: ForwardSecret = field(default=None, repr=False)
    ui: Annotated[bool, OUTPUT] = False
    """Show all jobs on a live page, for a browser on this machine."""
    ui_port: Annotated[int, OUTPUT, SHOWN] = 8090
    """The live page's port on 127.0.0.1."""

    async def run(self, screen: Screen) -> None:
        """Accept webhooks of all providers into the store until Ctrl-C or SIGTERM, and print a line for each."""
        if self.public_url is None:
            raise ConfigError("say where providers reach this listener: --public-url https://hooks.example.org/audio")
        listen = read_listen(self.listen)
        if listen is None:
            raise ConfigError("a listener has to listen: --listen HOST:PORT, not none")
        store = TappedStore(open_store(self.store_url))
        set_up = client_options(os.environ).get("metrics")  # where `--metrics` came without an address
        client = make_client(
            *listening_providers(self),
            public_url=self.public_url,
            listen=listen,
            store=cast("Store", store),
            metrics=set_up if self.metrics is True and isinstance(set_up, str) else self.metrics,
        )
        async with AsyncExitStack() as stack:
            stopped = stack.enter_context(stop_signals())
            if self.forward_to is not None:
                from audioext.cli.forwarding import open_forwarder  # noqa: PLC0415 - its package is an extra

                forwarder = await stack.enter_async_context(open_forwarder(self.forward_to, self.forward_secret))
                forwarder.register(client)
            await stack.enter_async_context(client)
            url = client.public_url
            shown, where = without_password(str(url)), without_password(self.store_url)
            ready, events = f"listening for {shown}", "no handlers run here: your bot's process has them"
            address = config.read_listen(listen, url)  # as the client read it
            at = f" at {address[0]}:{address[1] or url.port}" if address and url else ""
            if self.forward_to is not None:
                events = f"events go to {without_password(self.forward_to)}"
            screen.note(
                f"{ready}{at}; jobs in {where}; {events}; Ctrl-C ends it",
                json={"event": "listening", "public_url": shown, "store": where},
            )
            printing = asyncio.create_task(_print_all(screen, client, store))
            if self.ui:
                from audioext.ui.jobs import jobs_page  # noqa: PLC0415 - its package is an extra

                link = str(await stack.enter_async_context(jobs_page(client).served("127.0.0.1", self.ui_port)))
                screen.note(f"the live page: {link}", json={"event": "page", "url": link})
            async with supervised(ready):
                await stopped.wait()
            await store.appends.join()
            printing.cancel()


@define(eq=False)
class TappedStore:
    """A store that queues what is appended through it, and what of that it had before; all else is the store's own.

    Handlers would hear of stages as well, but they would do the work of those that other processes have.
    """

    _store: Store
    appends: asyncio.Queue[tuple[str, str, Sequence[Entry], Sequence[Entry]]] = field(factory=asyncio.Queue, init=False)

    async def append(self, ref: str, entries: Sequence[Entry], *, provider: str, **rest: object) -> Appended:
        """Append, then queue what was appended."""
        done = await self._store.append(ref, entries, provider=provider, **rest)  # type: ignore[arg-type]  # as they came
        if entries and not done.is_lost and not done.is_full:
            self.appends.put_nowait((ref, provider, entries, done.missed))
        return done

    def __getattr__(self, name: str) -> object:
        """Return what this class does not have: the store's own."""
        return getattr(self._store, name)


async def _print_all(screen: Screen, client: Client, store: TappedStore) -> None:
    """Print a line for each delivery that was kept and each stage that became known, until it is cancelled."""
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
    """Yield what is to be printed of *entries*: when it was, what, in words, and as facts."""
    record = None
    with suppress(RequestError):  # a delivery of a job that the store does not hold
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


# --- under a service manager --------------------------------------------------------------------------------------
# Under `Type=notify` and `WatchdogSec=` systemd is sent a datagram a message:
# freedesktop.org/software/systemd/man/latest/sd_notify.html, read 2026-11-26.


@asynccontextmanager
async def supervised(status: str) -> AsyncGenerator[None]:
    """Say READY and *status* now, WATCHDOG for as long as the event loop turns, and STOPPING at the end."""
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
        _log.warning("the service manager at NOTIFY_SOCKET cannot be told %r: %s", state, error)


def watchdog_seconds() -> float | None:
    """Return within which time the service manager wants to hear of this process, `None` if it does not."""
    text = os.environ.get("WATCHDOG_USEC", "")
    is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 1_000_000 if is_for_us and text.isdecimal() and int(text) else None


async def _beat() -> None:
    while (seconds := watchdog_seconds()) is not None:
        await asyncio.sleep(seconds / 2)  # twice within the time after which it would be taken for dead
        notify("WATCHDOG=1")
