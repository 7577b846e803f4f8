"""Finds the programs on our pages, and runs them as a reader would, but on a sandbox and without long waits."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from audioext.sandbox import Sandbox

ROOT = Path(__file__).parents[2]


def blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page, in order."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@asynccontextmanager
async def running(*command: str | Path, sandbox: Sandbox, **env: str) -> AsyncIterator[Process]:
    """Run Python with the sandbox in its environment; it is terminated at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "KIE_API_KEY": sandbox.api_key,
            "KIE_BASE_URL": sandbox.bases["kie"],
            **env,
        },
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def run(*command: str | Path, sandbox: Sandbox, **env: str) -> list[str]:
    """Run Python to its good end, and return the lines that it prints."""
    async with running(*command, sandbox=sandbox, **env) as process:
        out, err = await process.communicate()
    assert (0, b"") == (process.returncode, err), (out + err).decode()
    return out.decode().splitlines()
