"""The pytest plugin: its markers, and its fixtures if pytest-asyncio can run them."""

from __future__ import annotations

import importlib

import pytest

MARKERS = (
    'audioext_faults(*faults): the faults of the sandbox, such as "duplicate" (see audioext.sandbox.Fault)',
    "audioext_sandbox(**settings): settings of the sandbox (see audioext.sandbox.SandboxSettings)",
)
ASYNCIO_PLUGINS = ("asyncio", "pytest_asyncio.plugin")
"""pytest-asyncio's names in pytest: of its entry point, and of `-p`."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and the fixtures; without pytest-asyncio, fixtures that say that it is missing."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    plugins = config.pluginmanager
    if any(map(plugins.hasplugin, ASYNCIO_PLUGINS)):
        plugins.register(importlib.import_module("audioext.testing.fixtures"), "audioext fixtures")
    else:
        plugins.register(_Missing(), "audioext fixtures")


class _Missing:
    """Fixtures that fail because pytest-asyncio is missing."""

    @pytest.fixture
    def audioext_clock(self) -> None:
        pytest.fail(
            "audioext's fixtures need pytest-asyncio, which is not active: pip install pytest-asyncio", pytrace=False
        )

    audioext_sandbox = audioext_client = audioext_clock
