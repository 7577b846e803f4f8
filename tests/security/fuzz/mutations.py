"""Mutated wire samples: one or many changes of values, keys, texts or bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

WORDS = (
    *("code", "data", "msg", "task_id", "taskId", "callbackType", "status", "state", "response", "sunoData"),
    *("resultJson", "resultUrls", "resultObject", "complete", "first", "text", "error", "SUCCESS", "fail", "success"),
    *(
        "conversion",
        "conversion_id_1",
        "conversion_path",
        "conversion_path_1",
        "files",
        "finished",
        "CALLBACK_EXCEPTION",
    ),
    *("audio_url", "audioUrl", "id", "duration", "createTime", "lyrics_timestamped", "image_path", "detail", "items"),
    *("conversion_id", "eta", "credit_estimate", "audio_id", "error_message", "is_flagged", "message", "url", "loc"),
    *("credits", "balance", "downloadUrl", "fileUrl", "errorCode", "creditsConsumed", "stream_url", "start", "end"),
)
NUMBERS = (
    0,
    1,
    -1,
    200,
    400,
    455,
    501,
    2**31,
    2**63,
    -(2**63),
    10**25,
    10**400,
    0.5,
    -0.0,
    1e-320,
    1e308,
    1_764_000_000,
)
TEXTS = (
    *(
        "",
        " ",
        "0",
        "200",
        "1_0",
        "\u0663",
        "None.mp3",
        "null",
        "https://",
        "https://a",
        "https://a/b.mp3",
        "http://[::1/x",
    ),
    *(
        "HTTPS://A/ B.mp3",
        "https://a:99999/b.mp3",
        "file:///etc/passwd",
        "javascript:x",
        "\x00",
        "\x1b[31m\r\n",
        "\u202e",
    ),
    *("\ufeff{}", "[]", "{", '{"a":', '"{}"', "2026-13-45", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+14:00"),
    *("Content policy", "error code: 1010", "\ud800", "\U0001f3b5" * 9, "x" * 201, "-", "1e5", "\u00b2", "\u1e9e"),
)
RAW_TEXTS = (
    b'"\\ud800"',
    b'"\\udfff\\ud800"',
    b"NaN",
    b"Infinity",
    b"1e999",
    b'"\xff"',
    b'"\x01"',
    b"'x'",
    b"tru",
    b"01",
)
HUGE = 20_000
DEEPEST = 200

Change = Callable[[random.Random, Any], Any]


def value_of(dice: random.Random) -> Any:
    """Return a JSON value of any type."""
    kind = dice.randrange(9)
    if kind < 2:
        return dice.choice((None, True, False))
    if kind < 4:
        return dice.choice(NUMBERS)
    if kind < 6:
        return dice.choice(TEXTS)
    if kind == 6:
        return dice.choice(WORDS)
    if kind == 7:
        return [value_of(dice) for _ in range(dice.randrange(3))]
    return {dice.choice(WORDS): value_of(dice) for _ in range(dice.randrange(3))}


def replaced(dice: random.Random, value: Any) -> Any:
    """Return any other value."""
    return value_of(dice)


def wrapped(dice: random.Random, value: Any) -> Any:
    """Nest the value, a few times or deeper than a body may be."""
    for _ in range(dice.choice((1, 1, 2, 5, 70, DEEPEST))):
        value = [value] if dice.randrange(2) else {dice.choice(WORDS): value}
    return value


def spelled(dice: random.Random, value: Any) -> Any:
    """Turn the value into its JSON text, or a text into the value it holds."""
    if isinstance(value, str) and dice.randrange(2):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value.encode(errors="replace").decode()
    return json.dumps(value)


def grown(dice: random.Random, value: Any) -> Any:
    """Make the value huge."""
    if isinstance(value, str):
        return (value or "x") * dice.choice((3, 300, HUGE))
    if isinstance(value, list):
        return (value or [0]) * dice.choice((2, 33, 2_100))
    if isinstance(value, dict):
        return {**value, **{f"k{number}": number for number in range(dice.choice((3, 300)))}}
    return [value] * dice.choice((2, 40))


def dropped(dice: random.Random, value: Any) -> Any:
    """Remove one of its parts."""
    if isinstance(value, dict) and value:
        gone = dice.choice(list(value))
        return {key: item for key, item in value.items() if key != gone}
    return value[:-1] if isinstance(value, (list, str)) else None


def renamed(dice: random.Random, value: Any) -> Any:
    """Rename or respell one of its keys."""
    if not isinstance(value, dict) or not value:
        return [value]
    old = dice.choice(list(value))
    new = dice.choice(
        (dice.choice(WORDS), old.upper(), old.replace("_", ""), f"_{old}", f"{old}_1", dice.choice(TEXTS))
    )
    return {new if key == old else key: item for key, item in value.items()}


def doubled(dice: random.Random, value: Any) -> Any:
    """Repeat one of its parts, under another key or in the same list."""
    if isinstance(value, dict) and value:
        return {**value, dice.choice(WORDS): value[dice.choice(list(value))]}
    if isinstance(value, list):
        return [*value, *value[-1:]]
    return value * 2 if isinstance(value, str) else value


CHANGES: tuple[Change, ...] = (replaced, replaced, replaced, dropped, renamed, doubled, wrapped, spelled)


def changed(dice: random.Random, value: Any, change: Change | None = None) -> Any:
    """Return *value* with one change somewhere, *change* or a random one; unchanged parts are shared."""
    if isinstance(value, dict) and value and dice.randrange(4):
        key = dice.choice(list(value))
        return {**value, key: changed(dice, value[key], change)}
    if isinstance(value, list) and value and dice.randrange(4):
        place = dice.randrange(len(value))
        return [*value[:place], changed(dice, value[place], change), *value[place + 1 :]]
    return (change or dice.choice(CHANGES))(dice, value)


def broken(dice: random.Random, data: bytes) -> bytes:
    """Return *data* truncated, with other bytes, or with a value replaced by invalid or extreme JSON."""
    kind = dice.randrange(6)
    if kind == 0 or not data:
        return data[: dice.randrange(len(data) + 1)]
    if kind == 1:
        flipped = bytearray(data)
        for _ in range(dice.choice((1, 1, 3, 30))):
            flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
        return bytes(flipped)
    place = dice.randrange(len(data))
    if kind == 2:
        return data[:place] + dice.randbytes(dice.randrange(1, 9)) + data[place:]
    if kind == 3:
        return data[:place] + data[dice.randrange(len(data)) :]
    if kind == 4:
        mark = data.find(b":", place) + 1 or place
        return data[:mark] + dice.choice(RAW_TEXTS) + data[mark:].partition(b",")[2]
    return dice.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b" \n", b"[" * 1_000)) + data


def mutated(dice: random.Random, data: bytes, value: Any) -> bytes:
    """Return a sample, *data* or its JSON *value*, with some random changes or none."""
    if value is not None and dice.randrange(4):
        for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
            value = changed(dice, value)
        if not dice.randrange(40):  # only once, since repeated growth would have no end
            value = changed(dice, value, grown)
        data = json.dumps(value, ensure_ascii=bool(dice.randrange(2))).encode(errors="surrogatepass")
    return broken(dice, data) if not dice.randrange(6) else data
