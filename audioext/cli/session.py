"""Runs one command to its exit code: errors become one sentence, or one JSON object, and Ctrl-C a way back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from audioext.cli.exits import Exit, error_object, exit_code
from audioext.cli.options import OutputOptions
from audioext.cli.screen import Screen
from audioext.errors import AudioextError, ConfigError, DownloadError, JobError, JobFailedError, SubmitUnknownError
from audioext.sandbox import FaultError, MissingExtraError

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


async def until_stopped() -> None:
    """Return at Ctrl-C or SIGTERM: how one ends a server, and no interruption."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    with suppress(NotImplementedError):  # Windows has no handlers on the loop; there Ctrl-C interrupts
        for number in signals:
            loop.add_signal_handler(number, stopped.set)
    try:
        await stopped.wait()
    finally:
        with suppress(NotImplementedError):
            for number in signals:
                loop.remove_signal_handler(number)


async def first_of(*works: Awaitable[None]) -> None:
    """Wait until one of *works* ends, then end the others; an error of one is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(screen: Screen, error: Exception) -> int:
    error = _translated(error)
    if screen.options.debug:
        print("".join(traceback.format_exception(error)), file=sys.stderr)
    message = str(error)
    if exit_code(error) is Exit.DEFECT:
        message = f"{type(error).__name__}: {error} (a defect in audioext; --debug shows where)"
    if screen.json:
        screen.emit(error_object(error, message))
    else:
        screen.error(message)
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


def _hint(screen: Screen, error: Exception) -> str:
    """Return what to do next, where the error is not the end of the job."""
    ref = error.job.ref if isinstance(error, JobError) else screen.ref
    if ref is None or not isinstance(error, AudioextError):
        return ""
    if isinstance(error, DownloadError):
        return f"the job is complete; fetch it again: audioext save {ref}{screen.come_back}"
    if isinstance(error, (JobFailedError, SubmitUnknownError)):
        return f"what is known of it: audioext show {ref}{screen.come_back}"
    if isinstance(error, JobError):
        return f"wait for it again: audioext wait {ref}{screen.come_back}"
    return ""


def _interrupted(screen: Screen) -> int:
    if screen.ref is None:
        message = "interrupted; if a task was submitted, it goes on: audioext jobs --open lists it"
    else:
        message = f"interrupted; the task goes on. Come back to it: audioext wait {screen.ref}{screen.come_back}"
    if screen.json:
        facts = {"type": "Interrupted", "message": message, "exit_code": int(Exit.INTERRUPTED), "ref": screen.ref}
        screen.emit({"error": facts})
    else:
        screen.note("")
        screen.error(message)
    return int(Exit.INTERRUPTED)
