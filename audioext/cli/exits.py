"""How a command ends: one table from errors to exit codes, and an error as one JSON object."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from audioext.errors import (
    AudioextError,
    ClientClosedError,
    ConfigError,
    DecodeError,
    DownloadError,
    JobError,
    JobFailedError,
    Problem,
    ProviderError,
    RequestError,
    StageTimeoutError,
    StoreError,
    SubmitUnknownError,
    UnsupportedError,
    WebhookError,
)


class Exit(enum.IntEnum):
    """The exit codes, for scripts to branch on."""

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


MEANINGS: Mapping[Exit, str] = {
    Exit.OK: "done",
    Exit.DEFECT: "a defect in audioext; `--debug` shows where",
    Exit.USAGE: "the command, the request or the settings are wrong; nothing was sent",
    Exit.REFUSED: "the provider refused the call or its answer cannot be read (`replay`: the receiver refused)",
    Exit.FAILED: "the provider gave the task up",
    Exit.TIMEOUT: "not complete in time; the job lives on: `audioext wait REF`",
    Exit.UNKNOWN: "nobody knows whether the task was made; nothing was resent, look at the provider first",
    Exit.DOWNLOAD: "a file could not be saved; the job is complete: `audioext save REF`",
    Exit.STORE: "the store could not be read or written, or does not hold the job",
    Exit.INTERRUPTED: "Ctrl-C; the task lives on: `audioext wait REF`",
}

# The first class that fits counts, so the narrow ones stand above the broad ones.
_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (JobFailedError, Exit.FAILED),
    (SubmitUnknownError, Exit.UNKNOWN),
    (StageTimeoutError, Exit.TIMEOUT),
    (ClientClosedError, Exit.TIMEOUT),
    (JobError, Exit.STORE),
    (StoreError, Exit.STORE),
    (DownloadError, Exit.DOWNLOAD),
    (ConfigError, Exit.USAGE),
    (RequestError, Exit.USAGE),
    (UnsupportedError, Exit.USAGE),
    (ProviderError, Exit.REFUSED),
    (DecodeError, Exit.REFUSED),
    (WebhookError, Exit.REFUSED),
)

_FACTS = ("provider", "http_status", "code", "retryable", "charged", "retry_after", "reason")


class NoSuchRefError(StoreError):
    """The store holds no such thing; `audioext jobs` and `audioext inbox` list what it holds."""


def exit_code(error: BaseException) -> Exit:
    """Return the exit code of a command that ends with *error*."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.DEFECT)


def error_object(error: BaseException) -> dict[str, object]:
    """Return *error* as the JSON object that `--json` prints, with the facts that a script may branch on."""
    facts: dict[str, object] = {
        "type": type(error).__name__,
        "message": str(error),
        "exit_code": int(exit_code(error)),
    }
    if isinstance(error, AudioextError):
        facts |= {name: getattr(error, name) for name in _FACTS if hasattr(error, name)}
    if isinstance(error, RequestError):
        facts["problems"] = [_problem(problem) for problem in error.problems]
    if isinstance(error, DownloadError):
        facts["problems"] = list(error.problems)
        facts["files"] = [str(path) for path in error.paths]
    if isinstance(error, (JobError, SubmitUnknownError)):
        facts |= {"ref": error.job.ref, "provider": error.job.provider, "task_id": error.job.task_id}
    return {"error": facts}


def epilogue() -> str:
    """Return the table of exit codes as it stands under every help text (markdown)."""
    lines = "\n".join(f"- **{int(code)}** {meaning}" for code, meaning in MEANINGS.items())
    return f"**Exit codes**\n\n{lines}"


def _problem(problem: Problem) -> dict[str, object]:
    return {"field": problem.field, "message": problem.message}
