"""The hosted APIs: each module is one wire format, none knows another, and each is loaded when it is first used."""

from __future__ import annotations

import importlib

NAMES = ("kie", "kie-jobs", "sunoapi", "vidgo", "musicgpt")
"""The five wire formats, in the order in which messages name them."""

_PROVIDERS = {
    "kie": ("audioext.providers.kie", "Kie"),
    "kie-jobs": ("audioext.providers.kie_jobs", "KieJobs"),
    "sunoapi": ("audioext.providers.sunoapi", "SunoApi"),
    "vidgo": ("audioext.providers.vidgo", "Vidgo"),
    "musicgpt": ("audioext.providers.musicgpt", "MusicGpt"),
}
_KIT = {
    "Code": "audioext.providers._answers",
    "CodeTable": "audioext.providers._answers",
    "FieldRules": "audioext.providers._fields",
    "HostedAccount": "audioext.providers._account",
    "Vendor": "audioext.providers._account",
}
_MODULES = {class_name: module for module, class_name in _PROVIDERS.values()} | _KIT

__all__ = [
    "NAMES",
    "Code",
    "CodeTable",
    "FieldRules",
    "HostedAccount",
    "Kie",
    "KieJobs",
    "MusicGpt",
    "SunoApi",
    "Vendor",
    "Vidgo",
    "load",
]


def load(name: str) -> object:
    """Return the class whose accounts are called *name* by default, such as `Kie` for `"kie"`.

    Raises:
        KeyError: there is no such wire format.
    """
    module, class_name = _PROVIDERS[name]
    return getattr(importlib.import_module(module), class_name)


def __getattr__(name: str) -> object:
    """Load what is named, so that importing the package imports no provider."""
    module = _MODULES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(module), name)
