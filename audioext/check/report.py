"""What a check found: a line for each thing that was looked at, with what to do where it is not well."""

from __future__ import annotations

from functools import partial
from typing import Literal

from attrs import field, frozen

from audioext.errors import printable
from audioext.http.urls import mask, without_password

CheckState = Literal["ok", "warning", "failed"]


def _safe(text: str) -> str:
    """Return *text* on one line, without a tag or a password: proxies and vendors quote what they were sent."""
    return without_password(mask(printable(text)))


@frozen
class CheckLine:
    """One thing that was looked at: its `name`, how it is, what was `seen`, and the `advice` where it is not well."""

    name: str
    seen: str = field(converter=_safe)
    advice: str = field(default="", converter=_safe)
    state: CheckState = field(kw_only=True)

    def __str__(self) -> str:
        """Return a line, and one more with the advice."""
        advice = f"\n         {self.advice}" if self.advice else ""
        return f"{self.state:<7}  {self.name}: {self.seen}{advice}"


@frozen
class CheckReport:
    """The lines of a check, in the order in which they build on each other."""

    lines: tuple[CheckLine, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed; there may be warnings."""
        return all(line.state != "failed" for line in self.lines)

    def __str__(self) -> str:
        """Return what was seen of each thing, and what to do."""
        return "\n".join(map(str, self.lines))


ok = partial(CheckLine, state="ok")
warning = partial(CheckLine, state="warning")
failed = partial(CheckLine, state="failed")
