"""The hosted APIs: each module is one wire format, none knows another, and each is loaded when it is first used."""

from __future__ import annotations

import importlib

from audioext.providers._names import CLASSES, KIT, NAMES

__all__ = ["NAMES", "load"]  # and the classes: `__init__.pyi` has them all

_MODULES = {class_name: module for module, class_name in CLASSES.values()} | KIT


def load(name: str) -> object:
    """Return the class whose accounts are called *name* by default, such as `Kie` for `"kie"`.

    Raises:
        KeyError: there is no such wire format.
    """
    module, class_name = CLASSES[name]
    return getattr(importlib.import_module(module), class_name)


def __getattr__(name: str) -> object:
    """Load what is named, so that importing the package imports no provider."""
    module = _MODULES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(module), name)
