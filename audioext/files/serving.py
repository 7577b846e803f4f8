"""Local files that our receiver serves for a while, for providers that only take URLs."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO

from attrs import define, field, frozen

from audioext.files.formats import plain_suffix, safe_name
from audioext.http.messages import AUDIO_TYPES

_ONLY_FILES = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""No symbolic link, and no waiting for the other end of a pipe, whatever has the place of the file meanwhile."""


@frozen
class Offer:
    """A file on offer: the very one that was there, whatever is put in its place later."""

    path: Path
    identity: tuple[int, ...]

    @property
    def headers(self) -> dict[str, str]:
        """The headers that it is served with: it is audio, or bytes."""
        content_type = AUDIO_TYPES.get(self.path.suffix.lower(), "application/octet-stream")
        return {"Content-Type": content_type, "X-Content-Type-Options": "nosniff"}

    def open(self) -> BinaryIO | None:
        """Open it for reading, `None` where it is gone or another file has its place."""
        try:
            file = os.fdopen(os.open(self.path, os.O_RDONLY | _ONLY_FILES), "rb")
        except OSError:
            return None
        if _identity(os.fstat(file.fileno())) == self.identity:
            return file
        file.close()
        return None


@define(eq=False)
class Offers:
    """The files on offer, each under an unguessable token."""

    _offers: dict[str, Offer] = field(factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        """Return how many files are on offer."""
        return len(self._offers)

    def offer(self, path: Path) -> str:
        """Offer *path* and return the two last segments of its URL: a secret, and a harmless name, or raise OSError."""
        token = secrets.token_urlsafe(32)
        real = path.resolve()
        self._offers[token] = Offer(real, _identity(real.stat()))
        return f"{token}/{safe_name(path.stem)}{plain_suffix(path)}"

    def withdraw(self, offer: str) -> None:
        """Stop offering; harmless when it was withdrawn before."""
        self._offers.pop(offer.partition("/")[0], None)

    def find(self, token: str) -> Offer | None:
        """Return the file offered under *token*, `None` for a guess."""
        return self._offers.get(token)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # A new file often gets the inode of one that was just removed, and a recording may be written over.
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode), status.st_size, status.st_mtime_ns
