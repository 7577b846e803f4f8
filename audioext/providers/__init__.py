"""The hosted APIs: each module is one wire format, none knows another, and each is loaded when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from audioext.providers._names import CLASSES, NAMES
from audioext.providers.base import Provider

__all__ = ["NAMES", "load"]


def load(name: str) -> Callable[..., Provider]:
    """Return the class whose accounts are called *name* by default, such as `Kie` for `"kie"`.

    Raises:
        KeyError: there is no such wire format.
    """
    module, class_name = CLASSES[name]
    found: Callable[..., Provider] = getattr(importlib.import_module(module), class_name)
    return found
