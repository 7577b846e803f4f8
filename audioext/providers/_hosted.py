"""An account at an API without an upload host: its settings, and the reading of refusals that no page describes.

vidgo's pages do not show an error body, so its text is looked for wherever clients of the API have found it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs
from attrs import field, frozen
from yarl import URL

from audioext.errors import DecodeError, Problem, ProviderError, RateLimitError, RequestError
from audioext.http.decoding import parse_json
from audioext.http.messages import HttpResponse
from audioext.models.events import Refused, Unknown
from audioext.models.record import Record
from audioext.models.requests import Operation
from audioext.providers import _http
from audioext.providers._fields import operations_of
from audioext.providers._suno import CodeTable
from audioext.providers.base import Limits, Pace

GRACE_SECONDS = 900.0  # no page says how late a first callback may be
LONGEST_TEXT = 500  # characters of a vendor's message; it ends up in logs and in front of people
LONGEST_EXCERPT = 120  # characters of a body that holds no message
_HTTP_FORBIDDEN = 403
_FIREWALL = re.compile(rb"\berror( code:)? 1010\b", re.IGNORECASE)
_TEXT_KEYS = ("message", "msg", "detail", "error", "reason")


@frozen(kw_only=True)
class Facts:
    """The facts of one wire format at its vendor.

    `text_keys` are the keys of a body that may hold an error's text, the likeliest first. `retention` is in
    seconds, `None` where no page says.
    """

    wire_name: str
    key_variable: str
    base_url: URL
    limits: Limits
    retention: float | None
    table: CodeTable
    text_keys: tuple[str, ...]


@frozen(kw_only=True)
class Replies:
    """Reads the refusals of one account: its name for messages, its codes, the key to keep out of texts."""

    provider: str
    table: CodeTable
    text_keys: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)

    def outcome(self, response: HttpResponse, *, code: int | None = None) -> Refused | Unknown:
        """Say what a submit's answer that names no task means: refused for certain, or unknown.

        *code* is the body's own, where it has one; else the HTTP status counts. Never raises for any bytes.
        """
        if _from_firewall(response):
            return Refused(error=self._firewall_error(response))
        if read_object(response.body) is None:
            return Unknown(reason=f"{self.provider} answered HTTP {response.status} with {self.text(response)}")
        number = response.status if code is None else code
        text = self.text(response)
        meaning = self.table.meaning(number, text)
        if not meaning.no_task:
            return Unknown(reason=f"{self.provider} answered {number}: {text}")
        return Refused(error=self.error(response, code=number, charged=False), resend=meaning.resend)

    def error(self, response: HttpResponse, *, code: int, charged: bool | None = None) -> ProviderError:
        """Return the error that *code* stands for; *charged* is what the refused call has cost."""
        if _from_firewall(response):
            return self._firewall_error(response)
        text = self.text(response)
        meaning = self.table.meaning(code, text)
        if issubclass(meaning.error, RateLimitError):
            return meaning.error(
                text,
                provider=self.provider,
                http_status=response.status,
                code=str(code),
                retryable=meaning.retryable,
                charged=charged,
                retry_after=_http.retry_after(response),
            )
        return meaning.error(
            text,
            provider=self.provider,
            http_status=response.status,
            code=str(code),
            retryable=meaning.retryable,
            charged=charged,
        )

    def no_task(self, response: HttpResponse) -> ProviderError:
        """Return the error of a status answer that succeeded without a task in it; asking again may help."""
        return ProviderError(
            "the answer names no task", provider=self.provider, http_status=response.status, retryable=True
        )

    def text(self, response: HttpResponse) -> str:
        """Return what *response* says to people, else its start, without the key: some APIs echo what they refuse."""
        body = read_object(response.body)
        told = "" if body is None else error_text(body, self.text_keys)
        shown = told.encode() if told else response.body
        if self.secret is not None:
            shown = shown.replace(self.secret.encode(), b"[key]")
        return _http.excerpt(shown, longest=LONGEST_TEXT if told else LONGEST_EXCERPT)

    def _firewall_error(self, response: HttpResponse) -> ProviderError:
        # Cloudflare turned the client away before the API saw the call.
        text = "the firewall in front of the API refused this client (error code: 1010)"
        return ProviderError(text, provider=self.provider, http_status=response.status, code="1010", charged=False)


@frozen
class HostedAccount:
    """An API key at one vendor, with the addresses and limits that belong to it.

    `base_url` may carry a path prefix. `name` is the segment of the callback path; two accounts at one API
    need two names. `grace` and `retention` are in seconds.

    Raises:
        ConfigError: a setting cannot work.
    """

    facts: ClassVar[Facts]

    api_key: str | None = field(default=None, converter=_http.to_api_key, repr=False)
    base_url: URL = field(
        default=attrs.Factory(lambda self: self.facts.base_url, takes_self=True),
        kw_only=True,
        converter=_http.to_base_url,
    )
    name: str = field(
        default=attrs.Factory(lambda self: self.facts.wire_name, takes_self=True),
        kw_only=True,
        converter=_http.to_name,
    )
    limits: Limits = field(default=attrs.Factory(lambda self: self.facts.limits, takes_self=True), kw_only=True)
    pace: Pace = field(factory=Pace, kw_only=True)
    grace: float = field(default=GRACE_SECONDS, kw_only=True)
    retention: float | None = field(
        default=attrs.Factory(lambda self: self.facts.retention, takes_self=True), kw_only=True
    )

    @property
    def account(self) -> str:
        """Whose limits count: the host and a digest of the key."""
        digest = hashlib.sha256(f"audioext account {self.api_key}".encode()).hexdigest()[:12]
        return f"{self.base_url.authority}/{digest}"

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the key where none is given."""
        return self.facts.key_variable

    @property
    def operations(self) -> frozenset[Operation]:
        """The operations that the wire format has."""
        return operations_of(self.facts.wire_name)

    @property
    def replies(self) -> Replies:
        """The reader of this account's refusals."""
        return Replies(provider=self.name, table=self.facts.table, text_keys=self.facts.text_keys, secret=self.api_key)

    def _address(self, path: str, query: Mapping[str, str] | None = None) -> URL:
        return _http.join(self.base_url, path).with_query(query)


def read_object(body: bytes) -> Mapping[str, object] | None:
    """Return the JSON object in *body*, or `None` if it holds no such thing."""
    try:
        value = parse_json(body)
    except DecodeError:
        return None
    return value if isinstance(value, dict) else None


def error_text(body: Mapping[str, object], keys: Sequence[str]) -> str:
    """Return the first text for people under *keys* of *body*, `""` if there is none.

    A value may be a text, an object that holds one, or a list of either; a web framework's complaint about a
    field, `{"loc": …, "msg": …}`, comes out as `field: message`.
    """
    return next((text for key in keys if (text := _words(body.get(key)))), "")


def named_task(record: Record) -> str:
    """Return the task id of *record*.

    Raises:
        RequestError: it is not known yet, so there is nothing to ask for.
    """
    if record.task_id is None:
        raise RequestError([Problem("task_id", "is not known yet: nothing can be asked about this job")])
    return record.task_id


def _words(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return "; ".join(filter(None, map(_words, value)))
    if not isinstance(value, dict):
        return ""
    text = next((found for key in _TEXT_KEYS if (found := _words(value.get(key)))), "")
    place = value.get("loc")
    if not text or not isinstance(place, list):
        return text
    steps = ".".join(str(step) for step in place if isinstance(step, (str, int)) and step != "body")
    return f"{steps}: {text}" if steps else text


def _from_firewall(response: HttpResponse) -> bool:
    return response.status == _HTTP_FORBIDDEN and _FIREWALL.search(response.body[:16_384]) is not None
