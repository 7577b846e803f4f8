"""The base class of all providers: an account's settings, its vendor's facts, and the calls that all APIs share."""

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import attrs
import msgspec
from attrs import field, frozen
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from audioext.errors import ConfigError, Problem, RequestError
from audioext.http import urls
from audioext.http.messages import AUDIO_TYPES, HttpRequest, HttpResponse, Part, Webhook
from audioext.models import checks
from audioext.models.events import SubmitOutcome
from audioext.models.limits import Limits, Pace
from audioext.models.record import Record
from audioext.models.requests import Request
from audioext.providers._answers import Answers, CodeTable
from audioext.providers._fields import FieldRules, field_problems
from audioext.providers.base import ProviderFacts, ProviderInfo
from audioext.version import __version__

USER_AGENT = f"audioext/{__version__}"
"""Sent with every call: Cloudflare answers a request without a User-Agent with 403 "error code: 1010"."""

DAY_SECONDS = 86_400.0

_PASTED = re.compile(
    r"\A(((export|set)\s+|\$env:|--)?[A-Z0-9_-]*(API|WEBHOOK)[_-]KEY\s*[=:]|authorization\s*[=:]|bearer(\s|:))\s*",
    re.IGNORECASE,
)
_AROUND_KEY = (
    " \t\r\n\f\v\"'`,;<>\u00a0\u00ab\u00bb\u200b\u200c\u200d\u200e\u200f\u2018\u2019\u201a\u201b"
    "\u201c\u201d\u201e\u201f\u202a\u202b\u202c\u202d\u202e\u2039\u203a\u2060\u2066\u2067\u2068\u2069\ufeff"
)
"""White space, quotes of all languages, and marks that show nothing."""


@frozen(kw_only=True)
class Vendor(ProviderFacts):
    """The facts of one wire format at one vendor.

    `rules` say which requests it accepts; their `wire_name` is the default `name` of an account. `table` has the codes
    of its answers. `auth` comes before the key in the `Authorization` header. A status call is a GET of `status_path`
    with `status_query` and the task's id as `status_key`.
    """

    rules: FieldRules
    table: CodeTable = field(factory=CodeTable)
    auth: str = "Bearer "
    status_path: str = ""
    status_key: str = "task_id"
    status_query: Mapping[str, str] = field(factory=dict)


def to_base_url(value: str | URL) -> URL:
    """Return *value* as an absolute http(s) URL, which may carry a path prefix, or raise ConfigError."""
    try:
        url = URL(value.strip() if isinstance(value, str) else value)
        host = url.host
    except (TypeError, ValueError):
        url, host = URL(), None
    if url.scheme not in {"http", "https"} or " " in (host or " ") or url.query_string or url.fragment or url.user:
        # Not shown if it may hold a password, or if it may be the API key, passed in the wrong place.
        fit = isinstance(value, (str, URL)) and "@" not in str(value) and "/" in str(value)
        shown = f"{value!s:.80}" if fit else "that"
        raise ConfigError(f"`base_url=` must be like https://api.example.com or http://127.0.0.1:8000/kie, not {shown}")
    return url.with_path(url.path.rstrip("/"))


def without_pasted(key: str) -> str:
    """Return *key* without pasted extras: white space, quotes, `Bearer `, `KIE_API_KEY=`."""
    before = None
    while key != before:
        before, key = key, _PASTED.sub("", key.strip(_AROUND_KEY))
    return key


def to_api_key(value: str | None) -> str | None:
    """Return *value* without pasted extras (white space, quotes, `Bearer `), or raise ConfigError."""
    if value is None:
        return None
    key = without_pasted(value) if isinstance(value, str) else ""
    # No message shows the key itself.
    if not isinstance(value, str):
        raise ConfigError("api_key must be text")
    if not key or key.lower() == "bearer":
        raise ConfigError("api_key is empty")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError("api_key has a space, a line break or a letter that no key has: was it copied correctly?")
    return key


def _vendors(fact: str) -> Any:  # noqa: ANN401 - like attrs.Factory, so that the field's annotation counts
    """Return an attrs default that takes *fact* from the account's vendor."""
    return attrs.Factory(attrgetter(f"vendor.{fact}"), takes_self=True)


_name = checks.setting(
    checks.must_be(
        "1 to 64 small letters, digits and hyphens, such as kie-2",  # it is a segment of the callback path
        lambda value: isinstance(value, str) and re.fullmatch(urls.PROVIDER, value) is not None,
    )
)
_limits = checks.setting(checks.made_as(Limits, "an audioext.Limits(...)"))
_pace = checks.setting(checks.made_as(Pace, "an audioext.Pace(...)"))


@functools.lru_cache(maxsize=256)
def _joined(root: URL, path: str) -> URL:
    return root.with_path(root.path.rstrip("/") + path)


@frozen
class HostedAccount:
    """An account at one vendor: its API key, base URL and limits; the base class of every provider.

    `Kie` describes the settings. A subclass sets `vendor` and adds `build_submit`, `parse_status` and `parse_webhook`
    for its wire format; also `build_status` if `status_path` cannot say it, and `is_signed` and `verify_webhook` if it
    signs.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[Vendor]

    api_key: str | None = field(default=None, converter=to_api_key, repr=False)
    given_url: URL | None = field(
        default=None,
        alias="base_url",
        kw_only=True,
        converter=attrs.converters.optional(to_base_url),
        repr=False,
        eq=False,
    )
    """The `base_url` argument, `None` for the vendor's own."""
    base_url: URL = field(
        init=False, default=attrs.Factory(lambda self: self.given_url or self.vendor.base_url, takes_self=True)
    )
    name: str = field(default=_vendors("rules.wire_name"), kw_only=True, validator=_name)
    limits: Limits = field(default=_vendors("limits"), kw_only=True, validator=_limits)
    pace: Pace = field(factory=Pace, kw_only=True, validator=_pace)
    grace: float = field(default=_vendors("grace"), kw_only=True, validator=checks.setting(checks.seconds))
    retention: float | None = field(
        default=_vendors("retention"), kw_only=True, validator=checks.setting(checks.seconds, optional=True)
    )

    info: ProviderInfo = field(init=False, repr=False, eq=False)
    """The facts of this account; limits are counted by base URL, since a host may have several APIs, and by key."""

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        """Make the TypeError for a misspelt setting suggest the right one."""
        checks.name_what_was_meant(cls, "setting")

    @property
    def is_signed(self) -> bool:
        """Whether `verify_webhook` checks a signature."""
        return False

    def __attrs_post_init__(self) -> None:
        """Build `info` once, since it is read several times with each call."""
        digest = hashlib.sha256(f"audioext account {self.api_key}".encode()).hexdigest()[:12]
        facts: dict[str, Any] = {each.name: getattr(self.vendor, each.name) for each in attrs.fields(ProviderFacts)}
        own = ("base_url", "limits", "grace", "retention", "name", "pace", "is_signed")
        facts |= {name: getattr(self, name) for name in own}
        info = ProviderInfo(
            **facts,
            account=f"{self.base_url.authority}{self.base_url.path.rstrip('/')}/{digest}",
            has_key=self.api_key is not None,
            is_base_url_given=self.given_url is not None,
            operations=self.vendor.rules.operations,
        )
        object.__setattr__(self, "info", info)  # a field fits the protocol's property, a cached_property does not

    @functools.cached_property
    def answers(self) -> Answers:
        """The parser of this account's answers."""
        return Answers(provider=self.name, table=self.vendor.table, secret=self.api_key)

    def check(self, request: Request) -> Sequence[Problem]:
        """Return every problem that this API would have with *request*, and advice, or raise UnsupportedError."""
        return field_problems(request, self.vendor.rules)

    def check_callback(self, callback: URL) -> str | None:  # noqa: ARG002 - the protocol's
        """Return `None`: no page says that this API refuses an address."""
        return None

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Return whether the task was made, refused, or may have been made. Never raises, whatever the bytes."""
        return self.answers.parse_submit(response)

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET of the status of *record*'s task, or raise RequestError if its task id is not known yet.

        It goes to the base URL that the task was submitted to, unless this account has a base URL of its own or another
        key, which that API must not see.
        """
        if record.task_id is None:
            raise RequestError([Problem("task_id", "is not known yet, so this job has no status to ask for")])
        asked, vendor, base = record.asked, self.vendor, None
        is_same_key = asked.account.rpartition("/")[2] == self.info.account.rpartition("/")[2]
        if asked.base_url is not None and is_same_key and self.base_url == vendor.base_url:
            base = to_base_url(asked.base_url)
        return self.get(vendor.status_path, {**vendor.status_query, **self.named(record)}, base=base)

    def named(self, record: Record) -> Mapping[str, str]:
        """Return the query parameters that name *record*'s task in a status call."""
        return {self.vendor.status_key: record.task_id or ""}

    def verify_webhook(self, hook: Webhook) -> None:
        """Do nothing: this API does not sign webhooks, so the tag is the only proof."""

    def get(self, path: str, query: Mapping[str, str] | None = None, *, base: URL | None = None) -> HttpRequest:
        """Return a GET of *path*, which starts with a slash, under *base*, by default `base_url`."""
        url = _joined(self.base_url if base is None else base, path)
        return HttpRequest(method="GET", url=url.with_query(query), headers=self.headers)

    def post(self, path: str, body: Mapping[str, object] | Sequence[Part], *, base: URL | None = None) -> HttpRequest:
        """Return a POST of *body*, as JSON or as a form of parts, to *path* under *base*, by default `base_url`."""
        url = _joined(self.base_url if base is None else base, path)
        if not isinstance(body, Mapping):
            return HttpRequest(method="POST", url=url, headers=self.headers, parts=tuple(body))
        return HttpRequest(method="POST", url=url, headers=self._json_headers, body=msgspec.json.encode(body))

    @functools.cached_property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers of a call: `User-Agent`, `Accept`, and `Authorization` if there is a key."""
        key = {} if self.api_key is None else {"Authorization": f"{self.vendor.auth}{self.api_key}"}
        return CIMultiDictProxy(CIMultiDict({"User-Agent": USER_AGENT, "Accept": "application/json", **key}))

    @functools.cached_property
    def _json_headers(self) -> CIMultiDictProxy[str]:
        return CIMultiDictProxy(CIMultiDict({**self.headers, "Content-Type": "application/json"}))


def file_part(name: str, path: Path, *, filename: str) -> Part:
    """Return a form part with the audio at *path*; its media type, which some hosts want, is by *filename*'s suffix."""
    filename = filename.encode(errors="replace").decode()  # a name on disk may be other than UTF-8
    suffix = Path(filename).suffix[1:].lower()
    other = f"audio/{suffix}" if suffix.isalnum() and suffix.isascii() else None
    return Part(name=name, path=path, filename=filename, content_type=AUDIO_TYPES.get(f".{suffix}", other))
