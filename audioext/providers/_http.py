"""What every provider's calls have in common: the base URL, the headers, the bodies and `Retry-After`."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import orjson
from yarl import URL

from audioext.errors import ConfigError
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.http.signing import unix_seconds
from audioext.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

USER_AGENT = f"audioext/{__version__}"
"""Sent with every call: behind Cloudflare a request without one gets 403 "error code: 1010"."""

_NAME = re.compile("[a-z0-9-]+")
MAX_RETRY_AFTER_SECONDS = 3600.0  # a longer wait is no answer to a burst, and a forged one must not park us


def to_base_url(value: str | URL) -> URL:
    """Return *value* as an absolute http(s) URL without a trailing slash; it may carry a path prefix.

    Raises:
        ConfigError: it is not such a URL, or it carries a query, a fragment or a password.
    """
    try:
        url = URL(value)
        host = url.host
    except (TypeError, ValueError):
        url, host = URL(), None
    if url.scheme not in {"http", "https"} or not host or url.query_string or url.fragment or url.user:
        message = f"base_url must be like https://api.example.com or http://127.0.0.1:8000/kie, not {_shown(value)}"
        raise ConfigError(message)
    return url.with_path(url.path.rstrip("/"))


def join(base: URL, path: str) -> URL:
    """Return the address of *path*, which starts with a slash, under *base* and its path prefix."""
    return base.with_path(base.path.rstrip("/") + path)


def to_name(value: str) -> str:
    """Return *value* if it can stand in a callback path and in `provider=`.

    Raises:
        ConfigError: it is not small letters, digits and hyphens.
    """
    try:
        fits = _NAME.fullmatch(value) is not None
    except TypeError:
        fits = False
    if not fits:
        message = f"name must be small letters, digits and hyphens, such as kie-2, not {value!r}"
        raise ConfigError(message)
    return value


def to_api_key(value: str | None) -> str | None:
    """Return *value* without white space around it, since keys are pasted.

    Raises:
        ConfigError: it is empty, or cannot stand in a header.
    """
    if value is None:
        return None
    try:
        key = value.strip()
        fits = key != "" and key.isascii() and key.isprintable()
    except AttributeError:
        fits = False
    if not fits:
        message = "api_key must be printable ASCII text and not empty"  # the key itself never shows
        raise ConfigError(message)
    return value.strip()


def headers(authorization: str | None) -> dict[str, str]:
    """Return the headers of a call: who we are, what we accept, and *authorization* where there is one."""
    found = {"User-Agent": USER_AGENT, "Accept": "application/json"}
    if authorization is not None:
        found["Authorization"] = authorization
    return found


def bearer(api_key: str | None) -> str | None:
    """Return the `Authorization` of *api_key*, or `None` without a key."""
    return None if api_key is None else f"Bearer {api_key}"


def get(url: URL, authorization: str | None) -> HttpRequest:
    """Return a GET of *url*."""
    return HttpRequest(method="GET", url=url, headers=headers(authorization))


def post_json(url: URL, authorization: str | None, body: Mapping[str, object]) -> HttpRequest:
    """Return a POST of *body* as JSON."""
    return HttpRequest(
        method="POST",
        url=url,
        headers={**headers(authorization), "Content-Type": "application/json"},
        body=orjson.dumps(body),
    )


def retry_after(response: HttpResponse) -> float | None:
    """Return how long *response* asks to wait, in seconds, or `None` where it does not say.

    A date counts from the response's own `Date`, since no clock is read here.
    """
    text = response.headers.get("Retry-After", "").strip()
    seconds = unix_seconds(text)
    if seconds is not None:
        return min(float(seconds), MAX_RETRY_AFTER_SECONDS)
    try:
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime(response.headers.get("Date", ""))
        wait = (until - now).total_seconds()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return min(max(wait, 0.0), MAX_RETRY_AFTER_SECONDS)


def excerpt(body: bytes, *, longest: int = 120) -> str:
    """Return the start of a body that is not what it should be, on one line, for people to read."""
    text = " ".join(body[: 4 * longest].decode("utf-8", "replace").split())
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return (shown[: longest - 1] + "…" if len(shown) > longest else shown) or "an empty body"


def _shown(value: object) -> str:
    # A base URL may hold a password; what is no URL at all may be the API key, given in the wrong place.
    return repr(value) if isinstance(value, (str, URL)) and "@" not in str(value) and "/" in str(value) else "that"
