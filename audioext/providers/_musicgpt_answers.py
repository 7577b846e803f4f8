"""How MusicGPT answers a call: the HTTP status is the verdict, and errors come in several shapes.

https://docs.musicgpt.com/api-documentation/utilities/error and conversions/extend, read 2026-11-21.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson
from attrs import field, frozen

from audioext.errors import AuthError, CreditsError, DecodeError, ProviderError, RateLimitError
from audioext.http.decoding import Number, Text, parse_json, structure
from audioext.models.events import Refused, SubmitOutcome, Submitted, Unknown
from audioext.providers._http import excerpt, retry_after
from audioext.providers._suno import Code, CodeTable

if TYPE_CHECKING:
    from audioext.http.messages import HttpResponse

# docs.musicgpt.com/api-documentation/utilities/error, read 2026-11-21; 401 is not on it, but both of the vendor's
# packages map it. The page lists 400 and 500 too: nothing says that no task was made, so they stay unknown.
TABLE = CodeTable(
    codes={
        401: Code(error=AuthError),
        402: Code(error=CreditsError),
        403: Code(error=AuthError),
        404: Code(),
        409: Code(),
        422: Code(),
        429: Code(error=RateLimitError, retryable=True, resend=True),
    }
)

NO_ID = frozenset({"", "single_song_generation_request"})
"""What stands in place of the second id where one take was ordered; the text is a live client's, on no page."""

LONGEST_MESSAGE = 500  # characters; a vendor's text ends up in logs and in front of people
_LONGEST_RAW = 125


@frozen(kw_only=True)
class Answers:
    """Reads the answers of one account: its name for messages, and the key to keep out of texts."""

    provider: str
    secret: str | None = field(default=None, repr=False)

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a task was made, refused or unknown. Never raises for any bytes."""
        body = _object_in(response.body)
        task_id = take_id(body.get("task_id"))
        failed = body.get("success") is False
        if _is_success(response) and not failed:
            if task_id is None:
                return Unknown(reason=f"{self.provider} answered without a task id: {self._text(response)}")
            return _submitted(task_id, body)
        meaning = TABLE.meaning(response.status, "")
        no_task = failed if _is_success(response) else meaning.no_task
        if task_id is not None or not no_task:
            return Unknown(reason=f"{self.provider} answered HTTP {response.status}: {self._text(response)}")
        return Refused(error=self._error(response, charged=False), resend=meaning.resend)

    def parse_conversion(self, response: HttpResponse) -> Mapping[str, object]:
        """Return the `conversion` of a status answer.

        Raises:
            ProviderError: the call was refused, or the answer names no task.
            DecodeError: the answer cannot be read.
        """
        if not _is_success(response):
            raise self._error(response, charged=None)
        body = parse_json(response.body)
        if not isinstance(body, dict):
            raise DecodeError(["expected an object @ $"])
        conversion = body.get("conversion")
        if isinstance(conversion, dict):
            return conversion
        if conversion is not None:
            raise DecodeError(["expected an object @ $.conversion"])
        if body.get("success") is False:
            raise self._error(response, charged=None)
        text = "the answer names no task"
        raise ProviderError(text, provider=self.provider, http_status=response.status, retryable=True)

    def _error(self, response: HttpResponse, *, charged: bool | None) -> ProviderError:
        meaning = TABLE.meaning(response.status, "")
        text = self._text(response)
        code = _error_code(response.body) if _is_success(response) else str(response.status)
        if issubclass(meaning.error, RateLimitError):
            return meaning.error(
                text,
                provider=self.provider,
                http_status=response.status,
                code=code,
                retryable=meaning.retryable,
                charged=charged,
                retry_after=retry_after(response),
            )
        return meaning.error(
            text,
            provider=self.provider,
            http_status=response.status,
            code=code,
            retryable=meaning.retryable,
            charged=charged,
        )

    def _text(self, response: HttpResponse) -> str:
        """Return the answer's own words, else the body's start, without the key: some APIs echo what they refuse."""
        message = error_text(_object_in(response.body))
        raw = response.body if message is None else message.encode()
        if self.secret is not None:
            raw = raw.replace(self.secret.encode(), b"[key]")
        return excerpt(raw, longest=_LONGEST_RAW if message is None else LONGEST_MESSAGE)


def take_id(value: object) -> str | None:
    """Return the id in *value*; empty, another type and the sentinel text are no id."""
    try:
        text: str = structure({"id": value}, _Id).id or ""
    except DecodeError:
        return None
    return None if text in NO_ID else text


def number(value: object) -> float | None:
    """Return the number in *value*; what is none must not cost a result, since no page fixes these types."""
    try:
        return structure({"value": value}, _Value).value
    except DecodeError:
        return None


def error_text(body: Mapping[str, object]) -> str | None:
    """Return the words of an error answer: `detail`, then `message`, then `error`; `None` where there are none.

    A 422 is on no page; `detail` is a text, a list of {loc, msg, type}, or an object, as the vendor's web
    framework writes them.
    """
    detail = body.get("detail")
    if isinstance(detail, list):
        found = "; ".join(line for item in detail if (line := _detail_line(item)))
    else:
        found = words(detail)
    return found or words(body.get("message")) or words(body.get("error")) or None


def words(value: object) -> str:
    """Return the text in *value*, or in an object what stands under the usual names; "" where there is none."""
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, dict):
        return ""
    for key in ("msg", "message", "detail"):
        text = value.get(key)
        if isinstance(text, str) and text.strip():
            return text.strip()
    return orjson.dumps(value).decode() if value else ""


@frozen
class _Id:
    id: Text | None = None


@frozen
class _Value:
    value: Number | None = None


def _submitted(task_id: str, body: Mapping[str, object]) -> Submitted:
    ids = (take_id(body.get("conversion_id_1")), take_id(body.get("conversion_id_2")))
    return Submitted(
        task_id=task_id,
        track_ids=tuple(found for found in ids if found is not None),
        eta=number(body.get("eta")),
        credit_estimate=number(body.get("credit_estimate")),
    )


def _is_success(response: HttpResponse) -> bool:
    return 200 <= response.status < 300  # noqa: PLR2004 - the range of HTTP success


def _object_in(data: bytes) -> Mapping[str, object]:
    try:
        value = parse_json(data)
    except DecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _detail_line(item: object) -> str:
    if not isinstance(item, dict):
        return words(item)
    place = item.get("loc")
    where = ".".join(str(part) for part in place if isinstance(part, (str, int))) if isinstance(place, list) else ""
    text = words(item)
    return f"{where}: {text}" if where else text


def _error_code(data: bytes) -> str | None:
    error = _object_in(data).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return take_id(code)
