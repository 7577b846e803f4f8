"""The hosted APIs: one module for each wire format, independent of the others and imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import attrs

from audioext.providers.base import Provider

__all__ = ["NAMES", "Decoders", "format_of", "load"]

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


def format_of(name: str) -> str | None:
    """Return the wire format of an account: `"kie"` for `"kie"` and `"kie-acme"`; `None` for a name of its own."""
    return max((each for each in NAMES if f"{name}-".startswith(f"{each}-")), key=len, default=None)


class Decoders(dict[str, Provider]):
    """Providers by name; that of an account named after its wire format, like `kie-acme`, is made when it is met."""

    def __missing__(self, name: str) -> Provider:
        """Return the decoder of an account that only other processes have, without a key; KeyError if there is none."""
        like = format_of(name)
        if like is None or type(self.get(like)) is not load(like):
            raise KeyError(name)
        made: Provider = attrs.evolve(self[like], name=name, api_key=None)  # type: ignore[misc]  # ours are attrs classes
        return self.setdefault(name, made)
