"""What all tests share: how hard Hypothesis tries, what counts as covered, and that nothing is leaked or swallowed."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from tests.support.ports import free_port

# Where a machine writes no bytecode, each of the hundreds of processes would compile the package and its tests again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A collection for every 700 new objects, Python's own measure, takes a twentieth of all time, and of imports a fifth.
# `nothing_is_forgotten` collects after each test.
gc.set_threshold(100_000, 50, 100)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job ignores it, and so would all it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)


for profile, examples in (("quick", 20), ("ci", 50), ("thorough", 1_000)):
    settings.register_profile(
        profile,
        deadline=None,
        max_examples=examples,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
settings.load_profile("quick")

# Asyncio's debug mode (-o asyncio_debug=true, as .ci/run has it on one Python) checks threads and callbacks. It also
# notes where each was made, which takes a third of all time: raise these two numbers to see where a task comes from
# that a test forgot.
asyncio.constants.DEBUG_STACK_DEPTH = 0  # type: ignore[attr-defined]  # typeshed leaves it out
sys.tracebacklimit = 1  # its C code asks here; with none, no "Traceback" is printed for tests to miss

TESTS = Path(__file__).parent
WHOLES = {
    *("processes", "security"),
    *(f"test_{name}.py" for name in ("example_bots", "examples", "guide", "hints", "matrix", "readme", "wheel")),
}
"""Folders and files of tests that run whole programs, or every way through one."""

AGAIN = {
    *(f"unit/runtime/test_{name}.py" for name in ("handler_wishes", "handlers", "hardening", "limits")),
    *(f"unit/stores/test_conformance_{name}.py" for name in ("changes", "history", "work", "writers")),
    *("unit/stores/test_memory.py", "unit/stores/test_sqlite_processes.py", "unit/providers/test_kinds.py"),
    *(f"integration/client/test_{name}.py" for name in ("handlers", "limits", "restart", "store_faults", "waits")),
}
"""Files of tests that try the same lines in other orders, on other engines or with other values than those before."""

GRACE_SECONDS = 10.0
"""How long a task may need to end by itself once its test is over."""


def pytest_xdist_auto_num_workers() -> int:
    """Use half as many workers again as there are processors: the tests with real processes mostly wait for these."""
    return round(1.5 * (os.cpu_count() or 1)) or 1


def pytest_itemcollected(item: pytest.Item) -> None:
    """Count as covered what a test of that part shows, not what was found at random or passed by on the way.

    The gate must not depend on luck, nor pay for it.
    """
    is_random = isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)
    path = item.path.relative_to(TESTS)
    if is_random or WHOLES.intersection(path.parts) or path.as_posix() in AGAIN:
        item.add_marker("no_cover")


def pytest_collection_finish() -> None:
    """Spare the collector what stays to the end: the modules, and the tests that were collected."""
    gc.collect()
    gc.freeze()


class _Complaints(logging.Handler):
    """Keeps what asyncio says about forgotten tasks, futures and sessions."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not _is_late_connection(record):
            self.texts.append(record.getMessage())


def _is_late_connection(record: logging.LogRecord) -> bool:
    """Tell what asyncio's debug mode says of a connection that `late_connections_are_closed` had closed."""
    said = record.getMessage().startswith("Error on transport creation for incoming connection")
    return said and record.exc_info is not None and record.exc_info[0] is AssertionError


@pytest.fixture(scope="session", autouse=True)
def late_connections_are_closed() -> Iterator[None]:
    """Close what asyncio half-makes of a connection that it accepts in the instant in which its server closed.

    CPython's `Server._attach` asserts then that the server is open (github.com/python/cpython, issue 109564), and the
    transport that called it is dropped with an open socket, of which it would complain when it is collected.
    """
    attach = asyncio.Server._attach  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio's slip is mended in place

    def attach_or_close(server: asyncio.Server, *transport: asyncio.Transport) -> None:
        try:
            attach(server, *transport)
        except AssertionError:
            late = sys._getframe(1).f_locals["self"]  # noqa: SLF001 - Python 3.11 and 3.12 do not pass the transport
            late._sock.close()  # noqa: SLF001 - what its finaliser looks at
            late._sock = None  # noqa: SLF001 - as above
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Server, "_attach", attach_or_close)
        yield


@pytest.fixture(scope="session")
def unused_tcp_port_factory() -> Callable[[], int]:
    """Return what finds a port; those of pytest-asyncio are given to outgoing connections as well."""
    return free_port


@pytest.fixture
def unused_tcp_port() -> int:
    """Return such a port."""
    return free_port()


@pytest.fixture(autouse=True)
def nothing_is_forgotten() -> Iterator[None]:
    """Fail a test after which asyncio complains of an exception never retrieved, or of what was not closed."""
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    try:
        yield
        gc.collect(1)  # what a test dropped complains when it is collected
    finally:
        logger.removeHandler(complaints)
    assert [] == complaints.texts


@pytest.fixture
async def nothing_goes_on() -> AsyncIterator[None]:
    """Fail a test whose tasks outlive it and all that it opened; the loop's own end would cancel them in silence."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_SECONDS)
    assert set() == left


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, nothing_is_forgotten: None) -> None:
    """Watch the tasks of each asynchronous test; the others need no event loop."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("nothing_goes_on")
