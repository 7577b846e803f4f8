"""Runs one command to its exit code: what went wrong is said, and an interruption says how to come back."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

from audioext.cli.exits import Exit, leave
from audioext.cli.failures import advice, error_object, exit_code, interruption, sentence
from audioext.cli.options import Command
from audioext.cli.screen import Screen
from audioext.cli.text import dump, moment
from audioext.ui.objects import iso

_QUIET = {
    getattr(signal, name): handler
    for name, handler in (("SIGINT", leave), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL))
    if hasattr(signal, name)  # Windows has no SIGHUP
}
"""What interrupts, and what it does before and after a command: it ends the process at once."""
_FACTS = ("audioext_ref", "provider", "task_id", "stage")
"""What some log lines know beside their words."""
_SIGNALLED = 128  # a shell adds it to the number of the signal that ended a program


def execute(command: Command) -> int:
    """Run *command* and return the exit code, having said what went wrong."""
    screen, came = Screen(command=command, json=command.json), [Exit.INTERRUPTED]
    with _logs(command):
        try:
            loops = _fast_loop() if command.is_server else None
            with _interrupts(came), asyncio.Runner(loop_factory=loops) as runner:
                return runner.run(command.run(screen)) or Exit.OK
        except KeyboardInterrupt:
            return _interrupted(screen, came[-1])
        except BrokenPipeError:
            # Python would complain once more when it flushes stdout at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.BROKEN_PIPE
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets a sentence and a code
            return _failed(screen, error, debug=command.debug)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's event loops, `None` where the extra `speed` is not installed."""
    try:
        return importlib.import_module("uvloop").new_event_loop  # type: ignore[no-any-return]  # it may be missing
    except ImportError:
        return None


@contextmanager
def _interrupts(came: list[Exit]) -> Generator[None]:
    """Let SIGTERM and SIGHUP interrupt as Ctrl-C does, and note down what came; before and after, all end at once."""

    def end(number: int, _: FrameType | None) -> None:
        came.append(Exit(_SIGNALLED + number))
        if not callable(signal.getsignal(signal.SIGINT)):  # a shell's background job ignores it
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    is_main = threading.current_thread() is threading.main_thread()
    # Only what is as it was: nohup, for one, wants SIGHUP ignored.
    changed = [number for number, handler in _QUIET.items() if is_main and signal.getsignal(number) is handler]
    for number in changed:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, _QUIET[number])


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


def _failed(screen: Screen, error: Exception, *, debug: bool) -> int:
    if debug:
        print("".join(traceback.format_exception(error)), file=sys.stderr)
    screen.error(sentence(error), json=error_object(error))
    if not screen.json and (hint := advice(screen, error)):
        screen.note(f"  {hint}")
    return exit_code(error)


def _interrupted(screen: Screen, code: Exit) -> int:
    message = interruption(screen)
    # Whoever presses Ctrl-C twice wants to hear nothing of what was left open.
    logging.getLogger("asyncio").addHandler(logging.NullHandler())
    with suppress(OSError):  # a terminal that hung up reads nothing more
        facts = {"type": "Interrupted", "message": message, "exit_code": int(code), "ref": screen.ref}
        screen.error(message, json={"error": facts})
    return code


@contextmanager
def _logs(command: Command) -> Generator[None]:
    """Show what audioext logs, and when it was: warnings, with `-v` information, with `--debug` everything."""
    logger = logging.getLogger("audioext")
    handler = _StderrHandler(is_json=command.log_format == "json")
    before = logger.level, logger.propagate
    logger.setLevel("DEBUG" if command.debug else "INFO" if command.verbose else "WARNING")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class _StderrHandler(logging.Handler):
    """Looks up `sys.stderr` for each line: a live display puts its own there, and keeps the lines apart."""

    def __init__(self, *, is_json: bool) -> None:
        super().__init__()
        self._is_json = is_json

    def emit(self, record: logging.LogRecord) -> None:
        try:
            words, level = self.format(record), record.levelname.lower()  # a traceback is a part of the words
            line = f"{moment(record.created)} {level} {record.name}: {words}"
            if self._is_json:
                facts = {name: getattr(record, name) for name in _FACTS if hasattr(record, name)}
                named = {"time": iso(record.created), "level": level, "logger": record.name}
                line = dump({**named, "message": words, **facts})
            print(line, file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001 - logging's own rule: a line that cannot be written ends nothing
            self.handleError(record)
