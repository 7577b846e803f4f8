"""Names for files that are whole: each is taken in one step, and no file of somebody else loses its own."""

from __future__ import annotations

import filecmp
import itertools
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def free_number(folder: Path, parts: Mapping[str, Path]) -> int:
    """Return the first number with which no name is another file's, so that the takes of a song have the same one.

    *parts* are the files by the names that they are to have.
    """

    def is_free(number: int) -> bool:
        targets = {_numbered(folder, name, number): part for name, part in parts.items()}
        with suppress(OSError):  # `name_part` meets the same error, and its caller tells it
            return all(_is_same(part, target) for target, part in targets.items() if target.exists())
        return True

    return next(filter(is_free, itertools.count(1)))


def name_part(part: Path, folder: Path, name: str, number: int, *, overwrite: bool) -> Path:
    """Move a whole file to its name in one step, or raise OSError.

    Without *overwrite* the name gets *number*, or a higher one where another file has it by now.
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
            pass  # just now: it is looked at
        except OSError:  # a file system without links
            return part.replace(target)
        if _is_same(part, target):
            return target  # it was saved before
        number += 1


def _numbered(folder: Path, name: str, number: int) -> Path:
    return folder / (name if number == 1 else f"{Path(name).stem} ({number}){Path(name).suffix}")


def _is_same(part: Path, target: Path) -> bool:
    return target.is_file() and filecmp.cmp(part, target, shallow=False)
