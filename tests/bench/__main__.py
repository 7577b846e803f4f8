"""All benchmarks, one after the other: `python -m tests.bench`, or some by name. Each prints ratios of one run."""

from __future__ import annotations

import asyncio
import sys
import tempfile

from tests.bench import bodies, imports, many_jobs, redis, submits, trips, wakeups, webhooks


def main(*names: str) -> None:
    """Run those that are named, or all."""
    chosen = names or ("bodies", "trips", "imports", "webhooks", "submits", "wakeups", "many_jobs", "redis")
    for name in chosen:
        if name == "trips":
            asyncio.run(trips.run())
        elif name == "wakeups":
            with tempfile.TemporaryDirectory() as folder:
                asyncio.run(wakeups.run(f"sqlite:///{folder}/jobs.db"))
        elif name == "many_jobs":
            asyncio.run(many_jobs.run())
        elif name == "redis":
            asyncio.run(redis.run())
        else:
            {"bodies": bodies, "imports": imports, "webhooks": webhooks, "submits": submits}[name].run()


if __name__ == "__main__":
    main(*sys.argv[1:])
