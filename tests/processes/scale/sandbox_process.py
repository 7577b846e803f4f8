"""Run the sandbox as a process, which prints its description and ends with its input."""

from __future__ import annotations

import asyncio
import json
import sys

from audioext.sandbox import Sandbox

FAULTS = ("duplicate%30", "reorder%20")


async def main() -> None:
    """Serve without a limit on submits; webhooks are repeated or reordered at random."""
    async with Sandbox(
        speed=400.0,
        submit_limit=None,
        retry_seconds=(200, 400, 600),
        ready_seconds=3,
        extension_seconds=1,
        faults=FAULTS,
        keep_entries=100_000,
    ) as sandbox:
        print(json.dumps(sandbox.describe()), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
