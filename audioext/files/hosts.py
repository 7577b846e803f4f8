"""Which links may be followed: https to public addresses, since strangers may write links, and `allow_hosts`."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, frozen
from yarl import URL

from audioext.errors import ConfigError, cut, shown
from audioext.files.formats import BadFileError
from audioext.http.messages import as_data
from audioext.http.urls import is_loopback, is_public_address

Lookup = Callable[[str, int, socket.AddressFamily], Awaitable[list[ResolveResult]]]
"""Returns the addresses of a host, or raises OSError if it has none."""

_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.ASCII)
_LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0")  # noqa: S104 - a local server may have any of them in links


@frozen
class OpenHost:
    """An allowed host, whatever its addresses: on *port*, or any port if that is `None`; over http if *has_http*."""

    name: str
    port: int | None = None
    has_http: bool = False

    def covers(self, host: str, port: int | None) -> bool:
        """Say whether *host* and *port* are allowed by it."""
        return self.name == host and self.port in {None, port}


def read_open_host(text: str) -> OpenHost:
    """Return the host in *text*: a name or address, with or without a port; `http://` before it allows http as well.

    Raises:
        ValueError: *text* is something else.
    """
    bracketed = f"[{text}]" if _address(text) is not None and ":" in text else text
    url = URL(bracketed if "://" in text else f"https://{bracketed}")
    host = host_of(url)
    is_host = _HOST_NAME.fullmatch(host) or _address(host)
    if url.scheme not in {"http", "https"} or not is_host or url != url.origin():
        raise ValueError("it is not a host")
    return OpenHost(host, url.explicit_port, url.scheme == "http")


def hosts_of_api(base_url: URL) -> tuple[OpenHost, ...]:
    """Return the hosts that an API's base URL allows: its own port if it runs on this machine, as a sandbox does."""
    host = host_of(base_url)
    if not is_loopback(host):
        return ()
    return tuple(OpenHost(name, base_url.port, has_http=True) for name in dict.fromkeys((host, *_LOOPBACK)))


def read_link_rules(allow_hosts: Iterable[str], apis: Iterable[URL]) -> LinkRules:
    """Return the rules that allow public hosts, *allow_hosts*, and those of *apis* that run on this machine.

    Raises:
        ConfigError: an entry of *allow_hosts* is not a host.
    """
    opened = {host for url in apis for host in hosts_of_api(url)}
    if isinstance(allow_hosts, str) or not isinstance(allow_hosts, Iterable):
        allow_hosts = (allow_hosts,)
    for name in allow_hosts:
        try:
            opened.add(read_open_host(name))
        except (ValueError, TypeError):
            example = "files.example.org, 10.0.0.7:8443 or http://nas.local"
            raise ConfigError(f"{shown(name)} is not a host: give names, like {example}") from None
    return LinkRules(opened=frozenset(opened))


def host_of(url: URL) -> str:
    """Return the host of *url*, normalised: in lower case, without a trailing dot, addresses in canonical form."""
    host = (url.raw_host or "").lower().rstrip(".")
    address = _address(host)
    return host if address is None else str(address)


def is_public(text: str) -> bool:
    """Say whether *text* is a public IP address."""
    address = _address(text)
    return address is not None and is_public_address(address)


async def _system_lookup(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    return await aiohttp.ThreadedResolver().resolve(host, port, family)


@frozen(kw_only=True)
class LinkRules:
    """Decides which links are followed; *opened* are the allowed hosts, *lookup* resolves a host."""

    opened: frozenset[OpenHost] = frozenset()
    lookup: Lookup = _system_lookup

    def check(self, url: URL) -> None:
        """Check the text of a link; `find` checks the addresses of its host.

        Raises:
            BadFileError: it is not https, has a user name or password, or names an address that is not public.
        """
        host, port = host_of(url), url.explicit_port
        if url.raw_user is not None or url.raw_password is not None:
            raise BadFileError(f"a link to {as_data(host)} has a user name or a password in it, and is not followed")
        doors = [each for each in self.opened if each.covers(host, url.port)]
        if url.scheme != "https" and not any(each.has_http for each in doors):
            raise BadFileError(_refusal(host, port, "it is plain http", opens="http://"))
        # A host of digits and dots counts as an address even if it is not a valid one: it must not be looked up.
        is_number = _address(host) is not None or host.replace(".", "").isdigit()
        if is_number and not doors and not is_public(host):
            raise BadFileError(_refusal(host, port, "it is not a public address"))

    async def find(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        """Return the addresses of *host*.

        Raises:
            BadFileError: one of them is not public, and the host is not in `allow_hosts`.
            OSError: it has none.
        """
        found = await self.lookup(host, port, family)
        name = host.lower().rstrip(".")
        if not found:
            raise OSError(f"{name} has no address")
        is_opened = any(each.covers(name, port) for each in self.opened)
        if not is_opened and not all(is_public(each["host"]) for each in found):
            raise BadFileError(_refusal(name, None, "it has an address that is not public"))
        return found


@define(eq=False)
class LinkResolver(AbstractResolver):
    """The resolver of download sessions: it returns only addresses that *rules* allow, and those of *proxies*."""

    rules: LinkRules
    proxies: Collection[tuple[str | None, int | None]] = ()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of *host*, or raise BadFileError or OSError as `LinkRules.find` does."""
        find = self.rules.lookup if (host, port) in self.proxies else self.rules.find
        return await find(host, port, family)

    async def close(self) -> None:
        """Do nothing; there is nothing to close."""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in *text* in any spelling that the system accepts, such as `0x7f.1` or `2130706433`."""
    with suppress(ValueError):
        return ipaddress.ip_address(text)
    with suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(text))
    return None


def _refusal(host: str, port: int | None, why: str, *, opens: str = "") -> str:
    name = f"[{host}]" if ":" in host else host
    way = shown(f"{opens}{name}" if port is None else f"{opens}{name}:{port}").replace("'", '"')
    return as_data(f"a link to {cut(host)} is not followed: {why}; if it is yours, `allow_hosts=[{way}]` opens it")
