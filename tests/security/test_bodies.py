"""The largest legal bodies do not block the event loop for longer than they may."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest

import audioext as ax
from audioext.http.decoding import parse_json
from audioext.http.messages import HttpResponse
from audioext.models.events import Progress
from audioext.providers import NAMES, load
from audioext.providers._tracks import LONGEST_LINE, LONGEST_TEXT, MAX_KEYS, read_track
from tests.bench.bodies import BASE, SECRET, begin, bodies, deliver

MOST_MILLISECONDS = 50.0
TURNS = 5


@pytest.mark.bench
@pytest.mark.parametrize("name", NAMES)
async def test_the_largest_legal_body_is_answered_in_time(name: str) -> None:
    """A legal body of any content takes at most 50 ms of CPU."""
    took: dict[str, float] = {}
    async with ax.Client(public_url=str(BASE), listen=None, secrets=[SECRET]) as client:
        provider = load(name)("key")
        for what, body in bodies(name).items():
            found = []
            for turn in range(TURNS):
                held = await begin(client, provider, f"{len(took):012}{turn:012}")
                found.append((await deliver(client, provider, held.ref, body))[0])
            took[what] = min(found)

    assert {} == {what: spent for what, spent in took.items() if spent > MOST_MILLISECONDS}


def test_a_track_is_read_up_to_a_number_of_keys() -> None:
    """Keys of a track beyond a fixed number are ignored, whatever they are."""
    known = {"id": "a", "audio_url": "https://files.test/a.mp3", **dict.fromkeys(map(str, range(MAX_KEYS - 2)), 1)}
    problems: list[str] = []

    track = read_track({**known, "Audio_URL": "https://files.test/b.mp3", "title": "Rain"}, problems, "$")

    assert ("a", "https://files.test/a.mp3", None) == (track.id, track.audio_url, track.title)


@pytest.mark.parametrize("case", ["as_documented", "otherwise"])
def test_overlong_texts_of_a_track_are_cut(case: str) -> None:
    """Overlong texts of a track are truncated, in any spelling of the webhook, and the song is kept."""
    long = "x" * 90_000
    song: dict[str, object] = {
        "id": "a",
        "audio_url": "https://files.test/a.mp3",
        "title": long,
        "tags": long,
        "prompt": long,
    }
    if case == "otherwise":
        song |= {"lyrics": long, "extra": 1}
    data = {"callbackType": "complete", "task_id": "t", "data": [song]}

    events = ax.Kie("key").parse_webhook(json.dumps({"code": 200, "data": data}).encode())

    [track] = [track for event in events if isinstance(event, Progress) for track in event.tracks]
    assert "https://files.test/a.mp3" == track.audio_url
    assert (LONGEST_LINE, LONGEST_LINE) == (len(track.title or ""), len(track.tags or ""))
    assert {LONGEST_TEXT} >= {len(words) for words in (track.prompt, track.lyrics) if words is not None}


def test_a_code_is_cut() -> None:
    """An overlong error code of a vendor is truncated."""
    body = b'{"success": false, "error": {"code": "%s"}}' % (b"INVALID_AUDIO" * 40_000)

    with pytest.raises(ax.ProviderError) as raised:
        ax.MusicGpt("key").parse_status(HttpResponse(status=200, headers={}, body=body))

    assert len(str(raised.value)) < 1_000
    assert str(raised.value.code).startswith("INVALID_AUDIO")


def _nested(leaf: object, key: str) -> object:
    for _ in range(6):
        leaf = {key: leaf}
    return leaf


def _wide(depth: int) -> object:
    return {key: _wide(depth - 1) for key in ("message", "msg", "detail", "error")} if depth else ""


WORDS = {
    "an object in a text, far inside": _nested(json.dumps({"x": "a" * 900_000}), "message"),
    "four objects in each of four": _wide(5),
    "1,000 messages": {
        f"{number:x}".translate(str.maketrans("0123456789", "ghijklmnop")) + "msg": "" for number in range(1_000)
    },
}


@pytest.mark.parametrize("what", WORDS)
@pytest.mark.parametrize("name", NAMES)
def test_nested_texts_of_a_failure_are_parsed_once(name: str, what: str) -> None:
    """Deeply nested texts of a failure are each parsed once, in less than a second of CPU."""
    provider = load(name)("key")
    body = json.dumps({"code": 500, "msg": WORDS[what], "data": {"task_id": "t"}}).encode()
    began = time.process_time()
    with suppress(ax.AudioextError):
        provider.parse_webhook(body)
    with suppress(ax.AudioextError):
        provider.parse_status(HttpResponse(status=200, headers={}, body=body))

    assert time.process_time() - began < 1.0  # takes a tenth on an idle machine


def test_huge_integers_beside_a_nan_are_ignored() -> None:
    """In a body with a NaN, integers of thousands of digits are ignored."""
    body = b'{"code": NaN, "few": -12, "many": [%s]}' % b",".join([b"7" * 4_200] * 200)

    assert {"code": None, "few": -12, "many": [None] * 200} == parse_json(body)
