"""The simulation by hand: `python -m tests.security.simulate --universes 1000 --seed 0`."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time
import traceback
from collections import Counter

import simloom

from tests.security.simulate.universe import run_universe

BATCH = 100


def main() -> int:
    """Live as many universes as asked for, each with a seed of its own, and print those that failed."""
    arguments = argparse.ArgumentParser(prog="python -m tests.security.simulate", description=__doc__)
    arguments.add_argument("--universes", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=0, help="of the first universe; the next has the next number")
    arguments.add_argument("--verbose", action="store_true", help="show the log of the package")
    chosen = arguments.parse_args()
    simloom.pin_hashseed()  # else a seed would be another universe in another process
    logging.getLogger("audioext").setLevel(logging.DEBUG if chosen.verbose else logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if chosen.verbose:
        logging.basicConfig(format="%(created).3f %(name)s %(message)s")
    run_universe(0)
    gc.collect()
    gc.freeze()  # what is loaded need not be looked at again with each universe
    began_at, failed, happened = time.monotonic(), 0, Counter[str]()
    for seed in range(chosen.seed, chosen.seed + chosen.universes):
        result = run_universe(seed)
        if result.error is None:
            happened.update(result.value)
        else:
            failed += 1
            traceback.print_exception(result.error)
            again = f"python -m tests.security.simulate --universes 1 --seed {seed}"
            print(f"universe {seed} failed; again: {again}", flush=True)
        if (seed + 1) % BATCH == 0:
            print(f"{seed + 1 - chosen.seed} of {chosen.universes}", flush=True)
    for what, count in sorted(happened.items()):
        print(f"{count:10}  {what}")
    took = time.monotonic() - began_at
    print(f"{chosen.universes} universes from {chosen.seed} on in {took:.0f} s, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
