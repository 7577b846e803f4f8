"""The plugin's own fixtures, imported by name as the plugin is disabled for our own tests."""

from __future__ import annotations

from audioext.testing.fixtures import audioext_client, audioext_sandbox

__all__ = ["audioext_client", "audioext_sandbox"]
