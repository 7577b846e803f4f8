"""Runs one command to its exit code: errors become one sentence, or one JSON object, and Ctrl-C a way back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from typing import Any

from audioext.cli.exits import Exit, error_object, exit_code
from audioext.cli.options import OutputOptions
from audioext.cli.screen import Screen
from audioext.cli.text import clean, program
from audioext.errors import (
    AudioextError,
    ConfigError,
    DownloadError,
    JobError,
    JobFailedError,
    RequestError,
    StageTimeoutError,
    SubmitUnknownError,
)
from audioext.sandbox import FaultError, MissingExtraError

_FRESH_LINKS = ", so try `await job.refresh()` for fresh links"
SOURCE_NAMES = frozenset({"source", "file", "url", "audio_id"})
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
MISSING_SANDBOX = 'the sandbox needs two more packages: pip install "audioext[sandbox]"'

Work = Callable[[Screen], Coroutine[Any, Any, Exit]]


def execute(options: OutputOptions, work: Work) -> int:
    """Run *work* and return the exit code, having said what went wrong."""
    screen = Screen(options)
    with screen.logs():
        try:
            return int(asyncio.run(work(screen)))
        except KeyboardInterrupt:
            return _interrupted(screen)
        except BrokenPipeError:
            # Python would complain once more when it flushes stdout at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets a sentence and a code
            return _failed(screen, error)


@contextmanager
def stop_signals() -> Generator[asyncio.Event]:
    """Return what Ctrl-C or SIGTERM sets from now on: they end a server, which is no interruption."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    with suppress(NotImplementedError):  # Windows has no handlers on the loop; there Ctrl-C interrupts
        for number in signals:
            loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        with suppress(NotImplementedError):
            for number in signals:
                loop.remove_signal_handler(number)


def _failed(screen: Screen, error: Exception) -> int:
    error = _translated(error)
    if screen.options.debug:
        print("".join(traceback.format_exception(error)), file=sys.stderr)
    if screen.json:
        screen.emit(error_object(error))
    else:
        screen.error(_message(error))
        hint = _hint(screen, error)
        if hint:
            screen.note(f"  {hint}")
    return int(exit_code(error))


def _translated(error: Exception) -> Exception:
    """Return our error for one of the sandbox's, which knows nothing of a command line."""
    if isinstance(error, MissingExtraError):
        return ConfigError(MISSING_SANDBOX)
    if isinstance(error, FaultError):
        return ConfigError(str(error))
    return error


def _message(error: Exception) -> str:
    """Return the error's own sentence, with the names that its fields have on the command line."""
    if exit_code(error) is Exit.DEFECT:
        return f"{type(error).__name__}: {error} (a defect in audioext; --debug shows where)"
    if not isinstance(error, RequestError):
        return _in_options(clean(error))
    head = str(error).partition("\n")[0]
    return "\n".join((head, *(f"  {_option(one.field)}: {clean(one.message)}" for one in error.problems)))


def _in_options(message: str) -> str:
    """Return *message* with what it says in Python said as it is typed here."""
    return message.replace("pass `rehost=True`", "pass --rehost").replace(_FRESH_LINKS, "")


def _option(name: str) -> str:
    return "SOURCE" if name in SOURCE_NAMES else f"--{name.replace('_', '-')}"


def _hint(screen: Screen, error: Exception) -> str:
    """Return what to do next, where the error is not the end of the job."""
    ref, back = (error.job.ref if isinstance(error, (JobError, SubmitUnknownError)) else screen.ref), screen.way_back
    if ref is None or not back.is_kept or not isinstance(error, AudioextError):
        return ""
    if isinstance(error, DownloadError) and back.sandbox:
        return "what a sandbox made ends with the command that ran it: extend again, which saves the takes at once"
    if isinstance(error, StageTimeoutError) and back.sandbox:
        return f"but its sandbox has ended, and its task with it; what is known: {program()} show {ref}{back.options}"
    if isinstance(error, (JobFailedError, SubmitUnknownError)) or back.sandbox:
        return f"what is known of it: {program()} show {ref}{back.options}"
    if isinstance(error, DownloadError):
        return f"the job is complete; fetch it again: {program()} save {ref}{back.options}"
    return f"wait for it again: {program()} wait {ref}{back.options}" if isinstance(error, JobError) else ""


def _interrupted(screen: Screen) -> int:
    back = screen.way_back
    if back.sandbox:
        message = "interrupted; the sandbox has ended, and its task with it"
    elif screen.ref is None:
        message = f"interrupted; if a task was submitted, it goes on: {program()} jobs --open lists it"
    elif not back.is_kept:
        message = f"interrupted; the task goes on, but job {screen.ref} was in memory only: --store keeps the next one"
    else:
        message = f"interrupted; the task goes on. Come back to it: {program()} wait {screen.ref}{back.options}"
    if screen.json:
        facts = {"type": "Interrupted", "message": message, "exit_code": int(Exit.INTERRUPTED), "ref": screen.ref}
        screen.emit({"error": facts})
    else:
        screen.error(message)
    return int(Exit.INTERRUPTED)
