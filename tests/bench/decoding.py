"""Decoding and folding one webhook of kie.ai, against `orjson.loads` (or msgspec) on the same bytes."""

from __future__ import annotations

import json
import time
import timeit
from collections.abc import Callable

import msgspec

from audioext.models.entries import make_entry
from audioext.models.record import Asked
from audioext.providers import load
from audioext.state.fold import fold
from audioext.state.reading import dump_asked, read
from tests.bench import others, peers
from tests.bench.rig import table
from tests.bench.webhooks import callback

CALLS, TURNS = 1_000, 9


def microseconds(call: Callable[[], object]) -> list[float]:
    """Return a call's CPU microseconds in each of some turns."""
    timer = timeit.Timer(call, timer=time.process_time)
    return [1e6 * spent / CALLS for spent in timer.repeat(TURNS, CALLS)]


def run() -> dict[str, dict[str, float]]:
    """Measure and print."""
    plain: Callable[[bytes], object] = msgspec.json.decode
    name = "msgspec.json.decode"
    if others.has("orjson"):
        import orjson  # noqa: PLC0415 - may be missing

        plain, name = orjson.loads, "orjson.loads"
    kie = load("kie")("key")
    body = callback("t" * 24)
    asked = dump_asked(Asked(provider="kie", account="kie", request=peers.REQUEST, model="V5"))
    answer = json.dumps({"code": 200, "msg": "success", "data": {"taskId": "t" * 24}}).encode()
    first = [
        read(make_entry("request", 1.0, body=asked), kie),
        read(make_entry("answer", 2.0, status=200, body=answer), kie),
    ]
    entry = make_entry("webhook", 3.0, body=body)

    def whole() -> object:
        return fold("ref", [*first, read(entry, kie)])

    assert whole() is not None
    base = microseconds(lambda: plain(body))
    rows = {f"{name}: µs": base}
    for what, call in (("decoded", lambda: read(entry, kie)), ("decoded and folded", whole)):
        spent = microseconds(call)
        rows[f"{what}: µs"] = spent
        rows[f"{what}: times {name}"] = [one / min(base) for one in spent]
    return table("One webhook of kie.ai, 1.6 kB", rows)


if __name__ == "__main__":
    run()
