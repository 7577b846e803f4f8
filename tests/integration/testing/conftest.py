"""The plugin's markers and fixtures, imported by name as the plugin is disabled for our own tests."""

from __future__ import annotations

import pytest

from audioext.testing.fixtures import audioext_client, audioext_clock, audioext_sandbox
from audioext.testing.plugin import MARKERS

__all__ = ["audioext_client", "audioext_clock", "audioext_sandbox"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
