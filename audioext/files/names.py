"""File names that are harmless on every system."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

MAX_NAME_BYTES = 120
"""File systems allow 255; a suffix, a number and ".part" must fit as well."""
_WINDOWS_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def safe_name(title: str) -> str:
    """Return *title* as a file name without a suffix that is harmless on every system; it may be empty."""
    text = unicodedata.normalize("NFC", title)
    text = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text)
    text = re.sub(r'[<>:"/\\|?*\x00-\x1f]', " ", text)
    text = re.sub(r"\s+", " ", text).strip(" .")
    text = text.encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore").strip(" .")
    return f"_{text}" if text.partition(".")[0].lower() in _WINDOWS_NAMES else text


def plain_suffix(path: Path) -> str:
    """Return the suffix of *path* in small letters if it is a plain one, else nothing."""
    suffix = path.suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""
