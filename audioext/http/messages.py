"""HTTP messages as values: a request to send, its response, and a received webhook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path

from attrs import field, frozen
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from audioext.errors import ConfigError, printable
from audioext.http.signing import unix_seconds
from audioext.http.urls import mask

Headers = Mapping[str, str]

MAX_RETRY_AFTER_SECONDS = 3600.0  # longer than any rate limit needs; a forged header must not park us for days
LONGEST_TEXT = 1_000
AUDIO_TYPES = {
    **{f".{name}": f"audio/{name}" for name in ("aac", "aiff", "flac", "mp4", "ogg", "wav", "webm")},
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".aif": "audio/aiff",
}
"""Media types of audio files, by suffix."""
LONGEST_EXCERPT = 120  # characters of an unexpected body that a message quotes


def _headers(value: Headers) -> CIMultiDictProxy[str]:
    """Return *value* as a read-only, case-insensitive mapping."""
    return value if type(value) is CIMultiDictProxy else CIMultiDictProxy(CIMultiDict(value or ()))


def _as_given(value: Headers | Iterable[tuple[object, object]]) -> CIMultiDictProxy[str]:
    """Like `_headers`, for the forms of frameworks and `http.server`: bytes, pairs, lists of values, other types."""
    if type(value) is CIMultiDictProxy:
        return value
    found, pairs = CIMultiDict[str](), value or ()
    try:
        for name, given in pairs.items() if isinstance(pairs, (Mapping, Message)) else pairs:
            for each in given if isinstance(given, (list, tuple)) else (given,):
                found.add(_text(name), _text(each))
    except (TypeError, ValueError) as error:
        raise ConfigError("headers must be a mapping, or pairs of a name and a value") from error
    return CIMultiDictProxy(found)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


@frozen(kw_only=True)
class Part:
    """One part of a multipart body: a text *value*, or the file at *path*, streamed from disk."""

    name: str
    value: str | None = None
    path: Path | None = None
    filename: str | None = None
    content_type: str | None = None


@frozen(kw_only=True)
class HttpRequest:
    """A request to send, with a *body* or *parts* (multipart/form-data), never both.

    The headers hold the API key, so they are not in its repr.
    """

    method: str
    url: URL
    headers: Headers = field(converter=_headers, factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    parts: tuple[Part, ...] = field(default=(), repr=False)


@frozen(kw_only=True)
class HttpResponse:
    """A complete response: status, headers, and the body in bytes."""

    status: int
    headers: Headers = field(converter=_headers, factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@frozen(kw_only=True)
class Webhook:
    """A webhook as received. The path has a secret tag and headers may have signatures: neither is in its repr.

    `received_at` is Unix seconds; the inbox fills it in if it is `None`.
    """

    path: str = field(default="", repr=False)
    headers: Headers = field(converter=_as_given, factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    received_at: float | None = None

    def at(self, received_at: float) -> Webhook:
        """Return the same webhook with *received_at* (Unix seconds), unless it already has a time."""
        if self.received_at is not None:
            return self
        return Webhook(path=self.path, headers=self.headers, body=self.body, received_at=received_at)


def retry_after(response: HttpResponse) -> float | None:
    """Return the wait in seconds of the `Retry-After` header, or `None` if it is missing or invalid.

    A date in it is compared with the response's own `Date`, since this pure function reads no clock.
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


def as_data(text: str, *, longest: int = LONGEST_TEXT) -> str:
    """Return a stranger's *text* for use in our messages: cut, printable, and with secrets masked."""
    return printable(mask(text[:longest]))


def excerpt(body: bytes, *, longest: int = LONGEST_EXCERPT) -> str:
    """Return the start of a stranger's *body* for use in our messages: one printable line with secrets masked."""
    text = mask(" ".join(body[: 4 * longest].decode("utf-8", "replace").split()))
    shown = printable(text)
    return (shown[: longest - 1] + "…" if len(shown) > longest else shown) or "an empty body"
