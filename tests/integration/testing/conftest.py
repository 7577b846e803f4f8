"""The plugin's markers and fixtures by name: for our own tests it is switched off."""

from __future__ import annotations

import pytest

from audioext.testing.fixtures import audioext_client, audioext_clock, audioext_sandbox
from audioext.testing.plugin import MARKERS

__all__ = ["audioext_client", "audioext_clock", "audioext_sandbox"]


def pytest_configure(config: pytest.Config) -> None:
    """Announce the markers."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
