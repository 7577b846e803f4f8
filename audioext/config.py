"""Settings, checked before any I/O: each function returns a usable value or a `ConfigError` that says what to do."""

from __future__ import annotations

import enum
import ipaddress
import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TypedDict, get_args

import aiohttp
import attrs
import msgspec
from attrs import field, frozen
from yarl import URL

from audioext import providers
from audioext.clock import Clock
from audioext.errors import ConfigError, Problem, cut, shown
from audioext.files.hosts import LinkRules
from audioext.http.urls import CHECK_SEGMENT, FILES_SEGMENT, without_password
from audioext.models import checks
from audioext.models.checks import LONE_SURROGATE
from audioext.models.meta import Meta
from audioext.providers.base import Provider
from audioext.runtime.limits import Account
from audioext.stores.base import Store
from audioext.webhooks.inbox import Confirm

_log = logging.getLogger("audioext.client")

DEFAULT_LISTEN = ("127.0.0.1", 8080)
DEFAULT_METRICS = ("127.0.0.1", 9464)  # OpenTelemetry's port for Prometheus, on loopback: strangers are told nothing
MIN_SECRET_BYTES = 16
MAX_KEY_LENGTH = 512
MAX_PORT = 65_535
_PORT_MARK = "{port}"
_INTERNAL = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test", ".invalid", ".example")
"""Endings of names that no public host has: RFC 6761, 6762 and 8375, and what is in use."""


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = enum.auto()


UNSET = Unset.UNSET
"""Not given, where `None` has a meaning of its own."""


class ClientOptions(TypedDict, total=False):
    """The arguments of a `Client` beside its providers; see there. Settings from outside have the same names."""

    public_url: str | URL | None
    listen: str | int | Unset | None
    store: str | Store | None
    secrets: Sequence[str | bytes]
    confirm: Confirm
    serve_files: bool
    wait_timeout: float
    expire_after: float
    permit_timeout: float
    handler_timeout: float
    poll_timeout: float
    download_patience: float
    download_timeout: float
    handler_concurrency: int
    keep: float
    deliveries_kept: int
    allow_hosts: Sequence[str]
    clock: Clock | None
    trust_env: bool
    session: aiohttp.ClientSession | None
    metrics: bool | str | int


def _seconds(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    complaint = checks.seconds(value)
    if complaint is not None:
        raise ConfigError(f"{attribute.name} {complaint}")


def _confirm(_: object, __: object, value: object) -> None:
    if value not in get_args(Confirm):
        message = f'confirm must be "never", "unsigned" or "always", not {value!r:.80}'
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
    confirm: Confirm = field(validator=_confirm)
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
    link_rules: LinkRules = field(factory=LinkRules)
    trust_env: bool = False
    session: aiohttp.ClientSession | None = None
    metrics: tuple[str, int] | None = None
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    """Where the keys are of providers that were not given."""

    def __attrs_post_init__(self) -> None:
        """Refuse a public URL that nobody would call, and a session that cannot be used; warn of readable keys."""
        check_session(self.session, trust_env=self.trust_env)
        check_callbacks(self.providers.values(), self.public_url)
        warn_of_readable_keys(self.providers.values())


class Decoders(dict[str, Provider]):
    """The providers by name; those that were not given are loaded when they are asked for, with keys from *environ*."""

    def __init__(self, given: Mapping[str, Provider], environ: Mapping[str, str]) -> None:
        """Begin with those that were given."""
        super().__init__(given)
        self._environ = environ

    def names(self) -> tuple[str, ...]:
        """Return the names of all whose journals can be read here."""
        return tuple({*self, *providers.NAMES})

    def __missing__(self, name: str) -> Provider:
        """Load the codec of one of the wire formats that we know."""
        if name not in providers.NAMES:
            raise KeyError(name)
        self[name] = found = _with_webhook_key(providers.load(name)(), self._environ)
        return found

    def __contains__(self, name: object) -> bool:
        """Whether there is a provider of that name, loaded or not."""
        return super().__contains__(name) or name in providers.NAMES

    def get(self, name: str, default: Provider | None = None) -> Provider | None:  # type: ignore[override]  # no overloads
        """Return the provider of that name, loaded where needed, else *default*."""
        return self[name] if name in self else default  # noqa: SIM401 - it is what `get` does here


def named(given: Sequence[object], environ: Mapping[str, str]) -> dict[str, Provider]:
    """Return the providers by name, each with its keys from *environ* where none were given.

    Raises:
        ConfigError: two have one name, or something is no provider.
    """
    found: dict[str, Provider] = {}
    for provider in given:
        if isinstance(provider, type) or not isinstance(provider, Provider):
            raise ConfigError(f"{shown(provider)} is no provider: pass an instance, like Client(Kie())")
        if provider.info.name in {FILES_SEGMENT, CHECK_SEGMENT}:
            raise ConfigError(f"a provider cannot be named {provider.info.name!r}: the receiver has that path itself")
        if provider.info.name in found:
            raise ConfigError(f"two providers are named {provider.info.name!r}: give one of them name=")
        found[provider.info.name] = _with_webhook_key(_with_key(provider, environ), environ)
    return found


def _with_key(provider: Provider, environ: Mapping[str, str]) -> Provider:
    key = environ.get(provider.info.key_variable, "").strip()
    if provider.info.has_key or not key or not attrs.has(type(provider)):
        return provider
    return attrs.evolve(provider, api_key=key)  # type: ignore[misc]  # `has` proves it is an attrs class


def _with_webhook_key(provider: Provider, environ: Mapping[str, str]) -> Provider:
    """Return *provider* with the key that signs its webhooks, or several with blanks between them."""
    keys = environ.get(provider.info.webhook_key_variable, "").split()
    if provider.info.is_signed or not keys or not attrs.has(type(provider)):
        return provider
    return attrs.evolve(provider, webhook_key=keys)  # type: ignore[misc]  # as above


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
        message = f"public_url must look like https://hooks.example.org/audio, not {shown(without_password(text))}"
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
        address = _read_address(value, "listen", DEFAULT_LISTEN)
    if public_url is not None and public_url.explicit_port == 0 and address is None:
        raise ConfigError("public_url has {port} to fill in, so listen= must say where to listen")
    return address


def read_metrics(value: bool | str | int) -> tuple[str, int] | None:  # noqa: FBT001 - as it is given to the client
    """Return the host and the port where metrics are served, `None` for nowhere.

    Raises:
        ConfigError: it is not HOST:PORT, or what it takes is not installed.
    """
    if value is False:
        return None
    if find_spec("prometheus_client") is None:
        raise ConfigError('metrics= takes prometheus-client: pip install "audioext[metrics]"')
    return DEFAULT_METRICS if value is True else _read_address(value, "metrics", DEFAULT_METRICS)


def _read_address(value: str | int, name: str, example: tuple[str, int]) -> tuple[str, int]:
    text = f"127.0.0.1:{value}" if isinstance(value, int) or str(value).isdigit() else str(value)
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT:
        raise ConfigError(f"{name} must look like {example[0]}:{example[1]}, not {shown(value)}")
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
            url = cut(without_password(str(public_url)))
            raise ConfigError(f"{provider.info.name} would never call public_url {url}: {why}")


def check_session(session: object, *, trust_env: bool) -> None:
    """Refuse what cannot make our calls.

    Raises:
        ConfigError: it is no open session, has a password of its own, or is said twice how to use proxies.
    """
    message = ""
    if session is None:
        return
    if not isinstance(session, aiohttp.ClientSession):
        message = f"session must be an aiohttp.ClientSession, not {shown(session)}"
    elif session.closed:
        message = "session is closed: give one that stays open until the client is closed"
    elif session.auth is not None:
        message = "session has auth= of its own, which would take the place of the API key: make it without"
    elif trust_env:
        message = "trust_env is for the client's own sessions: give aiohttp.ClientSession(trust_env=True) instead"
    if message:
        raise ConfigError(message)


def warn_of_readable_keys(callers: Iterable[Provider]) -> None:
    """Say so where a key goes to a public host in clear text."""
    for provider in callers:
        url = provider.info.base_url
        if provider.info.has_key and url.scheme == "http" and is_public(url.host or ""):
            what = "%s: the API key goes to %s in clear text: use https:// in base_url"
            _log.warning(what, provider.info.name, url.host)


def is_public(host: str) -> bool:
    """Say whether *host* can be reached from the internet, as far as its name or address tells."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(_INTERNAL)


def read_secrets(values: Sequence[str | bytes]) -> tuple[bytes, ...]:
    """Return the secrets that sign callback URLs, the newest first.

    Raises:
        ConfigError: one is too short to be unguessable.
    """
    if isinstance(values, (str, bytes)):
        raise ConfigError("secrets must be a list, newest first, like secrets=[new, old]")
    found = tuple(value.encode() if isinstance(value, str) else bytes(value) for value in values)
    if any(len(secret) < MIN_SECRET_BYTES for secret in found):
        message = (
            f"a secret needs at least {MIN_SECRET_BYTES} bytes: python -c 'import secrets; print(secrets.token_hex())'"
        )
        raise ConfigError(message)
    return found


def check_notes(key: str | None, meta: Meta, found: list[Problem]) -> dict[str, object]:
    """Return *meta* as it comes back from a store, plain JSON; add to *found* what is wrong with it or with *key*."""
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH):
        found.append(Problem("key", f"must be text of 1 to {MAX_KEY_LENGTH} characters"))
    elif key is not None and LONE_SURROGATE.search(key):
        found.append(Problem("key", "holds half of a surrogate pair, which no store can keep"))
    try:
        return msgspec.json.decode(
            msgspec.json.encode(dict(meta) if isinstance(meta, Mapping) else meta), type=dict[str, object]
        )
    except (TypeError, ValueError, RecursionError) as error:
        found.append(Problem("meta", f"must be a dict of JSON values, or become one: {cut(str(error))}"))
    return {}


def accounts(by_name: Mapping[str, Provider], store: Store, clock: Clock) -> dict[str, Account]:
    """Return the account of each provider's name; those of one account share it."""
    shared: dict[str, Account] = {}
    return {
        name: shared.setdefault(
            provider.info.account, Account(provider.info.account, provider.info.limits, store, clock)
        )
        for name, provider in by_name.items()
    }
