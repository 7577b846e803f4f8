"""What all tests share: how hard Hypothesis tries, and that nothing is leaked or swallowed."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", deadline=None, max_examples=1_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", deadline=None, max_examples=100, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "quick")


class _Complaints(logging.Handler):
    """Keeps what asyncio says about forgotten tasks, futures and sessions."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


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
