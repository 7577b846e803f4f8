"""How a track compares with its source."""

from __future__ import annotations

from attrs import frozen

ALIKE_FROM = 0.9  # the same music through two lossy encoders stays above 0.97, other music below 0.5


@frozen(kw_only=True)
class Likeness:
    """A track beside its source: both lengths in seconds, and how alike their beginnings are, from 0 to 1.

    `beginning` is `None` where the source is too short or too quiet to compare anything with it.
    """

    source_seconds: float
    track_seconds: float
    beginning: float | None

    @property
    def begins_like_it(self) -> bool | None:
        """Whether the track begins like the source, `None` where nobody can tell."""
        return None if self.beginning is None else self.beginning >= ALIKE_FROM

    @property
    def is_longer(self) -> bool:
        """Whether the track is longer than the source."""
        return self.track_seconds > self.source_seconds

    def __str__(self) -> str:
        """Say both in a few words: `20.0 s → 44.1 s, begins like it`."""
        words = {True: "begins like it", False: "does NOT begin like it", None: "too short or too quiet to compare"}
        return f"{self.source_seconds:.1f} s → {self.track_seconds:.1f} s, {words[self.begins_like_it]}"
