"""`audioext listen`: accepts webhooks for the jobs of other processes, and prints a line for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, cast

from attrs import define, field, frozen
from cyclopts import Parameter

from audioext import config
from audioext.cli import text
from audioext.cli.arguments import listening_providers
from audioext.cli.clients import make_client, read_listen
from audioext.cli.execution import stop_signals
from audioext.cli.exits import Exit
from audioext.cli.options import (
    API_GROUP,
    OUTPUT_GROUP,
    Command,
    ForwardOptions,
    StoreOptions,
    WebhookOptions,
    flag,
    option,
)
from audioext.cli.screen import Screen
from audioext.cli.supervision import supervised
from audioext.client import Client
from audioext.errors import AudioextError, ConfigError, RequestError
from audioext.http.urls import without_password
from audioext.models.entries import Entry
from audioext.models.record import Record, Verdict
from audioext.models.results import Source, Stage
from audioext.stores import Store, open_store
from audioext.stores.base import Appended, Delivery, to_delivery
from audioext.ui.objects import BY, delivery_object, track_object

UI_PORT = 8090
CALL_SECONDS = 120.0
"""How long an event may be sent again and again before that counts as one failure."""
WITHOUT_HANDLERS = "no handlers run here: your bot's process has them"


@frozen(kw_only=True, slots=False)
class ListenCommand(WebhookOptions, ForwardOptions, StoreOptions, Command):
    """`audioext listen`."""

    is_server = True
    metrics: Annotated[
        bool | str,
        Parameter(
            help="Serve /metrics for Prometheus at 127.0.0.1:9464, or at HOST:PORT, which strangers should not reach.",
            group=API_GROUP,
            env_var="AUDIOEXT_METRICS",
            metavar="[HOST:PORT]",
            negative="",
            show_default=False,
        ),
    ] = False
    forward_to: Annotated[
        str | None, option("A URL of your app that is told of every stage and failure, signed.", API_GROUP)
    ] = None
    ui: Annotated[bool, flag("Show all jobs on a live page, for a browser on this machine.", OUTPUT_GROUP)] = False
    ui_port: Annotated[int, option("The live page's port on 127.0.0.1.", OUTPUT_GROUP, default=True)] = UI_PORT

    async def run(self, screen: Screen) -> Exit:
        """Accept webhooks of all providers into the store until Ctrl-C or SIGTERM, and print a line for each."""
        if self.public_url is None:
            message = "say where providers reach this listener: --public-url https://hooks.example.org/audio"
            raise ConfigError(message)
        listen = read_listen(self.listen)
        if listen is None:
            message = "a listener has to listen: --listen HOST:PORT, not none"
            raise ConfigError(message)
        store = TappedStore(open_store(self.store_url))
        client = make_client(
            *listening_providers(self),
            public_url=self.public_url,
            listen=listen,
            store=cast("Store", store),
            metrics=self.metrics,
            handler_timeout=CALL_SECONDS,
        )
        with stop_signals() as stopped:
            async with self._forwarding(client), client:
                where = without_password(self.store_url)
                url, address = client.public_url, config.read_listen(listen, client.public_url)
                shown = without_password(str(url))
                if screen.json:
                    screen.emit({"event": "listening", "public_url": shown, "store": where})
                else:
                    told = (
                        WITHOUT_HANDLERS
                        if self.forward_to is None
                        else f"events go to {without_password(self.forward_to)}"
                    )
                    at = "" if address is None or url is None else f" at {address[0]}:{address[1] or url.port}"
                    screen.note(f"listening for {shown}{at}; jobs in {where}; {told}; Ctrl-C ends it")
                printer = asyncio.create_task(Printer(screen, client).run(store.appends))
                async with supervised(f"listening for {shown}"), self._page(client, screen):
                    await stopped.wait()
                await store.appends.join()
                printer.cancel()
        return Exit.OK

    @asynccontextmanager
    async def _forwarding(self, client: Client) -> AsyncGenerator[None]:
        if self.forward_to is None:
            yield
            return
        from audioext.cli.forwarding import open_forwarder  # noqa: PLC0415 - its package is an extra

        async with open_forwarder(self.forward_to, self.forward_secret) as forwarder:
            forwarder.register(client)
            yield

    @asynccontextmanager
    async def _page(self, client: Client, screen: Screen) -> AsyncGenerator[None]:
        if not self.ui:
            yield
            return
        from audioext.ui.page import Page  # noqa: PLC0415 - its package is an extra

        async with Page(client=client).served("127.0.0.1", self.ui_port) as url:
            if screen.json:
                screen.emit({"event": "page", "url": str(url)})
            else:
                screen.note(f"the live page: {url}")
            yield


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
                delivery = to_delivery(append.ref, append.provider, entry, is_orphan=record is None)
                self._delivery(delivery, "repeat" if entry.id in append.repeated else delivery.verdict)
        if record is not None:
            moments = {entry.at for entry in append.entries if entry.id not in append.repeated}
            for topic, source in _news(record, moments):
                self._topic(record, topic, source)

    def _delivery(self, delivery: Delivery, verdict: str) -> None:
        if self.screen.json:
            self.screen.emit({"event": "delivery", **delivery_object(delivery), "verdict": verdict})
            return
        note = f"  {text.clean(delivery.note)}" if delivery.note else ""
        line = f"{delivery.provider} {delivery.ref}  delivery {verdict}, {text.size(len(delivery.body))}{note}"
        self._line(delivery.received_at, line)

    def _topic(self, record: Record, topic: str, source: Source | None) -> None:
        after = max((item.at for item in record.reached), default=record.created_at) - record.created_at
        if self.screen.json:
            facts = {"event": topic, "ref": record.ref, "provider": record.provider, "task_id": record.task_id}
            tracks = [track_object(track) for track in record.tracks]
            self.screen.emit({**facts, "source": source, "seconds": round(after, 3), "tracks": tracks})
            return
        how = BY[source] if source is not None else ""
        line = f"{record.provider} {record.ref}  {topic} +{text.seconds(after)} {how}"
        self._line(time.time(), line.rstrip())

    def _line(self, at: float, line: str) -> None:
        self.screen.result(f"{text.moment(at)}  {line}")


def _news(record: Record, moments: set[float]) -> list[tuple[str, Source | None]]:
    """Return the stages that became known at *moments*, and the failure if that did."""
    news: list[tuple[str, Source | None]] = [
        (item.stage.name.lower(), item.source)
        for item in record.reached
        if item.stage is not Stage.SUBMITTED and item.at in moments
    ]
    if record.verdict is Verdict.FAILED and record.fault is not None and record.fault.at in moments:
        news.append(("failed", None))
    return news
