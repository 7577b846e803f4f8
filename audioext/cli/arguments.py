"""How the texts on a command line are read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from audioext.errors import ConfigError, Problem, RequestError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def check_seconds(name: str, value: float) -> float:
    """Return the option *name*'s *value*.

    Raises:
        ConfigError: it is no finite number above 0.
    """
    if not 0 < value < math.inf:
        message = f"{name} must be a finite number of seconds above 0, not {value!r}"
        raise ConfigError(message)
    return value


class SourceField(TypedDict, total=False):
    """The one field of a request that names its source."""

    audio_id: str
    url: str
    file: Path


def read_source(source: str, *, ids: bool) -> SourceField:
    """Return the request field that SOURCE means: an existing file, else a URL of whatever scheme, else an id.

    A text that looks like a path (a slash, a suffix, a folder's name) is a file even where none is there, so
    that a misspelt name is reported and not sent as an id. Without *ids* whatever is no URL is a file.
    """
    try:
        path = Path(source).expanduser()
        is_file, is_there = path.is_file(), path.exists()
    except (OSError, RuntimeError, ValueError):  # a name that is too long for any, or the home of nobody
        path, is_file, is_there = Path(source), False, False
    if is_file:
        return {"file": path}
    if _URL.match(source):
        return {"url": source}
    is_path = "/" in source or "\\" in source or path.suffix or is_there
    return {"file": path} if is_path or not ids else {"audio_id": source}


def read_meta(pairs: Sequence[str]) -> dict[str, object]:
    """Return NAME=VALUE pairs as a dict; a value that is JSON (42, true, null, "42") is read as such.

    Raises:
        RequestError: a pair has no equals sign.
    """
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise RequestError([Problem("meta", f"must look like NAME=VALUE, not {pair!r}")])
        try:
            found[name] = json.loads(value, parse_constant=_refuse)
        except ValueError:
            found[name] = value
    return found


def _refuse(constant: str) -> object:
    raise ValueError(constant)  # NaN and Infinity are no JSON
