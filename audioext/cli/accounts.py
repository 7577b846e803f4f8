"""The providers that a command talks to, with the settings of its options; keys are in the environment."""

from __future__ import annotations

from audioext import config, providers
from audioext.cli.arguments import check_seconds
from audioext.cli.options import ApiOptions, WebhookOptions
from audioext.errors import ConfigError
from audioext.models.limits import Pace
from audioext.providers.base import Provider

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


def real_provider(name: str, api: ApiOptions) -> Provider:
    """Return the provider called *name* with the settings of the command line."""
    pace = None
    if api.poll_every is not None:
        every = check_seconds("poll_every", api.poll_every)
        pace = Pace(first=every, every=every, slowest=every, quiet=every)
    return make_provider(name, base_url=api.base_url, webhook_key=api.webhook_key, pace=pace)


def listening_providers(hooks: WebhookOptions) -> list[Provider]:
    """Return every provider that would call *hooks*' public URL, to decode, and to poll where its key is known."""
    url = config.read_public_url(hooks.public_url)
    found = []
    for name in providers.NAMES:
        provider = make_provider(name, webhook_key=hooks.webhook_key)
        try:
            config.check_callbacks([provider], url)
        except ConfigError:  # the listener decodes it all the same, but nobody could submit to it from here
            continue
        found.append(provider)
    return found
