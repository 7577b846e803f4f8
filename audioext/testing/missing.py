"""The fixtures where pytest-asyncio is missing: each says so."""

from __future__ import annotations

import pytest

MESSAGE = "audioext's fixtures need pytest-asyncio, which is not active: pip install pytest-asyncio"


def _fixture(name: str) -> object:
    @pytest.fixture(name=name)
    def missing() -> None:
        pytest.fail(MESSAGE, pytrace=False)

    return missing


audioext_clock, audioext_sandbox, audioext_client = map(
    _fixture, ("audioext_clock", "audioext_sandbox", "audioext_client")
)
