"""What the texts on a command line mean: numbers, sources, notes, and the providers that options make."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import msgspec

from audioext import config, providers
from audioext.cli.options import ApiOptions, WebhookOptions
from audioext.errors import ConfigError, Problem, RequestError
from audioext.models.limits import Pace
from audioext.providers.base import Provider
from audioext.settings.meaning import base_url_of

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SIGNED = frozenset({"kie", "kie-jobs"})


def check_positive(option: str, value: float) -> float:
    """Return the *value* of *option*.

    Raises:
        ConfigError: it is no finite number above 0.
    """
    if not 0 < value < math.inf:
        message = f"{option} must be a finite number above 0, not {value:g}"
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
            found[name] = msgspec.json.decode(value)
        except ValueError:
            found[name] = value
    return found


def make_provider(name: str, **given: object) -> Provider:
    """Return the provider called *name*; settings that are `None` or empty are left at their defaults.

    Raises:
        ConfigError: a setting cannot work.
    """
    if name not in _SIGNED:
        given.pop("webhook_key", None)
    chosen = {key: value for key, value in given.items() if value not in {None, ()}}
    return providers.load(name)(**chosen)


def real_provider(name: str, base_url: str | None, api: ApiOptions) -> Provider:
    """Return the provider called *name* with the settings of the command line."""
    pace = None
    if api.poll_every is not None:
        every = check_positive("--poll-every", api.poll_every)
        pace = Pace(first=every, every=every, slowest=every, quiet=every)
    url = base_url or base_url_of(name, os.environ)
    return make_provider(name, base_url=url, webhook_key=api.webhook_key, pace=pace)


def other_url(provider: Provider) -> str | None:
    """Return the address of *provider*'s API, `None` where it is the vendor's own."""
    info = provider.info
    return None if info.base_url == make_provider(info.name).info.base_url else str(info.base_url)


def listening_providers(hooks: WebhookOptions) -> list[Provider]:
    """Return every provider that would call *hooks*' public URL, to decode, and to poll where its key is known."""
    url = config.read_public_url(hooks.public_url)
    found = []
    for name in providers.NAMES:
        provider = make_provider(name, base_url=base_url_of(name, os.environ), webhook_key=hooks.webhook_key)
        try:
            config.check_callbacks([provider], url)
        except ConfigError:  # the listener decodes it all the same, but nobody could submit to it from here
            continue
        found.append(provider)
    return found
