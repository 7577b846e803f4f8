"""Run the simulation: `python -m tests.security.simulate --seeds 0-999 --processes 2`."""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import simloom
from attrs import define, field

from tests.security.simulate.universe import run_universe

BATCH = 50
"""The number of universes between two garbage collections, which are off during a universe."""
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder in memory, where the sandbox makes and removes one of its own
MOST_SHOWN = 10
"""The number of failures that are printed in full."""


@define
class Report:
    """The results of some universes."""

    lived: int = 0
    happened: Counter[str] = field(factory=Counter)
    failed: list[int] = field(factory=list)
    texts: list[str] = field(factory=list)
    """The errors of the failed universes."""

    def add(self, other: Report) -> None:
        """Add the results of another report."""
        self.lived += other.lived
        self.happened.update(other.happened)
        self.failed += other.failed
        self.texts += other.texts


def live_some(seeds: range) -> Report:
    """Run the universes of some seeds, one after the other."""
    report = Report()
    for seed in seeds:
        result = run_universe(seed)
        report.lived += 1
        if result.error is None:
            report.happened.update(result.value)
        else:
            report.failed.append(seed)
            report.texts.append("".join(traceback.format_exception(result.error)))
    gc.collect()
    return report


def prepare(*, verbose: bool) -> None:
    """Import what all universes need, and configure logging."""
    logging.getLogger("audioext").setLevel(logging.DEBUG if verbose else logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if verbose:
        logging.basicConfig(format="%(created).3f %(name)s %(message)s")
    if MEMORY.is_dir():
        tempfile.tempdir = str(MEMORY)
    run_universe(0)
    gc.collect()
    gc.freeze()  # keeps imported objects out of each universe's garbage collections


def read_seeds(text: str) -> range:
    """Return the seeds that `7` or `0-999` stands for."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def reports(seeds: range, processes: int) -> Iterator[Report]:
    """Yield a report of each finished batch."""
    batches = [seeds[start : start + BATCH] for start in range(0, len(seeds), BATCH)]
    if processes == 1:
        yield from map(live_some, batches)
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:  # each forked process inherits the imports
        yield from pool.imap_unordered(live_some, batches)


def main() -> int:
    """Run a universe for each seed, and print those that failed."""
    arguments = argparse.ArgumentParser(prog="python -m tests.security.simulate", description=__doc__)
    arguments.add_argument("--seeds", type=read_seeds, default=range(100), help="of the universes: 7, or 0-999")
    arguments.add_argument("--processes", type=int, default=1, help="among which they are shared out")
    arguments.add_argument("--verbose", action="store_true", help="show the log of the package")
    chosen = arguments.parse_args()
    if not simloom.is_pinned():  # else a seed would give another universe in each process
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 - ourselves again
    prepare(verbose=chosen.verbose)
    began_at, total = time.monotonic(), Report()
    for report in reports(chosen.seeds, chosen.processes):
        for seed, text in zip(report.failed, report.texts, strict=True):
            if len(total.failed) < MOST_SHOWN:
                print(text)
            print(f"universe {seed} failed; again: python -m tests.security.simulate --seeds {seed}", flush=True)
        total.add(report)
        if total.lived % (10 * BATCH) == 0:
            print(f"{total.lived} of {len(chosen.seeds)}, {len(total.failed)} failed", flush=True)
    for what, count in sorted(total.happened.items()):
        print(f"{count:10}  {what}")
    took = time.monotonic() - began_at
    print(f"{total.lived} universes in {took:.0f} s, {len(total.failed)} failed {total.failed or ''}")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
