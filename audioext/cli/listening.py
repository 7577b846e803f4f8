"""`audioext listen`: accepts webhooks for the jobs of other processes, and prints a line for each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Annotated, cast

from attrs import define, field, frozen
from cyclopts import Parameter
from rich.filesize import decimal

from audioext import config
from audioext.cli import text
from audioext.cli.clients import listening_providers, make_client, read_listen
from audioext.cli.execution import stop_signals
from audioext.cli.options import API, OUTPUT, SHOWN, Command, ForwardSecret, StoreOptions, WebhookOptions, env
from audioext.cli.screen import Screen
from audioext.cli.supervision import supervised
from audioext.client import Client
from audioext.config import client_options
from audioext.errors import AudioextError, ConfigError, RequestError
from audioext.http.urls import without_password
from audioext.models.entries import Entry
from audioext.models.record import Record, Verdict
from audioext.models.results import Source, Stage
from audioext.stores import Store, open_store
from audioext.stores.base import Appended, to_delivery
from audioext.ui.objects import BY, delivery_object, track_object

UI_PORT = 8090


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
    ui_port: Annotated[int, OUTPUT, SHOWN] = UI_PORT
    """The live page's port on 127.0.0.1."""

    async def run(self, screen: Screen) -> None:
        """Accept webhooks of all providers into the store until Ctrl-C or SIGTERM, and print a line for each."""
        if self.public_url is None:
            raise ConfigError("say where providers reach this listener: --public-url https://hooks.example.org/audio")
        listen = read_listen(self.listen)
        if listen is None:
            raise ConfigError("a listener has to listen: --listen HOST:PORT, not none")
        store = TappedStore(open_store(self.store_url))
        client = make_client(
            *listening_providers(self),
            public_url=self.public_url,
            listen=listen,
            store=cast("Store", store),
            metrics=_where(self.metrics),
        )
        async with AsyncExitStack() as stack:
            stopped = stack.enter_context(stop_signals())
            if self.forward_to is not None:
                from audioext.cli.forwarding import open_forwarder  # noqa: PLC0415 - its package is an extra

                forwarder = await stack.enter_async_context(open_forwarder(self.forward_to, self.forward_secret))
                forwarder.register(client)
            await stack.enter_async_context(client)
            shown, where = without_password(str(client.public_url)), without_password(self.store_url)
            ready, events = f"listening for {shown}", "no handlers run here: your bot's process has them"
            if self.forward_to is not None:
                events = f"events go to {without_password(self.forward_to)}"
            screen.note(
                f"{ready}{_address(client, listen)}; jobs in {where}; {events}; Ctrl-C ends it",
                json={"event": "listening", "public_url": shown, "store": where},
            )
            printing = asyncio.create_task(Printer(screen, client).run(store.appends))
            if self.ui:
                from audioext.ui.jobs import jobs_page  # noqa: PLC0415 - its package is an extra

                url = str(await stack.enter_async_context(jobs_page(client).served("127.0.0.1", self.ui_port)))
                screen.note(f"the live page: {url}", json={"event": "page", "url": url})
            async with supervised(ready):
                await stopped.wait()
            await store.appends.join()
            printing.cancel()


def _where(metrics: bool | str) -> bool | str:  # noqa: FBT001 - as it was given
    """Return the address of the environment or the file where `--metrics` came without one."""
    set_up = client_options(os.environ).get("metrics")
    return set_up if metrics is True and isinstance(set_up, str) else metrics


def _address(client: Client, listen: object) -> str:
    """Return where *client* listens in words, nothing where that cannot be known."""
    url = client.public_url
    address = config.read_listen(listen, url)  # type: ignore[arg-type]  # as the client read it
    return "" if address is None or url is None else f" at {address[0]}:{address[1] or url.port}"


@frozen(kw_only=True)
class Append:
    """Entries that were durably stored; `repeated` are the ids of those that the store had before."""

    ref: str
    provider: str
    entries: Sequence[Entry]
    repeated: frozenset[str]


@define(eq=False)
class TappedStore:
    """A store that also queues what is appended through it; all else is the store's own.

    Handlers would hear of stages as well, but they would do the work of those that other processes have.
    """

    _store: Store
    appends: asyncio.Queue[Append] = field(factory=asyncio.Queue, init=False)

    async def append(self, ref: str, entries: Sequence[Entry], *, provider: str, **rest: object) -> Appended:
        """Append, then queue what was appended."""
        done = await self._store.append(ref, entries, provider=provider, **rest)  # type: ignore[arg-type]  # as they came
        if entries and not done.is_lost and not done.is_full:
            repeated = frozenset(entry.id for entry in done.missed)
            self.appends.put_nowait(Append(ref=ref, provider=provider, entries=entries, repeated=repeated))
        return done

    def __getattr__(self, name: str) -> object:
        """Return what this class does not have: the store's own."""
        return getattr(self._store, name)


@define(eq=False)
class Printer:
    """Prints one line for each delivery that was kept and each stage that became known."""

    screen: Screen
    client: Client

    async def run(self, appends: asyncio.Queue[Append]) -> None:
        """Print what comes, until it is cancelled."""
        while True:
            append = await appends.get()
            try:
                await self._print(append)
            except AudioextError as error:
                self.screen.note(f"job {append.ref}: {text.clean(error)}")
            finally:
                appends.task_done()

    async def _print(self, append: Append) -> None:
        record = None
        with suppress(RequestError):  # a delivery of a job that the store does not hold
            record = (await self.client.job(append.ref)).record
        for entry in append.entries:
            if entry.kind == "webhook":
                one = to_delivery(append.ref, append.provider, entry, is_orphan=record is None)
                verdict = "repeat" if entry.id in append.repeated else one.verdict
                words = f"delivery {verdict}, {decimal(len(one.body))}  {text.clean(one.note)}"
                facts = {**delivery_object(one), "verdict": verdict}
                self._line(append, "delivery", entry.at, words, facts)
        if record is not None:
            new = {entry.at for entry in append.entries if entry.id not in append.repeated}
            for topic, source, at in _news(record, new):
                after = at - record.created_at
                tracks = [track_object(track) for track in record.tracks]
                facts = {"task_id": record.task_id, "source": source, "seconds": round(after, 3), "tracks": tracks}
                words = f"{topic} +{text.seconds(after)} {BY[source] if source is not None else ''}"
                self._line(append, topic, at, words, facts)

    def _line(self, append: Append, event: str, at: float, words: str, facts: Mapping[str, object]) -> None:
        line = f"{text.moment(at)}  {append.provider} {append.ref}  {words}"
        named = {"event": event, "ref": append.ref, "provider": append.provider}
        self.screen.result(line.rstrip(), json={**named, **facts})


def _news(record: Record, moments: set[float]) -> Iterator[tuple[str, Source | None, float]]:
    """Yield the stages that became known at *moments*, and the failure if that did."""
    for item in record.reached:
        if item.stage is not Stage.SUBMITTED and item.at in moments:
            yield item.stage.name.lower(), item.source, item.at
    if record.verdict is Verdict.FAILED and record.fault is not None and record.fault.at in moments:
        yield "failed", None, record.fault.at
