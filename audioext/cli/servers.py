"""The commands that run until Ctrl-C: `sandbox`, and `listen`, which accepts webhooks for other processes' jobs."""

from __future__ import annotations

import time
from typing import Annotated

from attrs import define, field, frozen

from audioext.cli import text
from audioext.cli.clients import listening_providers, open_sandbox, read_listen, store_url
from audioext.cli.execution import stop_signals
from audioext.cli.exits import Exit
from audioext.cli.journal import watched
from audioext.cli.options import (
    SANDBOX_GROUP,
    SANDBOX_SPEED,
    Command,
    Faults,
    SandboxOptions,
    Speed,
    StoreOptions,
    WebhookOptions,
    option,
)
from audioext.cli.records import BY, delivery_object, track_object
from audioext.cli.screen import Screen
from audioext.client import Client
from audioext.errors import ConfigError
from audioext.models.record import Record
from audioext.models.results import Source
from audioext.sandbox import Sandbox
from audioext.stores import open_store
from audioext.stores.base import Delivery

WITHOUT_HANDLERS = "no handlers run here: your bot's process has them"


@frozen(kw_only=True, slots=False)
class SandboxCommand(Command):
    """`audioext sandbox`."""

    port: Annotated[int, option("The port; 0 takes a free one.", SANDBOX_GROUP, default=True)] = 0
    host: Annotated[str, option("The address to listen on.", SANDBOX_GROUP, default=True)] = "127.0.0.1"
    speed: Speed = SANDBOX_SPEED
    fault: Faults = ()
    api_key: Annotated[str | None, option("The key to accept: sandbox-key by default.", SANDBOX_GROUP)] = field(
        default=None, repr=False
    )
    hmac_key: Annotated[str | None, option("Sign kie.ai's webhooks with this key.", SANDBOX_GROUP)] = field(
        default=None, repr=False
    )
    seed: Annotated[int | None, option("Repeats a run: decides ids, music and all that varies.", SANDBOX_GROUP)] = None

    async def run(self, screen: Screen) -> Exit:
        """Serve the four APIs until Ctrl-C or SIGTERM."""
        options = SandboxOptions(sandbox=True, speed=self.speed, fault=self.fault)
        given: dict[str, object] = {"host": self.host, "port": self.port, "hmac_key": self.hmac_key, "seed": self.seed}
        if self.api_key is not None:
            given["api_key"] = self.api_key
        try:
            # The signals come first: whoever reads that it is ready may end it at once.
            with stop_signals() as stopped:
                async with open_sandbox(options, **given) as sandbox:
                    if screen.json:
                        screen.emit(dict(sandbox.describe()))
                    else:
                        self._describe(screen, sandbox)
                    await stopped.wait()
        except OSError as error:
            message = f"cannot listen on {self.host}:{self.port}: {error.strerror or error}; choose another --port"
            raise ConfigError(message) from error
        return Exit.OK

    def _describe(self, screen: Screen, sandbox: Sandbox) -> None:
        # The default key is no secret; one that was given may be used elsewhere, and is not shown.
        key = sandbox.api_key if self.api_key is None else "…"
        screen.result(f"sandbox at {sandbox.url}, {self.speed:g} times as fast as the real APIs; Ctrl-C ends it")
        for name, base in sandbox.bases.items():
            screen.result(f"  {name:<9} {base}")
        screen.result(f"  ready tracks to extend by id: {', '.join(sandbox.track_ids)}")
        screen.result("from another terminal:")
        command = f"{text.program()} extend {sandbox.track_ids[0]} --base-url {sandbox.url}/kie --poll-every 1"
        fields = "--model V5 --continue-at 60 --prompt more --style Piano --title 'Part 2'"
        screen.result(f"  KIE_API_KEY={key} {command} {fields}")


@frozen(kw_only=True, slots=False)
class ListenCommand(WebhookOptions, StoreOptions, Command):
    """`audioext listen`."""

    async def run(self, screen: Screen) -> Exit:
        """Accept webhooks of all providers into the store until Ctrl-C or SIGTERM, and print a line for each."""
        if self.public_url is None:
            message = "say where providers reach this listener: --public-url https://hooks.example.org/audio"
            raise ConfigError(message)
        url = store_url(self)
        client = Client(
            *listening_providers(self),
            public_url=self.public_url,
            listen=read_listen(self.listen),
            store=watched(open_store(url), Printer(screen)),
        )
        with stop_signals() as stopped:
            async with client:
                where = "a store with a password" if "@" in url else url
                if screen.json:
                    screen.emit({"event": "listening", "public_url": str(client.public_url), "store": where})
                else:
                    at = f"listening for {client.public_url}; jobs in {where}"
                    screen.note(f"{at}; {WITHOUT_HANDLERS}; Ctrl-C ends it")
                await stopped.wait()
        return Exit.OK


@define(eq=False)
class Printer:
    """Prints one line for each delivery that was kept and each stage that became known."""

    screen: Screen

    def delivery(self, delivery: Delivery) -> None:
        """Print a delivery and its verdict."""
        if self.screen.json:
            self.screen.emit({"event": "delivery", **delivery_object(delivery)})
            return
        note = f"  {text.clean(delivery.note)}" if delivery.note else ""
        line = f"{delivery.provider} {delivery.ref}  delivery {delivery.verdict}, {text.size(len(delivery.body))}{note}"
        self._line(delivery.received_at, line)

    def news(self, record: Record, topic: str) -> None:
        """Print a stage that handlers will hear of, or a failure."""
        after = max((item.at for item in record.reached), default=record.created_at) - record.created_at
        source: Source | None = next((item.source for item in record.reached if item.stage.name.lower() == topic), None)
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
