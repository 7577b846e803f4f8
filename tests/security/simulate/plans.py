"""The randomly drawn plan of a universe: its provider, its orders, and each disturbance with its time."""

from __future__ import annotations

import random
from typing import Literal

from attrs import field, frozen

import audioext as ax
from audioext.providers import load
from audioext.runtime.held import HeldJob
from audioext.sandbox import Sandbox
from audioext.stores.base import Store
from audioext.webhooks.inbox import Confirm

LAST_ORDER_AT = 40.0
DISTURBED_SECONDS = 70.0
"""The time until which new disturbances may begin."""
SILENT_AT = 5_000.0
"""The time by which all must have ended: waits end after 2,500 s, unknown outcomes after 300 s."""

DisturbanceKind = Literal["crash", "partition", "one-way", "reset", "clock", "store"]
KINDS: tuple[DisturbanceKind, ...] = ("crash", "crash", "partition", "one-way", "reset", "clock", "store")
BOTS = ("bot1", "bot2")
SANDBOX_FAULTS = (
    *("duplicate", "drop", "drop=complete", "drop=first", "delay=complete:60", "delay=text:20", "reorder"),
    *("callback_before_response", "lose_response", "lose_response=half", "lose_response=unmade", "error", "error=text"),
    *("http=503:made", "http=502", "callback_exception"),
)
NO_RESULT = "callback_exception=without"
"""The other faults of this kind say done and never show a track, which leaves the job open for a day."""
TELL_OF_NO_RESULT = ("kie", "sunoapi")


@frozen(kw_only=True)
class Order:
    """What a user of one process submits, and when."""

    number: int
    at: float
    bot: str
    is_upload: bool

    def request(self, sandbox: Sandbox | None) -> ax.Extend:
        """Return the request, whose title or prompt identifies the order at the API."""
        assert sandbox is not None
        source = {"url": sandbox.tune_url} if self.is_upload else {"audio_id": sandbox.track_ids[0]}
        named = {"prompt": f"order {self.number}", "continue_at": 1.0}
        fields = {} if self.is_upload else {"model": "V5", "style": "ambient", "title": f"order {self.number}"}
        return ax.Extend.draft(**source, **named, **fields)


@frozen(kw_only=True)
class Disturbance:
    """One disturbance: what, where, when and for how long; a clock steps by the seconds."""

    kind: DisturbanceKind
    where: str
    at: float
    seconds: float


@frozen(kw_only=True)
class Plan:
    """All that was drawn for a universe."""

    provider: str
    orders: tuple[Order, ...]
    disturbances: tuple[Disturbance, ...]
    faults: tuple[str, ...] = field(default=())
    webhooks: bool = True
    callback_address: str | None = None
    """The address for all callbacks, or `None` if each process gets those of its own jobs."""
    confirm: Confirm = "never"
    grace: float = 120.0
    """The seconds after which a submit without an answer counts as unknown."""

    @property
    def healed_at(self) -> float:
        """The time in seconds at which the last disturbance ends."""
        return max(
            (each.at + each.seconds for each in self.disturbances if each.kind != "clock"), default=LAST_ORDER_AT
        )


def draw_plan(dice: random.Random) -> Plan:
    """Draw a plan."""
    provider = dice.choice(("kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt"))
    orders = tuple(
        Order(
            number=number, at=dice.uniform(1.0, LAST_ORDER_AT), bot=dice.choice(BOTS), is_upload=provider == "musicgpt"
        )
        for number in range(dice.choice((1, 1, 2, 3)))
    )
    known = (*SANDBOX_FAULTS, *([NO_RESULT] if provider in TELL_OF_NO_RESULT else ()))
    faults = tuple(
        f"{dice.choice(known)}*{dice.choice((1, 2))}@order {dice.choice(orders).number}"
        for _ in range(dice.choice((0, 1, 1, 2, 3)))
    )
    disturbances = [_draw_disturbance(dice) for _ in range(dice.choice((0, 1, 2, 3, 5)))]
    return Plan(
        provider=provider,
        orders=orders,
        faults=faults,
        disturbances=tuple(sorted(disturbances, key=lambda found: found.at)),
        webhooks=bool(dice.randrange(8)),
        callback_address=dice.choice((None, None, "127.0.0.3")),
        confirm=dice.choice(("never", "never", "never", "always", "unsigned")),
        grace=dice.choice((60.0, 120.0, 120.0, 300.0)),
    )


def _draw_disturbance(dice: random.Random) -> Disturbance:
    kind = dice.choice(KINDS)
    seconds = dice.choice((0.5, 5.0, 20.0, 50.0))
    if kind == "clock":
        seconds = dice.choice((-1_000.0, -60.0, -1.0, 1.0, 60.0, 1_000.0))
    return Disturbance(kind=kind, where=dice.choice(BOTS), at=dice.uniform(0.5, DISTURBED_SECONDS), seconds=seconds)


async def fold_stored(store: Store, ref: str, provider: str) -> HeldJob:
    """Return a job's record from *store*, read by the codec of *provider*."""
    stored = await store.read(ref)
    assert stored is not None
    held = HeldJob(ref, load(provider)("key"))
    held.merge(held.read(stored.entries), count=stored.count)
    return held
