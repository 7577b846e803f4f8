"""The fixtures where pytest-asyncio is missing: each says so."""

from __future__ import annotations

import pytest

MESSAGE = "audioext's fixtures need pytest-asyncio, which is not active: pip install pytest-asyncio"


@pytest.fixture
def audioext_clock() -> None:
    """Say that pytest-asyncio is missing."""
    pytest.fail(MESSAGE, pytrace=False)


@pytest.fixture
def audioext_sandbox() -> None:
    """Say that pytest-asyncio is missing."""
    pytest.fail(MESSAGE, pytrace=False)


@pytest.fixture
def audioext_client() -> None:
    """Say that pytest-asyncio is missing."""
    pytest.fail(MESSAGE, pytrace=False)
