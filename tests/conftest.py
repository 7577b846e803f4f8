"""Shared by all tests: Hypothesis profiles, coverage rules, and fixtures that fail a test for leaks or lost errors."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from tests.support.ports import free_port

# Without cached bytecode, each of the hundreds of child processes would compile the package and its tests again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Each process that imports aiohttp parses the system's certificates, which takes a fifth of the import's time. No test
# talks to a server that has one of them.
os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}

# For each connection redis-py reads its own version from its package's metadata.
importlib.metadata.version = functools.cache(importlib.metadata.version)

# Python's default, a collection per 700 new objects, takes a twentieth of the suite's time and a fifth of the imports'.
# `nothing_is_forgotten` collects after each test.
gc.set_threshold(100_000, 50, 100)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs ignore it; children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # `nohup` ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


for profile, examples in (("quick", 20), ("ci", 50), ("thorough", 1_000)):
    settings.register_profile(
        profile,
        deadline=None,
        max_examples=examples,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
settings.load_profile("quick")

# Asyncio's debug mode (-o asyncio_debug=true, used by .ci/run on one Python) checks threads and callbacks. It also
# records where each was created, which takes a third of the run time: raise these two numbers to see where a leaked
# task comes from.
asyncio.constants.DEBUG_STACK_DEPTH = 0  # type: ignore[attr-defined]  # typeshed leaves it out
sys.tracebacklimit = 1  # asyncio's C code reads this; 0 would omit the "Traceback" line, which tests look for

TESTS = Path(__file__).parent
WHOLES = {
    *("processes", "security"),
    *(f"test_{name}.py" for name in ("example_bots", "examples", "guide", "hints", "matrix", "readme", "wheel")),
}
"""Folders and files of tests that run whole programs, or every path through one."""

AGAIN = {
    *(f"unit/runtime/test_{name}.py" for name in ("handler_wishes", "handlers", "hardening", "limits")),
    *(f"unit/stores/test_conformance_{name}.py" for name in ("changes", "history", "work", "writers")),
    *("unit/stores/test_memory.py", "unit/stores/test_sqlite_processes.py", "unit/providers/test_kinds.py"),
    *(f"integration/client/test_{name}.py" for name in ("handlers", "limits", "restart", "store_faults", "waits")),
}
"""Files of tests that run the same lines as earlier ones in other orders, on other engines or with other values."""

GRACE_SECONDS = 10.0
"""How long a task may take to end by itself after its test."""


def pytest_xdist_auto_num_workers() -> int:
    """Use half as many workers again as there are processors: tests with real processes mostly wait."""
    return round(1.5 * (os.cpu_count() or 1)) or 1


def pytest_collection(session: pytest.Session) -> None:
    """Let each worker load another part of the tests first.

    In a new clone nothing has bytecode. Workers that load the same files at the same time would all compile them.
    """
    worker: dict[str, Any] | None = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    root, here = session.config.rootpath, session.config.invocation_params.dir
    places = [here / argument.partition("::")[0] for argument in session.config.args]
    paths = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("test_*.py")))]
    first = len(paths) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for path in paths[first:] + paths[:first]:
        with suppress(Exception, pytest.fail.Exception, pytest.skip.Exception):  # collection says what is wrong
            importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Exclude random tests, whole programs and repeats from coverage.

    The coverage gate must not depend on luck, and measuring takes time.
    """
    is_random = isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)
    path = item.path.relative_to(TESTS)
    if is_random or WHOLES.intersection(path.parts) or path.as_posix() in AGAIN:
        item.add_marker("no_cover")


def pytest_collection_finish() -> None:
    """Exempt from garbage collection what lives to the end: modules and collected tests."""
    gc.collect()
    gc.freeze()


class _Complaints(logging.Handler):
    """Keeps asyncio's complaints about leaked tasks, futures and sessions."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not (_is_late_connection(record) or _is_pipe_of_a_dead_process(record)):
            self.texts.append(record.getMessage())


def _is_late_connection(record: logging.LogRecord) -> bool:
    """Return whether *record* is debug mode's report of a connection that `late_connections_are_closed` closed."""
    said = record.getMessage().startswith("Error on transport creation for incoming connection")
    return said and record.exc_info is not None and record.exc_info[0] is AssertionError


def _is_pipe_of_a_dead_process(record: logging.LogRecord) -> bool:
    """Return whether *record* is about the stdin of a killed subprocess, which early releases of Python 3.11 report."""
    said = record.getMessage().startswith("Future exception was never retrieved")
    return said and record.exc_info is not None and record.exc_info[0] is BrokenPipeError


@pytest.fixture(scope="session", autouse=True)
def late_connections_are_closed() -> Iterator[None]:
    """Close the socket of a connection that asyncio accepts at the moment its server closes.

    CPython's `Server._attach` asserts that the server is open (github.com/python/cpython, issue 109564). The transport
    that called it is then dropped with an open socket, and warns about that when it is collected.
    """
    attach = asyncio.Server._attach  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio's slip is mended in place

    def attach_or_close(server: asyncio.Server, *transport: asyncio.Transport) -> None:
        try:
            attach(server, *transport)
        except AssertionError:
            late = sys._getframe(1).f_locals["self"]  # noqa: SLF001 - Python 3.11 and 3.12 do not pass the transport
            late._sock.close()  # noqa: SLF001 - its finaliser checks this
            late._sock = None  # noqa: SLF001 - as above
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Server, "_attach", attach_or_close)
        yield


@pytest.fixture(scope="session")
def unused_tcp_port_factory() -> Callable[[], int]:
    """Return a function that finds free ports; those of pytest-asyncio are also used for outgoing connections."""
    return free_port


@pytest.fixture
def unused_tcp_port() -> int:
    """Return a free port, from the same function."""
    return free_port()


@pytest.fixture(autouse=True)
def nothing_is_forgotten() -> Iterator[None]:
    """Fail a test after which asyncio reports an exception that was never retrieved, or something left open."""
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    try:
        yield
        gc.collect(1)  # objects that the test dropped complain when they are collected
    finally:
        logger.removeHandler(complaints)
    assert [] == complaints.texts


@pytest.fixture
async def nothing_goes_on() -> AsyncIterator[None]:
    """Fail a test that leaves tasks running; the loop would cancel them silently when it closes."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_SECONDS)
    assert set() == left


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, nothing_is_forgotten: None) -> None:
    """Watch for leftover tasks in asynchronous tests; the others need no event loop."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("nothing_goes_on")
