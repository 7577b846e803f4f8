"""What is said of an error: its exit code, its sentence in the words of the command line, what to do next."""

from __future__ import annotations

import re
import shlex

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


_CODES: tuple[tuple[Exit, tuple[type[BaseException], ...]], ...] = (
    (Exit.FAILED, (JobFailedError,)),
    (Exit.UNKNOWN, (SubmitUnknownError,)),
    (Exit.TIMEOUT, (StageTimeoutError, ClientClosedError)),
    (Exit.STORE, (StoreError,)),
    (Exit.DOWNLOAD, (DownloadError,)),
    (Exit.USAGE, (ConfigError, RequestError, UnsupportedError)),
    (Exit.REFUSED, (JobError, ProviderError, DecodeError, WebhookError, ForwardError)),
)
"""The first line that fits counts, so the narrow classes stand above the broad ones."""
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
_HOSTS = re.compile(r'allow_hosts=\[("[^"]*"(?:, "[^"]*")*)\]')
_HOST = re.compile(r'"([^"]*)",?')
_SETTING = re.compile(r"`?\b((?:public|base)_url\b=?|listen(?:=|(?= must)))`?")


class NoSuchRefError(StoreError):
    """The store holds no such thing; `audioext jobs` and `audioext inbox` list what it holds."""


def exit_code(error: BaseException) -> Exit:
    """Return the exit code of a command that ends with *error*."""
    return next((code for code, kinds in _CODES if isinstance(error, kinds)), Exit.DEFECT)


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
    ref = error.job.ref if isinstance(error, (JobError, SubmitUnknownError)) else screen.ref
    if ref is None or not screen.is_kept or not isinstance(error, AudioextError):
        return ""
    is_of_job = isinstance(error, (JobError, SubmitUnknownError, ProviderError))
    if screen.is_sandboxed:
        if isinstance(error, DownloadError):
            return "what a sandbox made ends with the command that ran it: extend again, which saves the tracks at once"
        if isinstance(error, StageTimeoutError):
            known = screen.hint("show", of=ref)
            return f"but its sandbox has ended, and its task with it; what is known: {known}"
    elif isinstance(error, DownloadError):
        return f"the job is complete; fetch it again: {screen.hint('save', of=ref)}"
    elif isinstance(error, (StageTimeoutError, ClientClosedError)):
        return f"wait for it again: {screen.hint('wait', of=ref)}"
    return f"what is known of it: {screen.hint('show', of=ref)}" if is_of_job or screen.is_sandboxed else ""


def interruption(screen: Screen) -> str:
    """Return what becomes of the task of a command that is interrupted."""
    if screen.ref is None and not screen.is_asked:
        return "interrupted"
    if screen.is_sandboxed:
        return "interrupted; the sandbox has ended, and its task with it"
    if screen.ref is None:
        return f"interrupted; if a task was submitted, it goes on: {screen.hint('jobs', '--open')} lists it"
    if not screen.is_kept:
        return f"interrupted; the task goes on, but job {screen.ref} was in memory only: --store keeps the next one"
    return f"interrupted; the task goes on. Come back to it: {screen.hint('wait', of=screen.ref)}"


def _option(name: str) -> str:
    return "SOURCE" if name in SOURCE_NAMES else f"--{name.replace('_', '-')}"


def _typed(words: str) -> str:
    words = clean(words)
    for of_library, typed in _IN_OPTIONS:
        words = words.replace(of_library, typed)
    return _HOSTS.sub(lambda found: _HOST.sub(lambda host: f"--allow-host {shlex.quote(host[1])}", found[1]), words)
