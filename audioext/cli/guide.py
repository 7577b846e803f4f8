"""`audioext guide`: prints the guide to writing a program."""

from __future__ import annotations

import sys
from importlib.resources import files

from audioext.cli.commands import GuideCommand
from audioext.cli.screen import Screen


async def guide(_: GuideCommand, screen: Screen) -> None:
    """Print the page as it is, or as one JSON string."""
    page = files("audioext").joinpath("SKILL.md").read_text(encoding="utf-8")
    if screen.json:
        screen.emit({"guide": page})
    else:
        sys.stdout.write(page)
