"""Linux's inotify, which Python's library lacks: a descriptor that is readable once a file was written to.

man7.org/linux/man-pages/man7/inotify.7.html; the numbers are those of linux/inotify.h.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

_MODIFY, _IGNORED = 0x2, 0x8000
_EVENT = struct.Struct("iIII")  # of a watched file, whose events have no name: the watch, a mask, a cookie, a length
_EVENTS_BYTES = 256 * _EVENT.size


def watch(path: Path) -> int | None:
    """Return a descriptor for the file at *path*; `None` if the system, the file or the user's limits allow none."""
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415 - only here is it needed

    library = ctypes.CDLL(None)
    watching: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watching >= 0 and library.inotify_add_watch(watching, os.fsencode(path), _MODIFY) < 0:
        os.close(watching)
        return None
    return watching if watching >= 0 else None


def holds(watching: int) -> bool:
    """Read the events of a descriptor, and return whether it will get more: not once its file is deleted."""
    return not any(mask & _IGNORED for _, mask, *_ in _EVENT.iter_unpack(os.read(watching, _EVENTS_BYTES)))
