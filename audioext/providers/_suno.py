"""The envelope that kie.ai (both routes) and sunoapi.org share: `{"code": …, "msg": …, "data": …}`.

The body's `code` is the verdict, whatever the HTTP status says; without one the HTTP status is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from audioext.errors import (
    AuthError,
    DecodeError,
    ProviderDownError,
    ProviderError,
    RateLimitError,
)
from audioext.http.decoding import Link, Number, Text, parse_json, structure
from audioext.models.events import Refused, SubmitOutcome, Submitted, Unknown
from audioext.providers._http import excerpt, retry_after

if TYPE_CHECKING:
    from audioext.http.messages import HttpResponse

OK = 200
_HTTP_BROKEN_FROM = 500
_HTTP_ERROR_FROM = 400
_HTTP_SERVER_ERROR_FROM = 500
_HTTP_FORBIDDEN = 403
_FIREWALL = re.compile(rb"\berror( code:)? 1010\b", re.IGNORECASE)
_LONGEST_MESSAGE = 500  # characters; a vendor's text ends up in logs and in front of people
_SMALL_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


@frozen(kw_only=True)
class Code:
    """What a code means: the error's type, whether the call may succeed later, and whether no task was made.

    `resend` says that the same POST may be sent again by itself, which holds for rates and maintenance.
    """

    error: type[ProviderError] = ProviderError
    retryable: bool = False
    no_task: bool = True
    resend: bool = False


@frozen(kw_only=True)
class CodeTable:
    """One vendor's codes, and the texts that outrank them.

    `phrases` are (pattern, codes it may speak for or `None` for all, meaning), tried in order on `msg`.
    `http_refusals` are HTTP statuses that the vendor states to be refusals whatever the body holds.
    """

    codes: Mapping[int, Code]
    phrases: tuple[tuple[re.Pattern[str], frozenset[int] | None, Code], ...] = ()
    http_refusals: frozenset[int] = frozenset()

    def meaning(self, code: int, message: str) -> Code:
        """Return what *code* with *message* means; one that no page lists may have made a task."""
        for pattern, spoken_for, meaning in self.phrases:
            if (spoken_for is None or code in spoken_for) and pattern.search(message):
                return meaning
        known = self.codes.get(code)
        if known is not None:
            return known
        down = code >= _HTTP_SERVER_ERROR_FROM
        return Code(error=ProviderDownError if down else ProviderError, retryable=down, no_task=False)


@frozen(kw_only=True)
class Envelope:
    """One answer, opened: its code (the body's, else the HTTP status), its text and its `data`.

    `failed` says that it bears `"success": false`, as the file hosts' answers do.
    """

    code: int
    message: str | None
    data: object
    failed: bool


@frozen(kw_only=True)
class Answers:
    """Reads the answers of one account: its name for messages, its codes, the key to keep out of texts."""

    provider: str
    table: CodeTable
    secret: str | None = field(default=None, repr=False)

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a task was made, refused or unknown. Never raises for any bytes."""
        try:
            envelope = open_envelope(response)
        except DecodeError:
            return self._unreadable(response)
        task_id = _task_id(envelope.data)
        text = self._text(response, envelope.message)
        if envelope.code == OK:
            reason = f"{self.provider} answered without a task id: {text}"
            return Submitted(task_id=task_id) if task_id is not None else Unknown(reason=reason)
        meaning = self.table.meaning(envelope.code, text)
        # A 5xx says that something broke on the way, whatever code its body quotes: the task may have been made.
        broken = response.status >= _HTTP_BROKEN_FROM
        if not meaning.no_task or task_id is not None or broken:
            return Unknown(reason=f"{self.provider} answered {envelope.code}: {text}")
        error = self._error(response, envelope.code, text, charged=False)
        return Refused(error=error, resend=meaning.resend)

    def parse_data(self, response: HttpResponse, *, charged: bool | None = None) -> Envelope:
        """Return the envelope of a call that succeeded; *charged* is what a refusal would have cost.

        Raises:
            ProviderError: the call was refused.
            DecodeError: the answer is not an envelope.
        """
        try:
            envelope = open_envelope(response)
        except DecodeError:
            if response.status < _HTTP_ERROR_FROM:
                raise
            if _from_firewall(response):
                raise self._firewall_error(response) from None
            text = self._text(response, None)
            raise self._error(response, response.status, text, charged=charged) from None
        if envelope.code != OK or envelope.failed:
            text = self._text(response, envelope.message)
            raise self._error(response, envelope.code, text, charged=charged)
        return envelope

    def parse_upload(self, response: HttpResponse) -> str:
        """Return the URL of an uploaded file: `downloadUrl`, then `fileUrl`.

        docs.kie.ai/file-upload-api/quickstart, read 2026-11-21; live answers had no `fileUrl`.

        Raises:
            ProviderError: the upload was refused; uploads are free.
            DecodeError: the answer names no URL.
        """
        envelope = evolve(self, table=UPLOAD_TABLE).parse_data(response, charged=False)
        links = structure(envelope.data, UploadedFile, where="the upload's data")
        url = links.downloadUrl or links.fileUrl
        if url is None:
            raise DecodeError(["required field missing @ $.data.downloadUrl"])
        return url

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance: `data` is the number itself, and fractions exist.

        Raises:
            ProviderError: the call was refused.
            DecodeError: the answer names no balance.
        """
        envelope = self.parse_data(response, charged=False)
        return structure({"data": envelope.data}, Balance).data

    def no_task(self, envelope: Envelope) -> ProviderError:
        """Return the error of a status answer that succeeded without a task in it; asking again may help."""
        text = "the answer names no task"
        return ProviderError(text, provider=self.provider, code=str(envelope.code), retryable=True)

    def _unreadable(self, response: HttpResponse) -> SubmitOutcome:
        text = self._text(response, None)
        if _from_firewall(response):
            return Refused(error=self._firewall_error(response))
        if response.status in self.table.http_refusals:
            error = self._error(response, response.status, text, charged=False)
            return Refused(error=error, resend=self.table.meaning(response.status, text).resend)
        return Unknown(reason=f"{self.provider} answered HTTP {response.status} with {text}")

    def _firewall_error(self, response: HttpResponse) -> ProviderError:
        # Cloudflare turned the client away before the API saw the call.
        text = "the firewall in front of the API refused this client (error code: 1010)"
        return ProviderError(text, provider=self.provider, http_status=response.status, code="1010", charged=False)

    def _error(self, response: HttpResponse, code: int, text: str, *, charged: bool | None) -> ProviderError:
        meaning = self.table.meaning(code, text)
        if issubclass(meaning.error, RateLimitError):
            return meaning.error(
                text,
                provider=self.provider,
                http_status=response.status,
                code=str(code),
                retryable=meaning.retryable,
                charged=charged,
                retry_after=retry_after(response),
            )
        return meaning.error(
            text,
            provider=self.provider,
            http_status=response.status,
            code=str(code),
            retryable=meaning.retryable,
            charged=charged,
        )

    def _text(self, response: HttpResponse, message: str | None) -> str:
        """Return *message*, else the body's start, without the key: some APIs echo what they refuse."""
        body = response.body if message is None else message.encode()
        if self.secret is not None:
            body = body.replace(self.secret.encode(), b"[key]")
        return excerpt(body, longest=_LONGEST_MESSAGE if message is not None else _LONGEST_MESSAGE // 4)


UPLOAD_TABLE = CodeTable(
    # docs.kie.ai/file-upload-api/quickstart, read 2026-11-21
    codes={
        400: Code(),
        401: Code(error=AuthError),
        403: Code(error=AuthError),
        405: Code(),
        429: Code(error=RateLimitError, retryable=True),
        500: Code(error=ProviderDownError, retryable=True),
    }
)
"""The codes of both vendors' file hosts; nothing there costs anything."""


@frozen
class UploadedFile:
    """`data` of an upload's answer."""

    downloadUrl: Link | None = None  # noqa: N815 - the wire's spelling
    fileUrl: Link | None = None  # noqa: N815 - the wire's spelling


@frozen
class Balance:
    """The answer to a credits call; the pages type it as an integer, and fractions exist."""

    data: Number


@frozen
class TaskIds:
    """The two spellings of a task id: the pages show `taskId`, their prose and callbacks `task_id`."""

    taskId: Text | None = None  # noqa: N815 - the wire's spelling
    task_id: Text | None = None


def open_envelope(response: HttpResponse) -> Envelope:
    """Return the envelope in *response*.

    Raises:
        DecodeError: the body is not a JSON object.
    """
    value = parse_json(response.body)
    if not isinstance(value, dict):
        raise DecodeError(["expected an object @ $"])
    code = _code_of(value.get("code"))
    text = next((value[key] for key in ("msg", "message", "error") if isinstance(value.get(key), str)), None)
    return Envelope(
        code=code if code is not None else _http_code(response.status),
        message=text,
        data=value.get("data"),
        failed=value.get("success") is False,
    )


def _from_firewall(response: HttpResponse) -> bool:
    return response.status == _HTTP_FORBIDDEN and _FIREWALL.search(response.body[:16_384]) is not None


def _code_of(value: object) -> int | None:
    if type(value) is int:
        return value
    if type(value) is str and _SMALL_NUMBER.fullmatch(value):
        return int(value)
    return None


def _http_code(status: int) -> int:
    return OK if 200 <= status < 300 else status  # noqa: PLR2004 - the range of HTTP success


def _task_id(data: object) -> str | None:
    if not isinstance(data, dict):
        return None
    try:
        ids = structure(data, TaskIds)
    except DecodeError:
        return None
    return ids.taskId or ids.task_id or None
