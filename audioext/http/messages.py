"""HTTP as values: a request to make, a response that came back, a webhook that arrived."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

Headers = Mapping[str, str]


def _headers(value: Headers) -> CIMultiDictProxy[str]:
    """Return *value* as a read-only mapping that ignores the case of names, as HTTP does."""
    return value if type(value) is CIMultiDictProxy else CIMultiDictProxy(CIMultiDict(value))


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
    """A request to make. It has a *body* or *parts* (multipart/form-data), never both.

    Headers hold the API key, so they do not show in its repr.
    """

    method: str
    url: URL
    headers: Headers = field(converter=_headers, factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    parts: tuple[Part, ...] = field(default=(), repr=False)


@frozen(kw_only=True)
class HttpResponse:
    """A whole response: its status, its headers and its body as bytes."""

    status: int
    headers: Headers = field(converter=_headers, factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@frozen(kw_only=True)
class Webhook:
    """A delivery as it arrived. `path` holds a secret tag and headers may hold signatures: neither shows.

    `received_at` is Unix seconds; the inbox stamps it where it is `None`.
    """

    path: str = field(default="", repr=False)
    headers: Headers = field(converter=_headers, factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    received_at: float | None = None

    def at(self, received_at: float) -> Webhook:
        """Return the same delivery, stamped with *received_at* (Unix seconds) unless it has a time."""
        if self.received_at is not None:
            return self
        return Webhook(path=self.path, headers=self.headers, body=self.body, received_at=received_at)
