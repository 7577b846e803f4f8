"""The exit codes, for scripts to branch on, and what else must work before any package is imported."""

from __future__ import annotations

import enum
import errno
import os
import sys

EXTRAS = {
    **dict.fromkeys(("cyclopts", "rich"), "cli"),
    **dict.fromkeys(("numpy", "soundfile"), "sandbox"),
    "standardwebhooks": "forward",
    **dict.fromkeys(("mcp", "pydantic", "starlette", "uvicorn"), "mcp"),
}
"""The packages that may be missing, and the extras that install them."""
_NEEDS = {"cli": "the command line", "forward": "forwarding", "mcp": "the MCP server", "sandbox": "the sandbox"}


class Exit(enum.IntEnum):
    """How a command ended; `meaning` is its line under `audioext --help`."""

    meaning: str

    def __new__(cls, code: int, meaning: str = "") -> Exit:  # noqa: PYI034 - `typing` is slow to import
        """Create the member with the value *code*."""
        made = int.__new__(cls, code)
        made._value_, made.meaning = code, meaning
        return made

    OK = 0, "done"
    DEFECT = 1, "a defect in audioext; --debug shows where"
    USAGE = 2, "the command, the request or a setting is wrong; nothing was sent"
    REFUSED = 3, "the provider or, for replay and forward, the called receiver refused or answered unreadably"
    FAILED = 4, "the provider gave the task up"
    TIMEOUT = 5, "not complete in time; the job lives on: audioext wait REF"
    UNKNOWN = 6, "it is unknown whether the task was made; look at the provider first"
    DOWNLOAD = 7, "a file could not be saved; the job is complete: audioext save REF"
    STORE = 8, "the store cannot be read or written, or does not hold the job"
    UNWELL = 9, "doctor found something that does not work"
    HUNG_UP = 129
    INTERRUPTED = 130, "Ctrl-C (143 after SIGTERM, 129 after SIGHUP); the task lives on"
    BROKEN_PIPE = 141, "the output cannot be written: its reader is gone, or the disk is full"
    TERMINATED = 143


def is_output_lost(error: Exception) -> bool:
    """Return whether *error* comes from writing the output: the reader is gone, or the disk is full."""
    return isinstance(error, OSError) and error.errno in {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO}


def lose_output(error: OSError) -> int:
    """Redirect to nowhere what could not be written, and return the exit code."""
    # Else Python reports the error once more when it flushes at exit, and exits with 120.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    try:
        if error.errno != errno.EPIPE:
            print(f"audioext: cannot write the output: {error.strerror}", file=sys.stderr)
        sys.stderr.flush()
    except OSError:  # stderr is what was lost
        os.dup2(nowhere, sys.stderr.fileno())
    return Exit.BROKEN_PIPE


def leave(*_: object) -> None:
    """End the process at once: before a command runs there is nothing to report or to undo."""
    os._exit(Exit.INTERRUPTED)


def epilogue() -> str:
    """Return the table of exit codes for the end of the main help text."""
    return "Exit codes\n\n" + "\n".join(f"{int(code):>5}  {code.meaning}" for code in Exit if code.meaning)


def missing_extra(error: Exception) -> str | None:
    """Return how to install the extra whose package *error* failed to import, `None` for any other error."""
    missing = error.__cause__ or error  # the parser and the sandbox wrap the ImportError
    name = missing.name if isinstance(error, ImportError) and isinstance(missing, ImportError) else None
    extra = EXTRAS.get((name or "").partition(".")[0])
    if extra is None:
        return None
    from audioext.errors import lacks_extra  # noqa: PLC0415 - as the docstring above says

    return lacks_extra(_NEEDS[extra], extra)
