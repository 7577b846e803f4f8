"""Run the fuzzers: `python -m tests.security.fuzz parsers --cases 1000000`, or `port --cases 100000`."""

from __future__ import annotations

import argparse
import asyncio
import time

from tests.security.fuzz import parsers, port
from tests.security.fuzz.parsers import Tally

BATCH = 20_000


def main() -> None:
    """Run that many cases, and print the results."""
    arguments = argparse.ArgumentParser(prog="python -m tests.security.fuzz", description=__doc__)
    arguments.add_argument("what", choices=["parsers", "port"])
    arguments.add_argument("--cases", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0, help="of the first case; the next has the next number")
    chosen = arguments.parse_args()
    began_at = time.monotonic()
    tally = Tally()
    for start in range(0, chosen.cases, BATCH):
        cases = min(BATCH, chosen.cases - start)
        if chosen.what == "port":
            asyncio.run(port.run(cases=cases, seed=chosen.seed + start, tally=tally))
        else:
            parsers.run(cases=cases, seed=chosen.seed + start, tally=tally)
        print(f"{start + cases} of {chosen.cases}", flush=True)
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"{count:10}  {outcome}")
    took, seed = tally.slowest
    seconds = time.monotonic() - began_at
    print(f"{chosen.cases} cases in {seconds:.0f} s, none failed; the slowest took {took:.3f} s: {seed}")


if __name__ == "__main__":
    main()
