"""Time as an argument: the one place that reads a clock or rolls a die, so that tests can set both."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable

from attrs import frozen

_REF_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letter looks like another
_REF_TIME_LETTERS = 9
_REF_RANDOM_LETTERS = 15
_LETTER_OF_BYTE = (_REF_ALPHABET * 8).encode()  # each of the 32 letters for 8 of the 256 bytes


@frozen
class Clock:
    """Where the time comes from: `now` is Unix seconds, `jitter` a number from 0 to 1."""

    now: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random


def mint_id(now: float) -> str:
    """Return a new public id: 24 letters that sort by time, of which 75 bits are random."""
    # The dice come as letters: one by one they would take most of the time of an id.
    dice = secrets.token_bytes(_REF_RANDOM_LETTERS).translate(_LETTER_OF_BYTE).decode("ascii")
    return _base32(int(now * 1000), _REF_TIME_LETTERS) + dice


def _base32(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(_REF_ALPHABET))
        letters.append(_REF_ALPHABET[index])
    return "".join(reversed(letters))
