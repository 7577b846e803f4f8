"""What is said of an error: its exit code, its sentence in the words of the command line, what to do next."""

from __future__ import annotations

import re

from audioext.cli.exits import Exit
from audioext.cli.screen import Screen
from audioext.cli.text import clean
from audioext.errors import (
    AudioextError,
    ConfigError,
    DecodeError,
    DownloadError,
    ProviderError,
    RequestError,
    StoreError,
    UnsupportedError,
    WebhookError,
)
from audioext.runtime.jobs import ClientClosedError, JobError, JobFailedError, StageTimeoutError, SubmitUnknownError

SOURCE_NAMES = frozenset({"source", "file", "url", "audio_id"})


class ForwardError(AudioextError):
    """The app did not take an event; it is sent again, and then listed by `audioext jobs --undelivered`."""


# The first class that fits counts, so the narrow ones stand above the broad ones.
_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (JobFailedError, Exit.FAILED),
    (SubmitUnknownError, Exit.UNKNOWN),
    (StageTimeoutError, Exit.TIMEOUT),
    (ClientClosedError, Exit.TIMEOUT),
    (JobError, Exit.REFUSED),  # its submit was
    (StoreError, Exit.STORE),
    (DownloadError, Exit.DOWNLOAD),
    (ConfigError, Exit.USAGE),
    (RequestError, Exit.USAGE),
    (UnsupportedError, Exit.USAGE),
    (ProviderError, Exit.REFUSED),
    (DecodeError, Exit.REFUSED),
    (WebhookError, Exit.REFUSED),
    (ForwardError, Exit.REFUSED),
)
_FACTS = ("provider", "http_status", "code", "retryable", "charged", "retry_after", "reason")
# What the library says of its arguments, and what is typed here instead.
_IN_OPTIONS = (
    ("pass `rehost=True`", "pass --rehost"),
    ("custom=False", "--no-custom"),
    (", or pass api_key=", " in the environment; --sandbox needs none"),
    ("choose another --listen", "choose another --listen, or `--listen none` where `audioext listen` runs there"),
    (", or mount receiver.add_to(app), or pass url= instead of file=", ", or pass a URL instead of a file"),
    (", `await song.recover()` tries it again", ""),
)
_SETTING = re.compile(r"`?\b((?:public|base)_url\b=?|listen(?:=|(?= must)))`?")


class NoSuchRefError(StoreError):
    """The store holds no such thing; `audioext jobs` and `audioext inbox` list what it holds."""


def exit_code(error: BaseException) -> Exit:
    """Return the exit code of a command that ends with *error*."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.DEFECT)


def error_object(error: Exception) -> dict[str, object]:
    """Return *error* as the JSON object that `--json` prints, with the facts that a script may branch on."""
    head = {"type": type(error).__name__, "message": sentence(error), "exit_code": int(exit_code(error))}
    return {"error": head | error_facts(error)}


def error_facts(error: Exception) -> dict[str, object]:
    """Return what a program may branch on: what the provider said, what it cost, the problems, the job."""
    facts: dict[str, object] = {}
    if isinstance(error, AudioextError):
        facts |= {name: getattr(error, name) for name in _FACTS if hasattr(error, name)}
    if isinstance(error, RequestError):
        facts["problems"] = [{"field": one.field, "message": one.message} for one in error.problems]
    if isinstance(error, DownloadError):
        facts["problems"] = list(error.problems)
        facts["files"] = [str(path) for path in error.paths]
    if isinstance(error, (JobError, SubmitUnknownError)):
        facts |= {"ref": error.job.ref, "provider": error.job.provider, "task_id": error.job.task_id}
    return facts


def sentence(error: Exception) -> str:
    """Return the error's own sentence, with the names that its fields have on the command line."""
    if exit_code(error) is Exit.DEFECT:
        return f"{type(error).__name__}: {error} (a defect in audioext; --debug shows where)"
    if isinstance(error, RequestError):
        head = str(error).partition("\n")[0]
        return "\n".join((head, *(f"  {_option(one.field)}: {_typed(one.message)}" for one in error.problems)))
    words = str(error)
    if isinstance(error, (ConfigError, UnsupportedError)):
        words = _SETTING.sub(lambda found: _option(found[1].rstrip("=")), words)
    return _typed(words)


def advice(screen: Screen, error: Exception) -> str:
    """Return what to do next, where the error is not the end of the job."""
    job, ref = screen.job, error.job.ref if isinstance(error, (JobError, SubmitUnknownError)) else screen.ref
    if ref is None or not job.is_kept or not isinstance(error, AudioextError):
        return ""
    if job.sandbox and isinstance(error, DownloadError):
        return "what a sandbox made ends with the command that ran it: extend again, which saves the tracks at once"
    if job.sandbox and isinstance(error, StageTimeoutError):
        return f"but its sandbox has ended, and its task with it; what is known: {job.command('show', ref)}"
    if not job.sandbox and isinstance(error, DownloadError):
        return f"the job is complete; fetch it again: {job.command('save', ref)}"
    if not job.sandbox and isinstance(error, (StageTimeoutError, ClientClosedError)):
        return f"wait for it again: {job.command('wait', ref)}"
    is_of_job = job.sandbox or isinstance(error, (JobError, SubmitUnknownError, ProviderError))
    return f"what is known of it: {job.command('show', ref)}" if is_of_job else ""


def interruption(screen: Screen) -> str:
    """Return what becomes of the task of a command that is interrupted."""
    job, ref = screen.job, screen.ref
    if ref is None and not job.is_asked:
        return "interrupted"
    if job.sandbox:
        return "interrupted; the sandbox has ended, and its task with it"
    if ref is None:
        return f"interrupted; if a task was submitted, it goes on: {job.command('jobs', '--open')} lists it"
    if not job.is_kept:
        return f"interrupted; the task goes on, but job {ref} was in memory only: --store keeps the next one"
    return f"interrupted; the task goes on. Come back to it: {job.command('wait', ref)}"


def _option(name: str) -> str:
    return "SOURCE" if name in SOURCE_NAMES else f"--{name.replace('_', '-')}"


def _typed(words: str) -> str:
    words = clean(words)
    for of_library, typed in _IN_OPTIONS:
        words = words.replace(of_library, typed)
    return words
