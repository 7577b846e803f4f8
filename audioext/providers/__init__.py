"""The hosted APIs: one module for each wire format, independent of the others and imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from audioext.providers.base import Provider

__all__ = ["NAMES", "load"]

CLASSES = {
    "kie": ("audioext.providers.kie", "Kie"),
    "kie-jobs": ("audioext.providers.kie", "KieJobs"),
    "sunoapi": ("audioext.providers.sunoapi", "SunoApi"),
    "vidgo": ("audioext.providers.vidgo", "Vidgo"),
    "musicgpt": ("audioext.providers.musicgpt", "MusicGpt"),
}
NAMES = tuple(CLASSES)
"""The names of the wire formats, in the order in which messages list them."""


def load(name: str) -> Callable[..., Provider]:
    """Return the class of the wire format *name*, such as `Kie` for `"kie"`, or raise KeyError."""
    module, class_name = CLASSES[name]
    found: Callable[..., Provider] = getattr(importlib.import_module(module), class_name)
    return found
