"""What holds for every test: nothing is left running or unheard, and Hypothesis has no stopwatch.

`pytest --hypothesis-profile=ci` searches longer.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

GRACE_SECONDS = 1.0
"""How long a task may need to end by itself once its test is over."""

CI_EXAMPLES = 2_000

# A deadline per example measures the machine: debug mode, coverage and a busy neighbour all break it.
settings.register_profile("local", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=False,
    max_examples=CI_EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("local")


class _Complaints(logging.Handler):
    """Keeps what asyncio reports because nobody was there to hear it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the whole text, traceback included."""
        self.texts.append(self.format(record))


def pytest_collection_finish() -> None:
    """Set aside what importing left behind, so that a full collection after each test costs little."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_goes_unheard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves asyncio complaining: exceptions never retrieved, sessions never closed."""
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    yield
    if inspect.iscoroutinefunction(request.function):
        gc.collect()  # such complaints come from finalizers
    logger.removeHandler(complaints)
    if complaints.texts:
        pytest.fail("asyncio complained:\n" + "\n".join(complaints.texts), pytrace=False)


@pytest.fixture
async def nothing_goes_on() -> AsyncIterator[None]:
    """Fail a test whose tasks outlive it and everything that it opened."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_SECONDS)
    if left:
        pytest.fail("tasks left running:\n" + "\n".join(map(repr, left)), pytrace=False)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, nothing_goes_unheard: None) -> None:  # noqa: ARG001 - it is the last to look
    """Watch the tasks of each asynchronous test; the others need no event loop."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("nothing_goes_on")
