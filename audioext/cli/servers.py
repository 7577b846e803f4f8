"""The commands that run until Ctrl-C: `sandbox`, and `listen`, which takes webhooks for other processes' jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from attrs import define, field, frozen

from audioext.cli import text
from audioext.cli.exits import Exit
from audioext.cli.options import HookOptions, SandboxOptions, StoreOptions
from audioext.cli.places import listening_providers, open_sandbox, read_listen, store_url
from audioext.cli.screen import Screen
from audioext.cli.session import stop_signals
from audioext.client import Client
from audioext.errors import ConfigError
from audioext.models.record import Record
from audioext.models.results import Source
from audioext.stores import open_store
from audioext.stores.base import Conflict, Delivery, Done, OutboxEntry, Store

WITHOUT_HANDLERS = "no handlers run here: your bot's process has them"


# --- sandbox -------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class SandboxCommand:
    """One `sandbox`, as it was called."""

    host: str
    port: int
    options: SandboxOptions
    api_key: str | None = field(default=None, repr=False)
    hmac_key: str | None = field(default=None, repr=False)
    seed: int | None = None

    async def run(self, screen: Screen) -> Exit:
        """Serve the four APIs until Ctrl-C or SIGTERM.

        Raises:
            ConfigError: the address cannot be listened on, or a setting cannot work.
        """
        given: dict[str, object] = {"host": self.host, "port": self.port, "hmac_key": self.hmac_key, "seed": self.seed}
        if self.api_key is not None:
            given["api_key"] = self.api_key
        try:
            # The signals come first: whoever reads that it is ready may end it at once.
            with stop_signals() as stopped:
                async with open_sandbox(self.options, **given) as sandbox:
                    if screen.json:
                        screen.emit(dict(sandbox.describe()))
                    else:
                        self._describe(screen, sandbox.url, sandbox.bases, sandbox.track_ids, sandbox.api_key)
                    await stopped.wait()
        except OSError as error:
            message = f"cannot listen on {self.host}:{self.port}: {error.strerror or error}; choose another --port"
            raise ConfigError(message) from error
        return Exit.OK

    def _describe(
        self, screen: Screen, url: str, bases: Mapping[str, str], track_ids: Sequence[str], api_key: str
    ) -> None:
        # The default key is no secret; one that was given may be used elsewhere, and is not shown.
        key = api_key if self.api_key is None else "…"
        screen.result(f"sandbox at {url}, {self.options.speed:g} times as fast as the real APIs; Ctrl-C ends it")
        for name, base in bases.items():
            screen.result(f"  {name:<9} {base}")
        screen.result(f"  ready tracks to extend by id: {', '.join(track_ids)}")
        screen.result("from another terminal:")
        example = f"KIE_API_KEY={key} audioext extend {track_ids[0]} --base-url {url}/kie --poll-every 1"
        screen.result(f"  {example} --model V5 --continue-at 60 --prompt more --style Piano --title 'Part 2'")


# --- listen --------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class ListenCommand:
    """One `listen`, as it was called."""

    hooks: HookOptions
    store: StoreOptions

    async def run(self, screen: Screen) -> Exit:
        """Take webhooks of all providers into the store until Ctrl-C or SIGTERM, and tell of each.

        Raises:
            ConfigError: there is no public URL, or the address cannot be listened on.
            StoreError: the store cannot be opened.
        """
        if self.hooks.public_url is None:
            message = "say where providers reach this listener: --public-url https://hooks.example.org/audio"
            raise ConfigError(message)
        url = store_url(self.store)
        told = ToldStore(open_store(url), Teller(screen))
        client = Client(
            *listening_providers(self.hooks),
            public_url=self.hooks.public_url,
            listen=read_listen(self.hooks.listen),
            store=cast("Store", told),
        )
        with stop_signals() as stopped:
            async with client:
                if screen.json:
                    screen.emit({"event": "listening", "public_url": str(client.public_url)})
                else:
                    screen.note(f"listening for {client.public_url}; {WITHOUT_HANDLERS}; Ctrl-C ends it")
                await stopped.wait()
        return Exit.OK


@define(eq=False)
class Teller:
    """Prints one line for each delivery that was kept and each stage that became known."""

    screen: Screen

    def delivery(self, delivery: Delivery) -> None:
        """Tell of a delivery and its verdict."""
        if self.screen.json:
            self.screen.emit({"event": "delivery", **delivery_object(delivery)})
            return
        note = f"  {text.clean(delivery.note)}" if delivery.note else ""
        line = f"{delivery.provider} {delivery.ref}  delivery {delivery.verdict}, {text.size(len(delivery.body))}{note}"
        self._line(delivery.received_at, line)

    def news(self, record: Record, topic: str) -> None:
        """Tell of a stage that handlers will be told of, or of a failure."""
        after = max((item.at for item in record.reached), default=record.created_at) - record.created_at
        source: Source | None = next((item.source for item in record.reached if item.stage.name.lower() == topic), None)
        if self.screen.json:
            facts = {"event": topic, "ref": record.ref, "provider": record.provider, "task_id": record.task_id}
            tracks = [text.track_object(track) for track in record.tracks]
            self.screen.emit({**facts, "source": source, "seconds": round(after, 3), "tracks": tracks})
            return
        how = text.BY[source] if source is not None else ""
        line = f"{record.provider} {record.ref}  {topic} +{text.seconds(after)} {how}"
        self._line(time.time(), line.rstrip())

    def _line(self, at: float, line: str) -> None:
        self.screen.result(f"{text.moment(at)}  {line}")


@define(eq=False)
class ToldStore:
    """A store that tells of what was durably committed through it; all else is the store's own.

    Handlers would tell of stages as well, but they would take the work of those that other processes have.
    """

    _store: Store
    _teller: Teller

    async def commit(  # noqa: PLR0913 - the store protocol's own
        self,
        record: Record,
        expected_version: int,
        *,
        is_open: bool,
        due_at: float | None,
        outbox: Sequence[OutboxEntry] = (),
        delivery: Delivery | None = None,
    ) -> Done | Conflict:
        """Commit, then tell of the delivery and of each stage that is news."""
        outcome = await self._store.commit(
            record, expected_version, is_open=is_open, due_at=due_at, outbox=outbox, delivery=delivery
        )
        if isinstance(outcome, Done):
            if delivery is not None:
                self._teller.delivery(delivery)
            for entry in outbox:
                self._teller.news(record, entry.topic)
        return outcome

    async def journal(self, delivery: Delivery) -> None:
        """Keep the delivery, then tell of it."""
        await self._store.journal(delivery)
        self._teller.delivery(delivery)

    def __getattr__(self, name: str) -> Callable[..., object]:
        """Return what this class does not have: the store's own."""
        found: Callable[..., object] = getattr(self._store, name)
        return found


def delivery_object(delivery: Delivery) -> dict[str, object]:
    """Return a delivery for JSON, without its body."""
    return {
        "id": delivery.id,
        "ref": delivery.ref,
        "provider": delivery.provider,
        "received_at": text.iso(delivery.received_at),
        "verdict": delivery.verdict,
        "bytes": len(delivery.body),
        "note": delivery.note,
    }
