"""Where things stand in Redis: every key carries its partition as a hash tag, so a partition is one slot of a cluster.

A record, its outbox, its place among the open and the due ones, and its deliveries are in the partition of its
ref; they change together, in one script. What leads to a record from elsewhere (a user's key, a task id) is in the
partition of that word, and is verified against the record that it leads to.
"""

from __future__ import annotations

import math
import zlib
from functools import cached_property
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from attrs import define, field, frozen

from audioext.errors import ConfigError
from audioext.stores.base import Kind

PREFIX = "audioext"
PARTITIONS = 8
MAX_PARTITIONS = 1024
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
_OURS = ("prefix", "partitions", "ttl", "patience")


@frozen(kw_only=True)
class Address:
    """A store's URL, taken apart: what is the driver's, and what is ours. It may hold a password."""

    url: str = field(repr=False)
    shown: str
    options: dict[str, str]


def read_url(url: str) -> Address:
    """Return what *url* says; its scheme becomes one that the driver knows.

    Raises:
        ConfigError: it names no server, or asks for something in no known way.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    query = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in query if name in _OURS}
    rest = urlencode([(name, value) for name, value in query if name not in _OURS])
    shown = _shown(parts)
    if scheme != "unix" and not (parts.path in {"", "/"} or parts.path[1:].isdigit()):
        raise ConfigError("the store's URL ends with the number of a database, like redis://host:6379/0")
    if not shown:
        # The URL may hold a password, so it is not repeated.
        raise ConfigError("the store's URL names no server: use redis://host:6379/0 or unix:///path/to/socket")
    if scheme == "unix":  # some Pythons would join it with one slash
        driver = f"unix://{parts.netloc}{parts.path}{'?' if rest else ''}{rest}"
    else:
        driver = urlunsplit(parts._replace(scheme=scheme, query=rest))
    return Address(url=driver, shown=shown, options=ours)


def _shown(parts: SplitResult) -> str:
    if parts.scheme == "unix":
        return parts.path
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError("the store's URL has a port that is no number of a port") from error
    return "" if parts.hostname is None else f"{parts.hostname}:{6379 if port is None else port}"


def read_seconds(options: dict[str, str], name: str, default: float) -> float:
    """Return a number of seconds of the URL's query.

    Raises:
        ConfigError: it is none above 0.
    """
    text = options.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ConfigError(f"the store's URL may say ?{name}= and seconds above 0, not {text!r}")
    return seconds


def read_number(options: dict[str, str], name: str, default: int, maximum: int) -> int:
    """Return a whole number of the URL's query.

    Raises:
        ConfigError: it is none from 1 to *maximum*.
    """
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= maximum):
        raise ConfigError(f"the store's URL may say ?{name}= and a whole number from 1 to {maximum}, not {text!r}")
    return int(text)


@define(eq=False, slots=False)
class Partition:
    """The keys of one partition."""

    prefix: str
    name: str

    def __attrs_post_init__(self) -> None:
        """Work out the keys that are used all the time."""
        self.tag = f"{{{self.prefix}:{self.name}}}"
        self.all = f"{self.tag}:all"
        self.open = f"{self.tag}:open"
        self.closed = f"{self.tag}:closed"
        self.state = f"{self.tag}:state"
        self.journal = f"{self.tag}:journal"
        self.received = f"{self.tag}:received"

    def record(self, ref: str) -> str:
        """Return the key of a record's hash."""
        return f"{self.tag}:record:{ref}"

    def outbox(self, ref: str) -> str:
        """Return the key of a record's outbox: topics by sequence."""
        return f"{self.tag}:outbox:{ref}"

    def fence(self, ref: str) -> str:
        """Return the key of the set that says by which reservations *ref* must not be created any more."""
        return f"{self.tag}:fence:{ref}"

    def due(self, kind: Kind, provider: str) -> str:
        """Return the key of the refs of a provider, by when their work of a kind is due."""
        return f"{self.tag}:due:{kind}:{provider}"

    def delivery(self, id_: str) -> str:
        """Return the key of a delivery's hash."""
        return f"{self.tag}:delivery:{id_}"

    def deliveries_of(self, ref: str) -> str:
        """Return the key of the ids of a ref's deliveries."""
        return f"{self.tag}:deliveries:{ref}"

    def key(self, key: str) -> str:
        """Return the key that leads from a user's key to a ref."""
        return f"{self.tag}:key:{key}"

    def task(self, provider: str, task_id: str) -> str:
        """Return the key that leads from a task id to refs."""
        return f"{self.tag}:task:{len(provider)}:{provider}:{task_id}"

    def named(self, name: str) -> str:
        """Return the key of a named value."""
        return f"{self.tag}:name:{name}"

    def places(self, name: str) -> str:
        """Return the key of the places that are taken under a name."""
        return f"{self.tag}:places:{name}"


@define(eq=False, slots=False)
class Layout:
    """All partitions, and which one a word belongs to."""

    prefix: str
    count: int

    @cached_property
    def partitions(self) -> tuple[Partition, ...]:
        """All of them."""
        return tuple(Partition(self.prefix, f"{number:03}") for number in range(self.count))

    @property
    def channel(self) -> str:
        """The channel on which changes are told."""
        return f"{self.prefix}:changes"

    @property
    def meta(self) -> str:
        """The key of what all processes must agree on: the number of partitions and the version of this layout."""
        return f"{{{self.prefix}}}:meta"

    @property
    def providers(self) -> str:
        """The key of the names of all providers that ever had a record."""
        return f"{{{self.prefix}}}:providers"

    def of(self, word: str) -> Partition:
        """Return the partition of a ref, a key, a task id or a name."""
        return self.partitions[zlib.crc32(word.encode()) % self.count]
