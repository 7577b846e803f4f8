"""Runs one command to its exit code, reports its error, and after an interruption says how to come back to the job."""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import shlex
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import FrameType

from audioext.cli.exits import Exit, is_output_lost, leave, missing_extra
from audioext.cli.options import SOURCE_NAMES, Command
from audioext.cli.screen import Screen, clean, dump, moment
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
from audioext.ui.objects import iso

_log = logging.getLogger("audioext.cli")

_QUIET = {
    getattr(signal, name): handler
    for name, handler in (("SIGINT", leave), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL))
    if hasattr(signal, name)  # Windows has no SIGHUP
}
"""The signals that interrupt a command, and their handlers before and after it, which end the process at once."""
_LOGGED = ("audioext_ref", "provider", "task_id", "stage")
"""The extra fields of some log records."""
_SIGNALLED = 128  # a shell adds it to the number of the signal that ended a program


def execute(command: Command) -> int:
    """Run *command*, report its error, if any, and return the exit code."""
    screen, came = Screen(command=command, json=command.json), [Exit.INTERRUPTED]
    is_fast = command.is_server and find_spec("uvloop") is not None
    with _logs(command):
        try:
            run, loops = command.load(), importlib.import_module("uvloop").new_event_loop if is_fast else None
            with _interrupts(came), asyncio.Runner(loop_factory=loops) as runner:
                return runner.run(run(screen)) or Exit.OK
        except KeyboardInterrupt:
            # After a second Ctrl-C, asyncio would log whatever was left open.
            logging.getLogger("asyncio").addHandler(logging.NullHandler())
            with suppress(OSError):  # the terminal may be gone
                screen.fail("Interrupted", interruption(screen), came[-1], ref=screen.ref)
            return came[-1]
        except Exception as error:  # the user gets a sentence and an exit code for any error
            if is_output_lost(error):
                raise
            missing = missing_extra(error)
            return _failed(screen, error if missing is None else ConfigError(missing), debug=command.debug)


@contextmanager
def _interrupts(came: list[Exit]) -> Generator[None]:
    """Let SIGTERM and SIGHUP interrupt like Ctrl-C, and add their exit codes to *came*; restore the handlers after."""

    def end(number: int, _: FrameType | None) -> None:
        came.append(Exit(_SIGNALLED + number))
        if not callable(signal.getsignal(signal.SIGINT)):  # a shell's background job ignores it
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    is_main = threading.current_thread() is threading.main_thread()
    # Handlers that somebody else set are kept: nohup, for one, wants SIGHUP ignored.
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
    """Yield an event that Ctrl-C or SIGTERM sets: for a server these are a normal end, not an interruption."""
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
        _log.debug("the command failed", exc_info=error)
    code, words = exit_code(error), sentence(error)
    screen.fail(type(error).__name__, words, code, **error_facts(error))
    if not screen.json and (hint := advice(screen, error)):
        screen.note(f"  {hint}")
    return code


@contextmanager
def _logs(command: Command) -> Generator[None]:
    """Print audioext's log with times: warnings, with `-v` also INFO, with `--debug` everything."""
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
    """Looks up `sys.stderr` for each line: a live display replaces it, to keep log lines and display apart."""

    def __init__(self, *, is_json: bool) -> None:
        super().__init__()
        self._is_json = is_json

    def emit(self, record: logging.LogRecord) -> None:
        try:
            words, level = self.format(record), record.levelname.lower()  # with the traceback, if any
            line = f"{moment(record.created)} {level} {record.name}: {words}"
            if self._is_json:
                facts = {name: getattr(record, name) for name in _LOGGED if hasattr(record, name)}
                named = {"time": iso(record.created), "level": level, "logger": record.name}
                line = dump({**named, "message": words, **facts}, sys.stderr)
            print(line, file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001 - logging's own rule: a handler raises nothing
            self.handleError(record)


# --- error messages ---------------------------------------------------------------------------------------------


class ForwardError(AudioextError):
    """The app did not accept an event; it is retried, and in the end listed by `audioext jobs --undelivered`."""


_CODES: tuple[tuple[Exit, tuple[type[BaseException], ...]], ...] = (
    (Exit.FAILED, (JobFailedError,)),
    (Exit.UNKNOWN, (SubmitUnknownError,)),
    (Exit.TIMEOUT, (StageTimeoutError, ClientClosedError)),
    (Exit.STORE, (StoreError,)),
    (Exit.DOWNLOAD, (DownloadError,)),
    (Exit.USAGE, (ConfigError, RequestError, UnsupportedError)),
    (Exit.REFUSED, (JobError, ProviderError, DecodeError, WebhookError, ForwardError)),
)
"""The first match counts, so narrow classes come before broad ones."""
_FACTS = ("provider", "http_status", "code", "retryable", "charged", "retry_after", "reason")
# Messages write Python in backquotes. This is what to type on the command line instead.
_IN_OPTIONS = (
    ("`custom=False`", "--no-custom"),
    (", or pass `api_key=`", " in the environment; --sandbox needs none"),
    ("choose another `listen=`", "choose another --listen, or `--listen none` where `audioext listen` runs there"),
    (", or mount `receiver.add_to(app)`, or pass `url=` instead of `file=`", ", or pass a URL instead of a file"),
    ("use `track.extend()`, or `url=` with the track's audio URL", "the source is the track's audio URL"),
    ("wait `retry_after` seconds if it is set, or fit the provider's `limits` to your account", "try again later"),
    (", `await song.recover()` tries it again", ""),
)
_ARGUMENT = re.compile(r"`(base_url|listen|metrics|public_url|rehost|store)=(True)?`")
_HOST = re.compile(r'`allow_hosts=\["([^"]*)"\]`')


class NoSuchRefError(StoreError):
    """The store has no such job or delivery; `audioext jobs` and `audioext inbox` list its contents."""


def exit_code(error: BaseException) -> Exit:
    """Return the exit code of a command that ends with *error*."""
    return next((code for code, kinds in _CODES if isinstance(error, kinds)), Exit.DEFECT)


def error_facts(error: Exception) -> dict[str, object]:
    """Return the facts of an error for `--json`: the provider's answer, its cost, the problems, the job."""
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
    """Return the error's message, with the names of command-line options instead of Python arguments."""
    if exit_code(error) is Exit.DEFECT:
        return f"{type(error).__name__}: {error} (a defect in audioext; --debug shows where)"
    if isinstance(error, RequestError):
        # Keys are set in the environment, not by an option.
        named = ("" if one.field == "api_key" else f"{_option(one.field)}: " for one in error.problems)
        lines = (f"  {name}{in_cli_terms(one.message)}" for name, one in zip(named, error.problems, strict=True))
        return "\n".join((str(error).partition("\n")[0], *lines))
    return in_cli_terms(str(error))


def advice(screen: Screen, error: Exception) -> str:
    """Return what to do next, or an empty text if the error needs no advice."""
    ref = error.job.ref if isinstance(error, (JobError, SubmitUnknownError)) else screen.ref
    if ref is None or not screen.is_kept or not isinstance(error, AudioextError):
        return ""
    is_of_job = isinstance(error, (JobError, SubmitUnknownError, ProviderError))
    if screen.is_sandboxed:
        if isinstance(error, DownloadError):
            return "a sandbox's files are gone once its command ends: extend again, which saves the tracks at once"
        if isinstance(error, StageTimeoutError):
            known = screen.hint("show", of=ref)
            return f"but its sandbox has ended, and its task with it; see what is known: {known}"
    elif isinstance(error, DownloadError):
        return f"the job is complete; fetch it again: {screen.hint('save', of=ref)}"
    elif isinstance(error, (StageTimeoutError, ClientClosedError)):
        return f"wait for it again: {screen.hint('wait', of=ref)}"
    return f"see the job: {screen.hint('show', of=ref)}" if is_of_job or screen.is_sandboxed else ""


def interruption(screen: Screen) -> str:
    """Return the message for an interrupted command: what happens to its task."""
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


def in_cli_terms(words: str) -> str:
    """Return a message of the library with what to type on the command line instead of Python."""
    words = clean(words)
    for of_library, typed in _IN_OPTIONS:
        words = words.replace(of_library, typed)
    words = _ARGUMENT.sub(lambda found: _option(found[1]), words)
    return _HOST.sub(lambda found: f"--allow-host {shlex.quote(found[1])}", words)
