"""Local files that our receiver serves for a while, for providers that only take URLs."""

from __future__ import annotations

import secrets
from pathlib import Path

from attrs import define, field

from audioext.files.names import plain_suffix, safe_name


@define(eq=False)
class Offers:
    """The files on offer, each under an unguessable token."""

    _paths: dict[str, Path] = field(factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        """Return how many files are on offer."""
        return len(self._paths)

    def offer(self, path: Path) -> str:
        """Offer *path* and return the two last segments of its URL: a secret, and a harmless name."""
        token = secrets.token_urlsafe(32)
        self._paths[token] = path
        return f"{token}/{safe_name(path.stem)}{plain_suffix(path)}"

    def withdraw(self, offer: str) -> None:
        """Stop offering; harmless when it was withdrawn before."""
        self._paths.pop(offer.partition("/")[0], None)

    def find(self, token: str) -> Path | None:
        """Return the file offered under *token*, `None` for a guess."""
        return self._paths.get(token)
