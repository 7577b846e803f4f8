"""`audioext archive` saves every finished song, and `audioext jobs` lists what they cost."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from audioext.cli.archive import FACTS, lrc
from audioext.cli.jobs import read_since
from audioext.errors import RequestError
from audioext.models.results import TimedLine
from audioext.sandbox import Sandbox
from tests.integration.cli.conftest import FULL, STORE, TRACK, Invoke, aside, short_sandbox

ARCHIVE = Path("archive")


async def make(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, *options: str, title: str = "Part 2"
) -> str:
    """Submit a task, wait for it, and return its ref."""
    monkeypatch.setenv("KIE_API_KEY", sandbox.api_key)
    api = ("--base-url", sandbox.bases["kie"], "--poll-every", "0.1")
    made = await aside(invoke, "extend", TRACK, *FULL[:-1], title, *STORE, *api, "--no-save", "--json", *options)
    assert 0 == made.code
    return str(made.json["ref"])


async def test_archive_keeps_a_songs_tracks_covers_and_facts(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The song's folder holds its tracks, covers and a file of facts with a digest of each file."""
    async with short_sandbox() as sandbox:
        ref = await make(invoke, monkeypatch, sandbox, "--meta", "chat=42")
        ended = await aside(invoke, "archive", str(ARCHIVE), *STORE)

    facts = json.loads((ARCHIVE / ref / FACTS).read_bytes())
    tracks = {track["file"]: track for track in facts["tracks"]}
    assert (0, 2) == (ended.code, len(tracks)), ended.err
    assert "1 saved, 0 already in the archive, 0 could not be saved" in ended.err
    assert {"chat": 42} == facts["meta"]
    assert ["submitted", "text", "first", "complete"] == [stage["event"] for stage in facts["stages"]]
    for name, track in tracks.items():
        data = (ARCHIVE / ref / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (track["bytes"], track["sha256"])
        assert (ARCHIVE / ref / track["cover"]).stat().st_size > 0
    covers = {str(track["cover"]) for track in tracks.values()}
    assert {*tracks, *covers, FACTS} == {path.name for path in (ARCHIVE / ref).iterdir()}


async def test_archiving_again_saves_only_what_is_missing(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call saves new songs and those with a missing file, and leaves the others alone."""
    async with short_sandbox() as sandbox:
        first, second = [await make(invoke, monkeypatch, sandbox) for _ in range(2)]
        await aside(invoke, "archive", str(ARCHIVE), *STORE)
        written = (ARCHIVE / first / FACTS).stat().st_mtime_ns
        track = json.loads((ARCHIVE / second / FACTS).read_bytes())["tracks"][0]["file"]
        (ARCHIVE / second / track).unlink()
        ended = await aside(invoke, "archive", str(ARCHIVE), *STORE, "--json")

    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [("saved", second), ("done", None)] == [(line["event"], line.get("ref")) for line in lines]
    assert {"event": "done", "saved": 1, "there": 1, "failed": 0} == lines[-1]
    assert written == (ARCHIVE / first / FACTS).stat().st_mtime_ns
    assert (ARCHIVE / second / track).is_file()


async def test_a_dead_link_is_reported_and_the_other_songs_are_saved(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one song cannot be saved the others are, and the error has an exit code and a hint for getting fresh links."""
    async with short_sandbox(faults=("expire_links@gone",)) as sandbox:
        lost = await make(invoke, monkeypatch, sandbox, title="gone")
        kept = await make(invoke, monkeypatch, sandbox)
        ended = await aside(invoke, "archive", str(ARCHIVE), *STORE)

    assert 7 == ended.code
    assert 0 <= ended.err.find(f"saving job {lost}\n") < ended.err.find(f"job {lost}:")
    assert f"save {lost}" in ended.err
    assert [kept] == [path.name for path in ARCHIVE.iterdir() if (path / FACTS).exists()]


async def test_archiving_follows_no_foreign_symlink(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """In a folder that others can write, archiving does not follow their symlinks to files of ours."""
    mine = folder / "mine"
    mine.mkdir()
    (mine / "file").write_bytes(b"mine")
    async with short_sandbox() as sandbox:
        first, second = [await make(invoke, monkeypatch, sandbox) for _ in range(2)]
        (ARCHIVE / first).mkdir(parents=True)
        for name in (FACTS, f".{FACTS}.part", "song.part", "Part 2 - take 1.mp3", "Part 2 - take 1.png"):
            (ARCHIVE / first / name).symlink_to(mine / "file")
        (ARCHIVE / second).symlink_to(mine)
        ended = await aside(invoke, "archive", str(ARCHIVE), *STORE)

    assert 7 == ended.code
    assert f"job {second}: {ARCHIVE / second} is a link, and is not followed" in ended.err
    assert "1 saved" in ended.err
    assert [("file", b"mine")] == [(path.name, path.read_bytes()) for path in mine.iterdir()]
    assert {"song.part"} == {path.name for path in (ARCHIVE / first).iterdir() if path.is_symlink()}


def test_timed_lyrics_are_written_as_lrc_lines() -> None:
    """Each lyric line starts with minutes, seconds and hundredths; line breaks in the vendor's text add no lines."""
    lines = [TimedLine("a\nb", 0.5, 2.0), TimedLine("c", 61.25, 70.0)]

    assert "[ti:t]\n[00:00.50]a b\n[01:01.25]c\n" == lrc(lines, title="t")


# --- costs of jobs ---------------------------------------------------------------------------------------


async def test_jobs_are_listed_with_what_they_cost(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """`jobs --since` lists newer jobs only, with their cost in the JSON."""
    async with short_sandbox() as sandbox:
        ref = await make(invoke, monkeypatch, sandbox)
        recent = await aside(invoke, "jobs", *STORE, "--since", "1h", "--json")
        later = await aside(invoke, "jobs", *STORE, "--since", "2999-01-01")

    assert ref == recent.json["ref"]
    assert {"credits", "credit_estimate"} <= recent.json.keys()
    assert (0, "") == (later.code, later.out)


@pytest.mark.parametrize(
    ("words", "seconds"), [("90s", 90), ("2m", 120), ("1.5h", 5_400), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_since_may_be_a_duration(words: str, seconds: float) -> None:
    """A time like `7d` counts back from now."""
    assert 10_000_000 - seconds == read_since(words, 10_000_000)


def test_since_may_be_a_date() -> None:
    """A date begins at local midnight, a zone is kept, and anything else is refused with examples."""
    assert time.mktime((2026, 11, 26, 0, 0, 0, 0, 0, -1)) == read_since("2026-11-26", 0)
    assert 0 == read_since("1970-01-01T01:00:00+01:00", 99)
    with pytest.raises(RequestError, match="12h or 7d"):
        read_since("yesterday", 0)
