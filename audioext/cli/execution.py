"""Runs one command to its exit code: what went wrong is said, and an interruption says how to come back."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress

from audioext.cli.exits import Exit, leave
from audioext.cli.failures import advice, error_object, exit_code, interruption, sentence
from audioext.cli.options import Command
from audioext.cli.screen import Screen
from audioext.cli.text import moment

_ENDINGS = {signal.SIGTERM: Exit.TERMINATED}
if sys.platform != "win32":
    _ENDINGS[signal.SIGHUP] = Exit.HUNG_UP


class _EndedError(Exception):
    """A signal asked the command to end; `code` is how it ends."""

    def __init__(self, code: Exit) -> None:
        super().__init__(code)
        self.code = code


def execute(command: Command) -> int:
    """Run *command* and return the exit code, having said what went wrong."""
    screen = Screen(json=command.json)
    is_quiet = signal.getsignal(signal.SIGINT) is leave
    with _logs(command):
        try:
            if is_quiet:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            code = asyncio.run(_until_signal(command, screen))
            if is_quiet:  # again: all is said
                signal.signal(signal.SIGINT, leave)
            return int(code)
        except KeyboardInterrupt:
            return _interrupted(screen, Exit.INTERRUPTED)
        except _EndedError as error:
            return _interrupted(screen, error.code)
        except BrokenPipeError:
            # Python would complain once more when it flushes stdout at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.BROKEN_PIPE
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets a sentence and a code
            return _failed(screen, error, debug=command.debug)


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


async def _until_signal(command: Command, screen: Screen) -> Exit:
    """Run *command*; SIGTERM and SIGHUP cancel it, as asyncio does on Ctrl-C.

    Raises:
        _EndedError: one of them came.
    """
    loop, task, came = asyncio.get_running_loop(), asyncio.current_task(), list[Exit]()

    def end(code: Exit) -> None:
        came.append(code)
        if task is not None:
            task.cancel()

    with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or no main thread
        for number, code in _ENDINGS.items():
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup, for one, wants it ignored
                loop.add_signal_handler(number, end, code)
    try:
        return await command.run(screen)
    except asyncio.CancelledError:
        if came:
            raise _EndedError(came[0]) from None
        raise


def _failed(screen: Screen, error: Exception, *, debug: bool) -> int:
    if debug:
        print("".join(traceback.format_exception(error)), file=sys.stderr)
    if screen.json:
        screen.emit(error_object(error))
    else:
        screen.error(sentence(error))
        hint = advice(screen, error)
        if hint:
            screen.note(f"  {hint}")
    return exit_code(error)


def _interrupted(screen: Screen, code: Exit) -> int:
    message = interruption(screen)
    if screen.json:
        facts = {"type": "Interrupted", "message": message, "exit_code": int(code), "ref": screen.ref}
        screen.emit({"error": facts})
    else:
        with suppress(OSError):  # a terminal that hung up reads nothing more
            screen.error(message)
    return code


@contextmanager
def _logs(command: Command) -> Generator[None]:
    """Show what audioext logs: warnings, with `-v` information, with `--debug` everything, and when it was."""
    logger = logging.getLogger("audioext")
    level = logging.WARNING
    if command.verbose or command.debug:
        level = logging.DEBUG if command.debug else logging.INFO
    handler = _StderrHandler(is_timed=level < logging.WARNING)
    before = logger.level, logger.propagate
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class _StderrHandler(logging.Handler):
    """Looks up `sys.stderr` for each line: a live display puts its own there, and keeps the lines apart."""

    def __init__(self, *, is_timed: bool) -> None:
        super().__init__()
        self.is_timed = is_timed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            when = f"{moment(record.created)} " if self.is_timed else ""
            print(f"{when}{record.levelname.lower()} {record.name}: {self.format(record)}", file=sys.stderr)
        except Exception:  # noqa: BLE001 - logging's own rule: a line that cannot be written ends nothing
            self.handleError(record)
