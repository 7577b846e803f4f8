"""Naming complete files: atomically, and without overwriting other files unless asked to."""

from __future__ import annotations

import filecmp
import itertools
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def free_number(folder: Path, parts: Mapping[str, Path]) -> int:
    """Return the lowest number under which all names are free, so that all tracks of a song get the same number.

    *parts* are the new files by their wanted names. A name is also free if the same content already has it.
    """

    def is_free(number: int) -> bool:
        targets = {_numbered(folder, name, number): part for name, part in parts.items()}
        with suppress(OSError):  # `name_part` raises the same error later, and its caller reports it
            return all(_is_same(part, target) for target, part in targets.items() if target.exists())
        return True

    return next(filter(is_free, itertools.count(1)))


def name_part(part: Path, folder: Path, name: str, number: int, *, overwrite: bool) -> Path:
    """Move *part* to its name atomically and return the path, or raise OSError.

    Without *overwrite* the name gets *number*, or a higher one if another file has taken it meanwhile.
    """
    if overwrite:
        return part.replace(folder / name)
    while True:
        target = _numbered(folder, name, number)
        try:
            if not target.exists():
                os.link(part, target)
                return target
        except FileExistsError:
            pass  # created just now: compared below
        except OSError:  # a file system without hard links
            return part.replace(target)
        if _is_same(part, target):
            return target  # saved before, with the same content
        number += 1


def _numbered(folder: Path, name: str, number: int) -> Path:
    return folder / (name if number == 1 else f"{Path(name).stem} ({number}){Path(name).suffix}")


def _is_same(part: Path, target: Path) -> bool:
    return target.is_file() and filecmp.cmp(part, target, shallow=False)
