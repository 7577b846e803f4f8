"""HTML for notebooks, in which text from outside is escaped and only http(s) URLs become links."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

COVER_PIXELS = 64


def player(title: str, audio_url: str | None, image_url: str | None) -> str:
    """Return a row with the title, and with the cover and an audio player if there are links for them."""
    cover = audio = ""
    if _is_link(image_url):
        cover = (
            f'<img src="{escape(image_url or "")}" alt="" width="{COVER_PIXELS}" loading="lazy" '
            'referrerpolicy="no-referrer"> '
        )
    if _is_link(audio_url):
        audio = f' <audio controls preload="none" src="{escape(audio_url or "")}"></audio>'
    return f"<div>{cover}<span>{escape(title)}</span>{audio}</div>"


def table(caption: str, rows: Iterable[Sequence[str]]) -> str:
    """Return an HTML table of text cells."""
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"


def _is_link(url: str | None) -> bool:
    return url is not None and url.lower().startswith(("https://", "http://"))
