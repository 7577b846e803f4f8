"""The README's Python runs, and its statements about the project are true."""

from __future__ import annotations

import ast
import inspect
import itertools
from pathlib import Path

import pytest
from aiohttp import web

import audioext as ax
from audioext.sandbox import Sandbox, audio
from tests.support import pages

README = pages.ROOT / "README.md"
BLOCKS = pages.blocks(README)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the recordings that the README names."""
    voice = audio.voice(seed=1, seconds=4.0, rate=16_000)
    (tmp_path / "voice.wav").write_bytes(audio.encode(voice, "wav"))
    (tmp_path / "voice.mp3").write_bytes(audio.encode(voice, "mp3"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_the_ten_line_program_runs_as_it_stands(folder: Path) -> None:
    """The opening program runs unchanged on a sandbox named by two variables, by webhook."""
    program = BLOCKS[0]
    reach = {"AUDIOEXT_PUBLIC_URL": "http://127.0.0.1:{port}", "AUDIOEXT_LISTEN": "127.0.0.1:0"}
    async with Sandbox(speed=1e6, ready_seconds=4.0, extension_seconds=1.0) as sandbox:
        lines = await pages.run("-c", program, sandbox=sandbox, **reach)

    assert lines[-1].endswith("take 2.mp3")
    assert len([line for line in program.splitlines() if line.strip()]) <= 11


def bots_names(voice: Path) -> dict[str, object]:
    """Return the names that the README's bot section assumes: ways to send and to edit, and a voice message."""
    numbers = itertools.count(100)

    async def send(chat: int | str, text: str) -> int:
        return next(numbers)

    async def ignore(*args: object) -> None:
        """Ignore the bot's messages."""

    return {
        "send": send,
        "edit": ignore,
        "send_audio": ignore,
        "voice": voice.read_bytes(),
    }


@pytest.mark.timeout(480)  # this runs the whole page and encodes many minutes of MP3
async def test_every_other_block_runs(folder: Path) -> None:
    """Each further block runs with the client, job and app that the text assumes."""
    async with Sandbox(speed=1e6, ready_seconds=21.0, extension_seconds=1.0) as sandbox:
        kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=ax.Pace(first=0.01, every=0.02))
        async with ax.Client(kie, public_url="http://127.0.0.1:{port}", listen="127.0.0.1:0") as client:
            job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
            names: dict[str, object] = {
                "ax": ax,
                "client": client,
                "job": job,
                "track_id": sandbox.track_ids[0],
                "app": web.Application(),
                **bots_names(folder / "voice.wav"),
            }
            for block in BLOCKS[1:]:
                if "import pytest" in block:  # test_plugin.py runs these as tests
                    continue
                code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                outcome = eval(code, names)  # noqa: S307 - this is what a reader does with the block
                if inspect.isawaitable(outcome):
                    await outcome

    assert 404 == names["status"]
    assert len(BLOCKS) >= 6


def test_every_public_error_is_in_the_readme() -> None:
    """The README explains every public error."""
    text = README.read_text(encoding="utf-8")
    errors = [name for name in dir(ax) if name.endswith("Error") and name not in {"AudioextError", "JobError"}]

    assert [] == [name for name in errors if name not in text and name not in {"DecodeError", "WebhookError"}]
