"""A script: extend a local file, watch the stages arrive, save the tracks, then extend the first one.

    KIE_API_KEY=... python examples/script.py voice.mp3 out/

To try it for free, run `audioext sandbox --port 8000` in another terminal, and put
`KIE_API_KEY=sandbox-key KIE_BASE_URL=http://127.0.0.1:8000/kie` before the command. The client polls the status unless
you set `AUDIOEXT_PUBLIC_URL` or pass `public_url`; then it receives webhooks.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import audioext as ax

LEARNT = {"webhook": "from a webhook", "poll": "from a status poll", "implied": "implied by a later stage"}
"""How a stage became known, by the event's source."""


async def main(source: Path, folder: Path, *, client: ax.Client) -> list[Path]:
    """Extend *source*, then the first track, and return the paths of all tracks."""
    async with client:
        job = await client.extend(file=source, model="V5", continue_at=1.5)
        async for event in job:
            print(f"{event.stage!s:>8}: {len(event.tracks)} track(s), {LEARNT[event.source]}")
        song = await job
        saved = [*await song.save(folder)]

        # A track knows its provider and its model, so `extend` asks for neither.
        longer = await client.run(song.tracks[0].extend(continue_at=3, prompt="softer", style="Piano", title="Coda"))
        saved += await longer.save(folder)
    return saved


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: KIE_API_KEY=... python examples/script.py SOURCE FOLDER")
    try:
        paths = asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), client=ax.Client.from_env()))
    except ax.AudioextError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)
