"""Checks of the values of options, for the parser: each raises ValueError with what the value must be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cyclopts import Token


def check_given(_: object, value: object) -> None:
    """Refuse an empty text: it comes from a script's unset variable, and another default would be taken for it."""
    if value == "":
        raise ValueError("It is empty: leave it out, or give a value.")


def check_positive(_: object, value: float | None) -> None:
    """Check that *value* is finite and above 0; `Number` would accept NaN."""
    if value is not None and not 0 < value < math.inf:
        raise ValueError("It must be a finite number above 0.")


def check_not_negative(_: object, value: float) -> None:
    """Check that *value* is finite and not below 0."""
    if not 0 <= value < math.inf:
        raise ValueError("It must be a finite number, 0 or more.")


def read_path(_: object, tokens: Sequence[Token]) -> Path:
    """Return a path; an empty text would be the working folder."""
    (token,) = tokens
    if not token.value:
        raise ValueError("A path is empty: leave it out, or give one.")
    return Path(token.value)
