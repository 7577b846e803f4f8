"""The plugin's own fixtures, which are loaded by name here: for our tests it is switched off."""

from __future__ import annotations

from audioext.testing.fixtures import audioext_client, audioext_sandbox

__all__ = ["audioext_client", "audioext_sandbox"]
