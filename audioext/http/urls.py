"""URLs: building and reading callback paths, hiding secrets in texts, and telling local hosts from public ones."""

from __future__ import annotations

import ipaddress
import re

from attrs import field, frozen
from yarl import URL

from audioext.errors import WebhookError
from audioext.http import signing

FILES_SEGMENT = "files"
CHECK_SEGMENT = "check"
"""The provider's name in the callback path of a check, so that it takes the same route as a webhook."""
MASK = "***"
PROVIDER, REF, TAG = "[a-z0-9-]{1,64}", "[0-9a-z]{8,64}", "[0-9A-Za-z_-]{43}"
"""The patterns of the three segments of a callback path."""
_CALLBACK = re.compile(rf"(?:^|/)({PROVIDER})/({REF})/([\w%.~-]{{1,128}})(?:;[^/]*)?/?$", re.ASCII)
# Any tag, to refuse it by 401; a servlet container in front may add `;jsessionid=…` to the last segment.
# A prefix may have any number of segments, so the secret is found by its own shape, or else as the path's last segment.
# A slash may be spelled \/ in JSON, %2F by a proxy, and %252F if that is encoded again; or it is a backslash.
_SECRET_PATH = re.compile(
    r"""(
      (?:(?<![\w%.~-])|(?<=[%5]2[Ff])|(?<=[%5]5[Cc]))  # ref and tag, as we make them, or a file's token
      (?:[0-9a-z]{24}|files)(?:[\\/]|%(?:25)*+(?:2[Ff]|5[Cc]))+ (?=[\w-]{43}(?![\w-]))
    | =(?=[\w-]{43}(?![\w-]))  # in a query
    | (?<![\w%.~-])(?:
        files(?:\\?/)+ (?=[^/?\s"\\]++(?:(?:\\?/)+[^/?\s"\\]*+)?(?:\\?/)?(?!\\/|[^?\s"\\]))
      | [a-z0-9-]{1,64}(?:\\?/)+[0-9a-z]{8,64}(?:\\?/)+ (?=[\w%.~-]++(?!(?:\\?/)+[\w%.~-]))
      )
    )[\w%.~-]+""",
    re.ASCII | re.VERBOSE,
)

_PASSWORD = re.compile(r"(?<=password=)[^&\s]*", re.IGNORECASE)
_BARE_NAME = re.compile(r"\A[^/\s]*@")  # the user info of a URL without a scheme
_SIGNING = re.compile(
    r"(x-(amz|goog|oss|cos)-[^=]*|(aws|oss)accesskeyid|googleaccessid|key-pair-id|security-token|policy|q-[^=]*"
    r"|sig|sign|signature|exp|expires?|auth_key|se|st|ske|skt|ex|is|hm)=|token=eyJ",
    re.IGNORECASE,
)
"""A parameter with which a file host signs its links: S3, CloudFront, Google, Azure, Alibaba, Tencent, Supabase (a JSON
Web Token), Discord, and others that take the usual words."""
_SPACES = re.compile(r"(\s+)")
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".home.arpa")
"""Suffixes of host names that are never public: RFC 6761, 6762 and 8375, and common practice."""
_UNICAST = ipaddress.ip_network("2000::/3")  # all public IPv6 addresses: RFC 4291, 2.4
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses in a network that has only IPv6: RFC 6052, 2.1
_PRIVATE_NETWORKS = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's internal service endpoint, at an address that looks public
    ipaddress.ip_network("192.0.0.0/24"),  # RFC 6890, 2.2.2: Oracle's metadata; older Pythons call most of it global
)
_LAST_32_BITS = 0xFFFF_FFFF
_IP_LABEL = re.compile("[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


@frozen
class Route:
    """The parts of a callback path; the tag is secret and not in the repr."""

    provider: str
    ref: str
    tag: str = field(repr=False)


def callback_url(public_url: URL, secret: bytes, provider: str, ref: str) -> URL:
    """Return the callback URL of *ref* for *provider*."""
    # All three segments are safe in a path, so `encoded=True` saves parsing it.
    path = f"{public_url.raw_path.rstrip('/')}/{provider}/{ref}/{signing.tag(secret, provider, ref)}"
    return public_url.with_path(path, encoded=True)


def read_callback(path: str) -> Route:
    """Return the route in the last three segments of *path*; raise WebhookError (404) if there is none."""
    found = _CALLBACK.search(path.partition("?")[0])
    if found is None:
        raise WebhookError("no such route", http_status=404)
    return Route(*found.groups())


def mask(text: str) -> str:
    """Return *text* with the secret segment of every callback or file path hidden."""
    return _SECRET_PATH.sub(lambda found: found[1] + MASK, text)


def without_password(text: str) -> str:
    """Return *text* with the user name and password of every URL hidden, even of a malformed one."""
    text = "".join(map(_without_name, _SPACES.split(_BARE_NAME.sub(f"{MASK}@", text))))
    return _PASSWORD.sub(MASK, text)


def _without_name(word: str) -> str:
    scheme, slashes, rest = word.partition("//")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{slashes}{MASK}@{host}" if at else word


def is_loopback(host: str | None) -> bool:
    """Say whether *host*, a name or an address, is this machine."""
    name = (host or "").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        return name == "localhost"


def may_be_public(host: str | None) -> bool:
    """Say whether *host* may be reachable from the internet, judging by its name or address."""
    name = (host or "").rstrip(".").lower()
    try:
        return is_public_address(ipaddress.ip_address(name))
    except ValueError:
        # Old spellings of addresses, such as 127.1 and 0x7f.1, end in a number; no public host name does.
        labels = name.split(".")
        is_name = len(labels) > 1 and all(labels) and _IP_LABEL.fullmatch(labels[-1]) is None
        return is_name and not f".{name}".endswith(_LOCAL_NAMES)


def is_public_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Say whether *address* is public, also inside IPv6 forms such as NAT64, IPv4-mapped or 6to4."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & _LAST_32_BITS)
        if inner is None:
            return address in _UNICAST and address.is_global
        address = inner
    if address.is_multicast or address.is_reserved:
        return False
    return address.is_global and not any(address in network for network in _PRIVATE_NETWORKS)


def unsigned(url: str) -> str:
    """Return *url* without its signature. The rest of its query stays, since it may say which file is meant."""
    link, _, query = url.partition("?")
    rest = [each for each in query.split("&") if each and not _SIGNING.match(each)]
    return f"{link}?{'&'.join(rest)}" if rest else link
