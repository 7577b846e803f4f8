"""The exit codes, for scripts to branch on."""

from __future__ import annotations

import enum
import os
from types import FrameType


class Exit(enum.IntEnum):
    """How a command ended."""

    OK = 0
    DEFECT = 1
    USAGE = 2
    REFUSED = 3
    FAILED = 4
    TIMEOUT = 5
    UNKNOWN = 6
    DOWNLOAD = 7
    STORE = 8
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    """What a shell reports for a program that SIGPIPE ended."""
    TERMINATED = 143


MEANINGS = {
    Exit.OK: "done",
    Exit.DEFECT: "a defect in audioext; --debug shows where",
    Exit.USAGE: "the command, the request or a setting is wrong; nothing was sent",
    Exit.REFUSED: "the provider refused, or its answer is unreadable (replay: the receiver)",
    Exit.FAILED: "the provider gave the task up",
    Exit.TIMEOUT: "not complete in time; the job lives on: audioext wait REF",
    Exit.UNKNOWN: "nobody knows whether the task was made; look at the provider first",
    Exit.DOWNLOAD: "a file could not be saved; the job is complete: audioext save REF",
    Exit.STORE: "the store cannot be read or written, or does not hold the job",
    Exit.INTERRUPTED: "Ctrl-C (143 after SIGTERM); the task lives on: audioext wait REF",
}


def leave(number: int, frame: FrameType | None) -> None:
    """End the process at once: until a command runs, an interruption has nothing to say and nothing to undo."""
    del number, frame
    os._exit(Exit.INTERRUPTED)


def epilogue() -> str:
    """Return the table of exit codes as it stands under the main help text."""
    return "Exit codes\n\n" + "\n".join(f"{int(code):>5}  {meaning}" for code, meaning in MEANINGS.items())
