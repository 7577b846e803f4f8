"""Settings, checked before any I/O: a function returns a usable value or raises ConfigError with advice."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TypedDict, get_args, get_type_hints

import aiohttp
import attrs
from attrs import Factory, field, frozen
from msgspec import UNSET, UnsetType
from yarl import URL

from audioext import providers
from audioext.clock import Clock, mint_id
from audioext.errors import ConfigError, cut, lacks_extra, shown
from audioext.files.hosts import LinkRules, read_link_rules
from audioext.http.transport import lacks_proxy
from audioext.http.urls import CHECK_SEGMENT, FILES_SEGMENT, callback_url, may_be_public, without_password
from audioext.models import checks
from audioext.models.entries import MAX_DELIVERY_BYTES
from audioext.providers import Decoders
from audioext.providers.base import Provider, ProviderInfo
from audioext.stores import open_store
from audioext.stores.base import Store
from audioext.webhooks.inbox import Confirm

_log = logging.getLogger("audioext.client")

DAY_SECONDS = 86_400.0
DEFAULT_PROVIDER = "kie"
DEFAULT_LISTEN = ("127.0.0.1", 8080)
DEFAULT_METRICS = ("127.0.0.1", 9464)  # OpenTelemetry's port for Prometheus; on loopback, out of strangers' reach
MIN_SECRET_BYTES = 16
MAX_PORT = 65_535
LONGEST_PORT = len(str(MAX_PORT))
CODE_ONLY = frozenset({"clock", "session"})
"""Arguments of a client that only code can give."""
_NOBODYS = (".lan", ".test", ".invalid", ".example")
"""Suffixes of more host names that no vendor has: RFC 6761, and common practice."""
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of a `Client`, described there; settings in the environment have the same names."""

    public_url: str | URL | None
    listen: str | int | UnsetType | None
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
    delivery_bytes_kept: int
    allow_hosts: Sequence[str]
    clock: Clock | None
    trust_env: bool
    session: aiohttp.ClientSession | None
    metrics: bool | str | int | None


def read_public_url(value: str | URL | None, name: str = "`public_url=`") -> URL | None:
    """Return the public URL without a trailing slash; it must be absolute http(s), without query or fragment."""
    if value is None:
        return None
    text = str(value).strip() if isinstance(value, (str, URL)) else shown(value)  # pasted spaces would be in the host
    try:
        url = URL(text.replace("{port}", "0"))  # no public URL can have port 0
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or " " in (url.host or " ") or url.query_string or url.fragment:
        what = shown(without_password(text))
        raise ConfigError(f"{name} must look like https://hooks.example.org/audio, not {what}")
    return url.with_path(url.path.rstrip("/"))


def read_listen(value: str | int | UnsetType | None, public_url: URL | None) -> tuple[str, int] | None:
    """Return the host and port to listen on, or `None` to listen nowhere."""
    if isinstance(value, UnsetType):
        return DEFAULT_LISTEN if public_url is not None else None
    if value is None and public_url is not None and public_url.explicit_port == 0:
        raise ConfigError("`public_url=` has {port} to fill in, so `listen=` must say where to listen")
    return None if value is None else _read_address(value, "listen", DEFAULT_LISTEN)


def read_metrics(value: bool | str | int | None) -> tuple[str, int] | None:  # noqa: FBT001 - as the client takes it
    """Return the host and port that serve `/metrics`, or `None` to serve it nowhere."""
    if value is None or value is False:
        return None
    if find_spec("prometheus_client") is None:
        raise ConfigError(lacks_extra("`metrics=`", "metrics"))
    return DEFAULT_METRICS if value is True else _read_address(value, "metrics", DEFAULT_METRICS)


def _read_address(value: str | int, name: str, example: tuple[str, int]) -> tuple[str, int]:
    text = str(value) if isinstance(value, (str, int)) else ""
    host, _, port = (f"127.0.0.1:{text}" if text.isdigit() else text).rpartition(":")
    if not (port.isascii() and port.isdigit()) or len(port) > LONGEST_PORT or int(port) > MAX_PORT:
        raise ConfigError(f"`{name}=` must look like {example[0]}:{example[1]}, not {shown(value)}")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - ":8080" asks for all interfaces


def _read_secrets(values: Sequence[str | bytes]) -> tuple[bytes, ...]:
    # Checked by type, because bytes(32) would be 32 zero bytes.
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, (str, bytes)) for value in values):
        raise ConfigError("secrets must be a list of texts or bytes, newest first, like secrets=[new, old]")
    found = tuple(value.encode(errors="surrogatepass") if isinstance(value, str) else value for value in values)
    if any(len(secret) < MIN_SECRET_BYTES for secret in found):
        advice = "python -c 'import secrets; print(secrets.token_hex())'"
        raise ConfigError(f"a secret needs at least {MIN_SECRET_BYTES} bytes: {advice}")
    return found


def _read_clock(value: Clock | None) -> Clock:
    return Clock() if value is None else value


_seconds = checks.setting(checks.seconds)
_flag = checks.setting(checks.flag)
_trust_env = checks.setting(lambda value: checks.flag(value) or (lacks_proxy() if value else None))
_confirm = checks.setting(
    lambda value: None if value in get_args(Confirm) else f'must be "never", "unsigned" or "always", not {shown(value)}'
)


def _session(settings: Settings, _: object, value: aiohttp.ClientSession | None) -> None:
    """Refuse a closed session, one with its own auth, one beside `trust_env`, and anything that is not a session."""
    message = ""
    if value is None:
        return
    if not isinstance(value, aiohttp.ClientSession):
        message = f"session must be an aiohttp.ClientSession, not {shown(value)}"
    elif value.closed:
        message = "session is closed: give one that stays open until the client is closed"
    elif value.auth is not None:
        message = "session has auth= of its own, which would replace the API key: make it without auth="
    elif settings.trust_env:
        message = "trust_env is for the client's own sessions: give aiohttp.ClientSession(trust_env=True) instead"
    if message:
        raise ConfigError(message)


def _address(settings: Settings) -> tuple[str, int] | None:
    return read_listen(settings.listen, settings.public_url)


def _link_rules(settings: Settings) -> LinkRules:
    return read_link_rules(settings.allow_hosts, (each.info.base_url for each in settings.providers.values()))


@frozen(kw_only=True)
class Settings:
    """The checked settings of a client; `Client` describes them.

    Raises:
        ConfigError: a setting cannot work; the message says which and what to do.
    """

    providers: Mapping[str, Provider]
    environ: Mapping[str, str] = field(repr=False)
    """Environment variables, which may hold the keys of providers that were not given."""
    public_url: URL | None = field(default=None, converter=read_public_url)
    listen: str | int | UnsetType | None = UNSET
    store: Store = field(default=None, converter=open_store)
    secrets: tuple[bytes, ...] = field(default=(), converter=_read_secrets, repr=False)
    confirm: Confirm = field(default="never", validator=_confirm)
    serve_files: bool = field(default=False, validator=_flag)
    wait_timeout: float = field(default=1_800.0, validator=_seconds)
    expire_after: float = field(default=DAY_SECONDS, validator=_seconds)
    permit_timeout: float = field(default=900.0, validator=_seconds)
    handler_timeout: float = field(default=60.0, validator=_seconds)
    poll_timeout: float = field(default=20.0, validator=_seconds)
    download_patience: float = field(default=30.0, validator=_seconds)
    download_timeout: float = field(default=900.0, validator=_seconds)
    handler_concurrency: int = field(default=16, validator=checks.setting(checks.whole_from(1)))
    keep: float = field(default=7 * DAY_SECONDS, validator=_seconds)
    deliveries_kept: int = field(default=100_000, validator=checks.setting(checks.whole_from(0)))
    delivery_bytes_kept: int = field(default=MAX_DELIVERY_BYTES, validator=checks.setting(checks.whole_from(0)))
    allow_hosts: Sequence[str] = ()
    clock: Clock = field(
        default=None, converter=_read_clock, validator=checks.setting(checks.made_as(Clock, "an audioext.Clock(...)"))
    )
    trust_env: bool = field(default=False, validator=_trust_env)
    session: aiohttp.ClientSession | None = field(default=None, validator=_session)
    metrics: tuple[str, int] | None = field(default=None, converter=read_metrics)
    address: tuple[str, int] | None = field(init=False, default=Factory(_address, takes_self=True))
    """The host and port to listen on."""
    link_rules: LinkRules = field(init=False, default=Factory(_link_rules, takes_self=True))

    def __attrs_post_init__(self) -> None:
        """Refuse addresses that cannot be meant, and warn if a key would go to a public host in clear text."""
        check_callbacks(self.providers.values(), self.public_url)
        for provider in self.providers.values():
            _refuse_ignored_address(provider.info, self.environ)
            url = provider.info.base_url
            if provider.info.has_key and url.scheme == "http" and _may_be_a_vendors(url):
                what = "%s: the API key goes to %s in clear text: use https:// in base_url"
                _log.warning(what, provider.info.name, url.host)

    def decoders(self) -> Decoders:
        """Return a provider for every wire format: a listener reads the webhooks of tasks that others submitted."""
        others = (providers.load(name)() for name in providers.NAMES if name not in self.providers)
        return Decoders({**self.providers, **named([*others], self.environ)})


def client_signature() -> inspect.Signature:
    """Return the signature of `Client` for `help` and notebooks: providers, then the settings with their defaults."""
    settings = [
        each for each in inspect.signature(Settings).parameters.values() if each.name in ClientOptions.__annotations__
    ]
    self_ = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    providers_ = inspect.Parameter("providers", inspect.Parameter.VAR_POSITIONAL, annotation="Provider")
    return inspect.Signature([self_, providers_, *settings])


def named(given: Sequence[object], environ: Mapping[str, str]) -> dict[str, Provider]:
    """Return the providers by name; one without keys gets them from *environ*."""
    found: dict[str, Provider] = {}
    for provider in given:
        if isinstance(provider, type) or not isinstance(provider, Provider):
            missing = checks.lacking(provider, Provider)
            advice = f"it lacks {missing}" if missing else "pass an instance, like Client(Kie())"
            raise ConfigError(f"{shown(provider)} is not a provider: {advice}")
        if provider.info.name in {FILES_SEGMENT, CHECK_SEGMENT}:
            raise ConfigError(f"a provider cannot be named {provider.info.name!r}: the receiver uses that path itself")
        if provider.info.name in found:
            raise ConfigError(f"two providers are named {provider.info.name!r}: give one of them a `name=`")
        found[provider.info.name] = _with_keys(provider, environ)
    return found


def _with_keys(provider: Provider, environ: Mapping[str, str]) -> Provider:
    """Return *provider* with its API key and webhook keys from *environ*, where several are separated by spaces."""
    info, keys = provider.info, dict[str, object]()
    if not info.has_key and (key := environ.get(info.key_variable, "").strip()):
        keys["api_key"] = key
    if not info.is_signed and (webhook_keys := environ.get(info.webhook_key_variable, "").split()):
        keys["webhook_key"] = webhook_keys
    if not keys or not attrs.has(type(provider)):
        return provider
    return attrs.evolve(provider, **keys)  # type: ignore[misc]  # `has` proves it is an attrs class


def check_callbacks(callers: Iterable[Provider], public_url: URL | None) -> None:
    """Refuse a public URL that a provider would never call."""
    if public_url is None:
        return
    for provider in callers:
        why = provider.check_callback(callback_url(public_url, b"", provider.info.name, mint_id(0.0)))
        if why is not None:
            url = cut(without_password(str(public_url)))
            raise ConfigError(f"{provider.info.name} would never call the `public_url=` {cut(str(url))}: {why}")


def _refuse_ignored_address(info: ProviderInfo, environ: Mapping[str, str]) -> None:
    """Refuse a provider that would use its vendor's paid API although *environ* names another address, like a sandbox.

    A `base_url` given in code is not refused.
    """
    variable = f"{info.key_variable.removesuffix('_API_KEY')}_BASE_URL"
    meant, used = environ.get(variable, "").strip().rstrip("/"), str(info.base_url).rstrip("/")
    if meant and meant != used and not info.is_base_url_given and _may_be_a_vendors(info.base_url):
        raise ConfigError(
            f"{variable} is set, but {info.name} would go to {used}: use Client.from_env() without a provider, pass "
            f"`base_url=`, or unset {variable}"
        )


def _may_be_a_vendors(url: URL) -> bool:
    return may_be_public(url.host) and not (url.host or "").endswith(_NOBODYS)


# --- settings from text ----------------------------------------------------------------------------------------------


def client_options(settings: Mapping[str, str]) -> dict[str, object]:
    """Return the `Client` arguments in *settings*, a mapping of environment variables."""
    options: dict[str, object] = {}
    for name, kind in get_type_hints(ClientOptions).items():
        text = settings.get(f"AUDIOEXT_{name.upper()}", "").strip()
        if text and name not in CODE_ONLY:
            options[name] = _value(name, kind, text)
    return options


def find_providers(settings: Mapping[str, str]) -> list[Provider]:
    """Return the providers whose keys are in *settings*, a mapping of environment variables; the default comes first.

    `kie-jobs` has the same key as `kie`, so it is only included if `AUDIOEXT_PROVIDER` names it. A webhook key alone is
    enough to include a provider: it can read webhooks.
    """
    wanted = settings.get("AUDIOEXT_PROVIDER", "").strip()
    if wanted and wanted not in providers.NAMES:
        known = ", ".join(providers.NAMES)
        raise ConfigError(f"provider (AUDIOEXT_PROVIDER) must be one of {known}, not {shown(wanted)}")
    found: list[Provider] = []
    for name in dict.fromkeys((wanted or DEFAULT_PROVIDER, *providers.NAMES)):
        url = base_url_of(name, settings)
        (provider,) = named([providers.load(name)(**({"base_url": url} if url else {}))], settings).values()
        is_usable = provider.info.has_key or provider.info.is_signed
        if name == wanted or (is_usable and name != "kie-jobs"):
            found.append(provider)
    return found


def base_url_of(name: str, settings: Mapping[str, str]) -> str | None:
    """Return the base URL in *settings* of the provider called *name*, or `None` for the vendor's own."""
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
