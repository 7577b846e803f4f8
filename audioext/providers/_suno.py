"""The envelope that kie.ai (both routes) and sunoapi.org share: `{"code": …, "msg": …, "data": …}`.

The body's `code` is the verdict, whatever the HTTP status says; without one the HTTP status is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import field, frozen

from audioext.errors import (
    DecodeError,
    ProviderDownError,
    ProviderError,
    RateLimitError,
)
from audioext.providers._http import excerpt, retry_after
from audioext.wire.convert import Link, Number, Text, parse_json, structure
from audioext.wire.events import Refused, Submitted, SubmitOutcome, Unknown
from audioext.wire.http import HttpResponse

OK = 200
_HTTP_ERROR_FROM = 400
_HTTP_SERVER_ERROR_FROM = 500
_FIREWALL = re.compile(rb"error code: 1010\b")
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
    """One answer, opened: its code (the body's, else the HTTP status), its text, its `data`, and the whole."""

    code: int
    message: str
    data: object
    whole: Mapping[str, object] = field(repr=False)


@frozen(kw_only=True)
class Answers:
    """Reads the answers of one account: who it is for messages, its code table, and the key to keep out of them."""

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
        if envelope.code == OK:
            reason = f"{self.provider} answered without a task id: {self._clean(envelope.message)}"
            return Submitted(task_id=task_id) if task_id is not None else Unknown(reason=reason)
        meaning = self.table.meaning(envelope.code, envelope.message)
        if not meaning.no_task or task_id is not None:
            return Unknown(
                reason=f"{self.provider} answered {envelope.code}: {self._clean(envelope.message)}"
            )
        error = self._error(response, envelope.code, envelope.message, charged=False)
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
            raise self._error(response, response.status, excerpt(response.body), charged=charged) from None
        if envelope.code != OK:
            raise self._error(response, envelope.code, envelope.message, charged=charged)
        return envelope

    def parse_upload(self, response: HttpResponse) -> str:
        """Return the URL of an uploaded file: `downloadUrl`, then `fileUrl`.

        docs.kie.ai/file-upload-api/quickstart, read 2026-11-21; live answers had no `fileUrl`.

        Raises:
            ProviderError: the upload was refused; uploads are free.
            DecodeError: the answer names no URL.
        """
        envelope = self.parse_data(response, charged=False)
        if envelope.whole.get("success") is False:
            raise self._error(response, envelope.code, envelope.message, charged=False)
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
        return float(structure(self.parse_data(response, charged=False).data, Number, where="the balance"))

    def refusal(self, message: str, *, code: str | None = None) -> ProviderError:
        """Return the error of a status answer that succeeded and yet tells nothing; asking again may help."""
        return ProviderError(self._clean(message), provider=self.provider, code=code, retryable=True)

    def _unreadable(self, response: HttpResponse) -> SubmitOutcome:
        message = excerpt(response.body)
        if _FIREWALL.search(response.body[:4096]):
            # Cloudflare turned the client away before the API saw the call; seen with HTTP 403.
            text = "the firewall in front of the API refused this client (error code: 1010)"
            error = ProviderError(
                text, provider=self.provider, http_status=response.status, code="1010", charged=False
            )
            return Refused(error=error)
        if response.status in self.table.http_refusals:
            error = self._error(response, response.status, message, charged=False)
            return Refused(error=error, resend=self.table.meaning(response.status, "").resend)
        return Unknown(reason=f"{self.provider} answered HTTP {response.status} with {self._clean(message)}")

    def _error(
        self, response: HttpResponse, code: int, message: str, *, charged: bool | None
    ) -> ProviderError:
        meaning = self.table.meaning(code, message)
        text = self._clean(message)
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

    def _clean(self, message: str) -> str:
        # Some APIs echo the key that they refuse.
        return message if self.secret is None else message.replace(self.secret, "[key]")


@frozen
class UploadedFile:
    """`data` of an upload's answer."""

    downloadUrl: Link | None = None  # noqa: N815 - the wire's spelling
    fileUrl: Link | None = None  # noqa: N815 - the wire's spelling


@frozen
class TaskIds:
    """The two spellings of a task id: the pages show `taskId`, the prose beside them and callbacks `task_id`."""

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
        message=text if text is not None else excerpt(response.body),
        data=value.get("data"),
        whole=value,
    )


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
