"""Peak memory of uploading a 50 MB file, ours and httpx's."""

from __future__ import annotations

import sys
import tempfile
import wave
from pathlib import Path

from tests.bench import others
from tests.bench.rig import LOAD_CORE, peer, table

MEGABYTES = 50
TURNS = 3


def write(path: Path, megabytes: float) -> None:
    """Write a WAV file of that size."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 44_100, 0, "NONE", "not compressed"))
        for _ in range(max(1, round(megabytes))):
            file.writeframes(bytes(1_000_000))


def run(turns: int = TURNS) -> dict[str, dict[str, float]]:
    """Measure and print."""
    rows: dict[str, list[float]] = {}
    if not sys.platform.startswith("linux"):
        return rows  # type: ignore[return-value]  # nothing was measured
    with tempfile.TemporaryDirectory() as folder, peer("api", core=LOAD_CORE) as api:
        base = f"http://127.0.0.1:{api.ready['port']}"
        write(Path(folder) / "small.wav", 1)
        write(Path(folder) / "large.wav", MEGABYTES)
        who = ["audioext", *(["httpx"] if others.has("httpx") else [])]
        for _ in range(turns):
            for name in who:
                with peer("upload", name, base, f"{folder}/large.wav", module="others") as sender:
                    rows.setdefault(f"{name}: peak over baseline, MB", []).append(sender.ask("go") / 1e6)
            if "httpx" in who:
                ours, theirs = (rows[f"{name}: peak over baseline, MB"][-1] for name in who)
                rows.setdefault("times httpx", []).append(ours / max(theirs, 0.001))
    return table(f"An upload of {MEGABYTES} MB", rows)


if __name__ == "__main__":
    run()
