"""Save a finished job's song in a process that may be killed during the vendor's recovery of its files."""

from __future__ import annotations

import asyncio
import sys

import audioext as ax


async def main(base_url: str, api_key: str, port: str, folder: str, ref: str) -> None:
    """Save the song of *ref* into *folder* and print the files."""
    pace = ax.Pace(first=0.1, every=0.1, slowest=0.2, quiet=30.0)
    kie = ax.Kie(api_key, base_url=base_url, pace=pace)
    async with ax.Client(
        kie,
        public_url=f"http://127.0.0.1:{port}" if port else None,
        listen=f"127.0.0.1:{port}" if port else None,
        store=f"sqlite:///{folder}/jobs.db",
        download_patience=0.1,
    ) as client:
        song = await (await client.job(ref)).result()
        for path in await song.save(f"{folder}/out"):
            print(path.stat().st_size, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
