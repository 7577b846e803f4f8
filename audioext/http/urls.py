"""The paths under the public URL: building a callback's, reading one, and hiding its secret."""

from __future__ import annotations

import re

from attrs import field, frozen
from yarl import URL

from audioext.errors import WebhookError
from audioext.http import signing

FILES_SEGMENT = "files"
CHECK_SEGMENT = "check"
"""Stands where a provider's name stands in a callback, so that a check takes the way that webhooks take."""
MASK = "***"
_CALLBACK = re.compile(
    r"(?:^|/)(?P<provider>[a-z0-9-]{1,64})/(?P<ref>[0-9a-z]{8,64})/(?P<tag>[\w%.~-]{1,128})/?$", re.ASCII
)
# A prefix may have any number of segments, so what comes before the secret does not tell where it is: its own shape
# does, and else that it ends the path. JSON may write a slash as \/, a proxy as %2F, and that once more as %252F.
_SECRET_PATH = re.compile(
    r"""(
      (?:(?<![\w%.~-])|(?<=%2[Ff])|(?<=52[Ff]))  # ref and tag, as we make them, or a file's token
      (?:[0-9a-z]{24}|files)(?:\\?/|%(?:25)*+2[Ff])+ (?=[\w-]{43}(?![\w-]))
    | =(?=[\w-]{43}(?![\w-]))  # somebody asked with it in a query
    | (?<![\w%.~-])(?:
        files(?:\\?/)+ (?=[^/?\s"\\]++(?:(?:\\?/)+[^/?\s"\\]*+)?(?:\\?/)?(?!\\/|[^?\s"\\]))
      | [a-z0-9-]{1,64}(?:\\?/)+[0-9a-z]{8,64}(?:\\?/)+ (?=[\w%.~-]++(?!(?:\\?/)+[\w%.~-]))
      )
    )[\w%.~-]+""",
    re.ASCII | re.VERBOSE,
)

_PASSWORD = re.compile(r"(?<=password=)[^&\s]*", re.IGNORECASE)
_BARE_NAME = re.compile(r"\A[^/\s]*@")  # of a URL whose scheme is missing
_SPACES = re.compile(r"(\s+)")


@frozen
class Route:
    """Which job a callback path names. The tag does not show."""

    provider: str
    ref: str
    tag: str = field(repr=False)


def callback_url(public_url: URL, secret: bytes, provider: str, ref: str) -> URL:
    """Return the URL that the provider is asked to call for *ref*."""
    # All three are safe in a path as they are, and a path that is only put in its place is not parsed.
    path = f"{public_url.raw_path.rstrip('/')}/{provider}/{ref}/{signing.tag(secret, provider, ref)}"
    return public_url.with_path(path, encoded=True)


def read_callback(path: str) -> Route:
    """Return the route in the last three segments of *path*, or raise WebhookError: it is no callback path (404)."""
    found = _CALLBACK.search(path.partition("?")[0])
    if found is None:
        raise WebhookError("no such route", http_status=404)
    return Route(found["provider"], found["ref"], found["tag"])


def mask(text: str) -> str:
    """Return *text* with the secret segment of every callback or file path hidden."""
    return _SECRET_PATH.sub(lambda found: found[1] + MASK, text)


def without_password(text: str) -> str:
    """Return *text* with the name and password of every URL hidden, also where it is a broken one."""
    text = "".join(map(_without_name, _SPACES.split(_BARE_NAME.sub(f"{MASK}@", text))))
    return _PASSWORD.sub(MASK, text)


def _without_name(word: str) -> str:
    scheme, slashes, rest = word.partition("//")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{slashes}{MASK}@{host}" if at else word
