"""Balance connections over some receivers in a process, which prints its port and ends with its input.

In the test's process, whose event loop is in debug mode, it would be slower than the receivers.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.processes.scale.parts import Relay


async def main(*ports: str) -> None:
    """Forward connections to these ports in turn."""
    relay = Relay([int(port) for port in ports])
    await relay.start()
    print(json.dumps({"port": relay.port}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await relay.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
