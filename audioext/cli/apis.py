"""The providers that the options of a command make."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from audioext import config, providers
from audioext.cli.options import WebhookOptions
from audioext.errors import ConfigError
from audioext.models.limits import Pace
from audioext.providers.base import Provider
from audioext.settings.meaning import base_url_of

_SIGNED = frozenset({"kie", "kie-jobs"})


def make_provider(name: str, **given: object) -> Provider:
    """Return the provider called *name*; settings that are `None` or empty are left at their defaults.

    Raises:
        ConfigError: a setting cannot work.
    """
    if name not in _SIGNED:
        given.pop("webhook_key", None)
    chosen = {key: value for key, value in given.items() if value not in {None, ()}}
    return providers.load(name)(**chosen)


def real_provider(
    name: str, base_url: str | None, *, webhook_key: Sequence[str] = (), every: float | None = None
) -> Provider:
    """Return the provider called *name*, whose status is asked for *every* so many seconds if that is given."""
    pace = None if every is None else Pace(first=every, every=every, slowest=every, quiet=every)
    url = base_url or base_url_of(name, os.environ)
    return make_provider(name, base_url=url, webhook_key=webhook_key, pace=pace)


def other_url(provider: Provider) -> str | None:
    """Return the address of *provider*'s API, `None` where it is the vendor's own."""
    info = provider.info
    return None if info.base_url == make_provider(info.name).info.base_url else str(info.base_url)


def listening_providers(hooks: WebhookOptions) -> list[Provider]:
    """Return every provider that would call *hooks*' public URL, to decode, and to poll where its key is known."""
    url = config.read_public_url(hooks.public_url)
    found = []
    for name in providers.NAMES:
        provider = make_provider(name, base_url=base_url_of(name, os.environ), webhook_key=hooks.webhook_key)
        with suppress(ConfigError):  # the listener decodes it all the same, but nobody could submit to it from here
            config.check_callbacks([provider], url)
            found.append(provider)
    return found
