"""Settings, checked before any I/O: each function returns a usable value or a `ConfigError` that says what to do."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence

import attrs
import msgspec
from attrs import field, frozen
from yarl import URL

from audioext import providers
from audioext.clock import Clock
from audioext.errors import ConfigError, Problem, RequestError
from audioext.http.urls import FILES_SEGMENT
from audioext.models.checks import LONE_SURROGATE
from audioext.providers.base import Provider
from audioext.runtime.limits import Account
from audioext.stores.base import Store
from audioext.webhooks.inbox import Confirm

DEFAULT_LISTEN = ("127.0.0.1", 8080)
MIN_SECRET_BYTES = 16
MAX_KEY_LENGTH = 512
MAX_PORT = 65_535
_PORT_MARK = "{port}"


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = enum.auto()


UNSET = Unset.UNSET
"""Not given, where `None` has a meaning of its own."""


def _seconds(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        message = f"{attribute.name} must be a finite number of seconds above 0, not {value!r}"
        raise ConfigError(message)


@frozen(kw_only=True)
class Settings:
    """The settings of a client, checked; see `Client` for what they mean.

    Raises:
        ConfigError: one cannot work; the message says which and what to do.
    """

    providers: Mapping[str, Provider]
    public_url: URL | None
    listen: tuple[str, int] | None
    store: Store
    secrets: tuple[bytes, ...] = field(repr=False)
    confirm: Confirm
    serve_files: bool
    wait_timeout: float = field(validator=_seconds)
    expire_after: float = field(validator=_seconds)
    permit_timeout: float = field(validator=_seconds)
    handler_timeout: float = field(validator=_seconds)
    poll_timeout: float = field(validator=_seconds)
    download_patience: float = field(validator=_seconds)
    download_timeout: float = field(validator=_seconds)
    handler_concurrency: int
    keep: float = field(validator=_seconds)
    deliveries_kept: int
    clock: Clock

    def __attrs_post_init__(self) -> None:
        """Refuse a public URL that a provider would never call."""
        check_callbacks(self.providers.values(), self.public_url)


class Decoders(dict[str, Provider]):
    """The providers by name; those that were not given are loaded with their defaults when they are asked for."""

    def __missing__(self, name: str) -> Provider:
        """Load the codec of one of the wire formats that we know."""
        if name not in providers.NAMES:
            raise KeyError(name)
        self[name] = found = providers.load(name)()
        return found

    def __contains__(self, name: object) -> bool:
        """Whether there is a provider of that name, loaded or not."""
        return super().__contains__(name) or name in providers.NAMES

    def get(self, name: str, default: Provider | None = None) -> Provider | None:  # type: ignore[override]  # no overloads
        """Return the provider of that name, loaded where needed, else *default*."""
        return self[name] if name in self else default  # noqa: SIM401 - it is what `get` does here


def named(given: Sequence[object], environ: Mapping[str, str]) -> dict[str, Provider]:
    """Return the providers by name, each with its key from *environ* where none was given.

    Raises:
        ConfigError: two have one name, or something is no provider.
    """
    found: dict[str, Provider] = {}
    for provider in given:
        if isinstance(provider, type) or not isinstance(provider, Provider):
            message = f"{provider!r} is no provider: pass an instance, like Client(Kie())"
            raise ConfigError(message)
        if provider.info.name == FILES_SEGMENT:
            message = f"a provider cannot be named {FILES_SEGMENT!r}: its callbacks would hide offered files"
            raise ConfigError(message)
        if provider.info.name in found:
            message = f"two providers are named {provider.info.name!r}: give one of them name="
            raise ConfigError(message)
        found[provider.info.name] = _with_key(provider, environ)
    return found


def _with_key(provider: Provider, environ: Mapping[str, str]) -> Provider:
    key = environ.get(provider.info.key_variable, "").strip()
    if provider.info.has_key or not key or not attrs.has(type(provider)):
        return provider
    return attrs.evolve(provider, api_key=key)  # type: ignore[misc]  # `has` proves it is an attrs class


def read_public_url(value: str | URL | None) -> URL | None:
    """Return the public URL without a trailing slash.

    Raises:
        ConfigError: it is not an absolute http(s) URL without query.
    """
    if value is None:
        return None
    text = str(value)
    try:
        url = URL(text.replace(_PORT_MARK, "0"))
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.query_string or url.fragment:
        message = f"public_url must look like https://hooks.example.org/audio, not {text!r}"
        raise ConfigError(message)
    # A port yet to be filled stands as 0, which no public URL can have.
    return url.with_path(url.path.rstrip("/"))


def fill_port(url: URL | None, port: int) -> URL | None:
    """Return *url* with the port that the system chose, where it was left open."""
    return url.with_port(port) if url is not None and url.explicit_port == 0 else url


def read_listen(value: str | int | Unset | None, public_url: URL | None) -> tuple[str, int] | None:
    """Return the host and the port to listen on, `None` for nowhere.

    Raises:
        ConfigError: it is not HOST:PORT, or a port is to be filled in and there is none.
    """
    if isinstance(value, Unset):
        address = DEFAULT_LISTEN if public_url is not None else None
    elif value is None:
        address = None
    else:
        address = _read_address(value)
    if public_url is not None and public_url.explicit_port == 0 and address is None:
        message = "public_url has {port} to fill in, so listen= must say where to listen"
        raise ConfigError(message)
    return address


def _read_address(value: str | int) -> tuple[str, int]:
    text = f"127.0.0.1:{value}" if isinstance(value, int) or str(value).isdigit() else str(value)
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT:
        message = f"listen must look like 127.0.0.1:8080, not {value!r}"
        raise ConfigError(message)
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - ":8080" asks for all interfaces


def check_callbacks(callers: Iterable[Provider], public_url: URL | None) -> None:
    """Refuse a public URL that a provider would never call.

    Raises:
        ConfigError: it is such a URL; the message says why.
    """
    if public_url is None:
        return
    for provider in callers:
        # A callback adds the provider's name, a ref of 24 and a tag of 43 letters.
        why = provider.check_callback(public_url / provider.info.name / ("r" * 24) / ("t" * 43))
        if why is not None:
            message = f"{provider.info.name} would never call public_url {public_url}: {why}"
            raise ConfigError(message)


def read_secrets(values: Sequence[str | bytes]) -> tuple[bytes, ...]:
    """Return the secrets that sign callback URLs, the newest first.

    Raises:
        ConfigError: one is too short to be unguessable.
    """
    if isinstance(values, (str, bytes)):
        message = "secrets must be a list, newest first, like secrets=[new, old]"
        raise ConfigError(message)
    found = tuple(value.encode() if isinstance(value, str) else bytes(value) for value in values)
    if any(len(secret) < MIN_SECRET_BYTES for secret in found):
        message = (
            f"a secret needs at least {MIN_SECRET_BYTES} bytes: python -c 'import secrets; print(secrets.token_hex())'"
        )
        raise ConfigError(message)
    return found


def check_key(key: str) -> None:
    """Let a usable *key* through.

    Raises:
        RequestError: it is empty, too long, or no text that can be stored.
    """
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
        raise RequestError([Problem("key", f"must be text of 1 to {MAX_KEY_LENGTH} characters")])
    if LONE_SURROGATE.search(key):
        raise RequestError([Problem("key", "holds half of a surrogate pair, which no store can keep")])


def check_meta(meta: Mapping[str, object]) -> dict[str, object]:
    """Return *meta* as it comes back from a store: plain JSON.

    Raises:
        RequestError: it is not JSON with text as keys.
    """
    try:
        value = msgspec.json.decode(msgspec.json.encode(dict(meta)))
    except (TypeError, ValueError) as error:
        raise RequestError([Problem("meta", f"must be a dict of JSON values: {error}")]) from error
    return dict(value)


def accounts(by_name: Mapping[str, Provider], store: Store, clock: Clock) -> dict[str, Account]:
    """Return the account of each provider's name; those of one account share it."""
    shared: dict[str, Account] = {}
    return {
        name: shared.setdefault(
            provider.info.account, Account(provider.info.account, provider.info.limits, store, clock)
        )
        for name, provider in by_name.items()
    }
