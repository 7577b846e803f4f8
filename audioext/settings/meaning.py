"""What settings mean that came as text: the arguments of a client, and its providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_type_hints

from audioext import config, providers
from audioext.config import ClientOptions
from audioext.errors import ConfigError, shown
from audioext.providers.base import Provider
from audioext.settings.reading import IN_CODE

DEFAULT_PROVIDER = "kie"
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def client_options(settings: Mapping[str, str]) -> dict[str, object]:
    """Return the arguments of a `Client` that *settings* give, by the names of the variables.

    Raises:
        ConfigError: one is not of its type; the others are checked by the client.
    """
    options: dict[str, object] = {}
    for name, kind in get_type_hints(ClientOptions).items():
        text = settings.get(f"AUDIOEXT_{name.upper()}", "").strip()
        if text and name not in IN_CODE:
            options[name] = _value(name, kind, text)
    return options


def find_providers(settings: Mapping[str, str]) -> list[Provider]:
    """Return the providers whose keys *settings* hold, by the names of the variables, the default one first.

    kie.ai's newer route has the same key as the usual one, so that it is there only where it is named. Where nothing
    but a key of webhooks is known, a provider can read them.

    Raises:
        ConfigError: there is no provider of the default one's name, or a setting cannot work.
    """
    named = settings.get("AUDIOEXT_PROVIDER", "").strip()
    if named and named not in providers.NAMES:
        known = ", ".join(providers.NAMES)
        raise ConfigError(f"provider (AUDIOEXT_PROVIDER) must be one of {known}, not {shown(named)}")
    found: list[Provider] = []
    for name in dict.fromkeys((named or DEFAULT_PROVIDER, *providers.NAMES)):
        url = base_url_of(name, settings)
        (provider,) = config.named([providers.load(name)(**({"base_url": url} if url else {}))], settings).values()
        is_usable = provider.info.has_key or provider.info.is_signed
        if name == named or (is_usable and name != "kie-jobs"):
            found.append(provider)
    return found


def base_url_of(name: str, settings: Mapping[str, str]) -> str | None:
    """Return where *settings* say that the API of the provider called *name* is, `None` for the vendor's own place."""
    if name == settings.get("AUDIOEXT_PROVIDER", DEFAULT_PROVIDER) and settings.get("AUDIOEXT_BASE_URL"):
        return settings["AUDIOEXT_BASE_URL"]
    return settings.get(f"{name.partition('-')[0].upper()}_BASE_URL") or None


def _value(name: str, kind: object, text: str) -> object:
    if name in {"secrets", "allow_hosts"}:
        return text.split()
    if name == "listen":
        return None if text.lower() == "none" else text
    if name == "metrics":
        return _BOOLEANS.get(text.lower(), text)
    try:
        if kind is bool:
            return _BOOLEANS[text.lower()]
        return int(text) if kind is int else float(text) if kind is float else text
    except (KeyError, ValueError):
        word = "true or false" if kind is bool else "a number"
        raise ConfigError(f"{name} (AUDIOEXT_{name.upper()}) must be {word}, not {shown(text)}") from None
