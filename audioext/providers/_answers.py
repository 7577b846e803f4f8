"""Parsing the answers to our calls: the envelope, the table of codes, and whether a submit made a task.

Bodies are `{"code": …, "msg": …, "data": …}` at kie.ai, sunoapi.org and vidgo, and plain objects elsewhere. The body's
`code` outweighs the HTTP status, which only counts if there is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from attrs import field, frozen

from audioext import errors
from audioext.errors import DecodeError, ProviderDownError, ProviderError, RateLimitError, cut
from audioext.http.decoding import MAX_ID_LENGTH, identity, number, opened, parse_json, plain_keys, text
from audioext.http.messages import LONGEST_EXCERPT, HttpResponse, as_data, excerpt, retry_after
from audioext.models.events import Refused, SubmitOutcome, Submitted, Unknown
from audioext.providers._body import Body, id_of_task
from audioext.providers._words import AUTH_WORDS, CONTENT_WORDS, CREDIT_WORDS, LONGEST_MESSAGE, RATE_WORDS, all_said

OK = 200
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HTTP_ERROR_FROM = 400
HTTP_SERVER_ERROR_FROM = 500
_FIREWALL = re.compile(rb"\berror( code:)? 1010\b", re.IGNORECASE)
_FIREWALL_CODE = 1010  # Cloudflare refused the client before the API saw the call
_FIREWALL_SAYS = "the firewall in front of the API refused this client (error code: 1010)"
_HIGHEST_CODE = 10**9
_HTTP_FORBIDDEN, _HTTP_CODES_FROM, _HTTP_CODES_BELOW = 403, 100, 600
_BARE_ID = re.compile(r"(?=.*[0-9])[\w-]{16,64}", re.ASCII)
NO_ID = "single_song_generation_request"
"""The placeholder for the second id of a single track: seen by a live client of MusicGPT, on no page."""


@frozen(kw_only=True)
class Code:
    """The meaning of a code: the error's type, whether the call may succeed later, and whether no task was made.

    `resend` says that we may send the same POST again by ourselves, as for rate limits and maintenance.
    """

    error: type[ProviderError] = ProviderError
    retryable: bool = False
    no_task: bool = True
    resend: bool = False


RATE = Code(error=RateLimitError, retryable=True, resend=True)
_RATE_BY_WORDS = Code(error=RateLimitError, retryable=True)  # words alone are not enough to send a POST again
AUTH = Code(error=errors.AuthError)
NO_CREDITS = Code(error=errors.CreditsError)
CONTENT = Code(error=errors.ContentError)
SOURCE = Code(error=errors.SourceError)
MAINTENANCE = Code(error=ProviderDownError, retryable=True, resend=True)
MAYBE_MADE = Code(error=ProviderDownError, retryable=True, no_task=False)
"""A failure at the server, after which a task may exist."""

HTTP_CODES: Mapping[int, Code] = {
    401: AUTH,
    402: NO_CREDITS,
    403: AUTH,
    429: RATE,
    **dict.fromkeys((404, 405, 409, 413, 422), Code()),
}
"""HTTP's own meanings, for vendors whose pages have no table."""
# Other 4xx codes mean that no task was made; with these the server may have given up while working on it.
_UNSURE_CODES = frozenset({408, 425, 499})
NEVER_MADE = frozenset({401, 403, 404, 405, 413})  # these never reach what makes tasks, whatever the body

_CONTENT_CODES = frozenset({400, 403, 413, 422})  # with a text about the content, it was refused, not the call
_ERROR_KEYS = ("error", "errors", "errormessage", "errormsg")
"""The `plain` keys whose text means that a call without a code failed; `message` and `detail` may be pleasantries."""
_BROKEN_WORDS = re.compile(
    r"\b(internal|server|time[sd]?[ -]?out|unavailable|exception|upstream|gateway|connection|network|database|deadlock"
    r"|busy|overload(ed)?|(unexpected|unknown|system) error|something went wrong)\b",
    re.IGNORECASE,
)


@frozen(kw_only=True)
class CodeTable:
    """One vendor's codes, and the texts that outrank them.

    `phrases` are (pattern, codes, meaning), tried in order: if the answer has one of the codes and its text matches the
    pattern, the meaning applies. `http_refusals` are HTTP statuses that are refusals even if the body is unreadable.
    `text_keys` are the `plain` keys that may hold an answer's text, the likeliest first.
    """

    codes: Mapping[int, Code] = HTTP_CODES
    phrases: tuple[tuple[re.Pattern[str], frozenset[int], Code], ...] = ()
    http_refusals: frozenset[int] = NEVER_MADE
    text_keys: tuple[str, ...] = ("msg", "message", "errormessage", "errormsg", "error", "detail", "reason")

    def meaning(self, code: int, message: str) -> Code:
        """Return the meaning of *code* with *message*; an unlisted code means what it means in HTTP."""
        for pattern, spoken_for, meaning in self.phrases:
            if code in spoken_for and pattern.search(message):
                return meaning
        if code >= HTTP_ERROR_FROM and CREDIT_WORDS.search(message):
            return NO_CREDITS
        if code in _CONTENT_CODES and CONTENT_WORDS.search(message):
            return CONTENT
        if code >= HTTP_SERVER_ERROR_FROM:
            return self.codes.get(code, MAYBE_MADE)
        faulty = code >= HTTP_ERROR_FROM and code not in _UNSURE_CODES and bool(message)
        return self.codes.get(code, Code(no_task=faulty))


class Answer(Body):
    """One parsed answer. `problem` is the error if it is not a JSON object; then its body counts as empty.

    `code` is the body's own if `has_code`, else the HTTP status, with all of 2xx as 200. `failed` says that it fails in
    another way, such as `"success": false`. `text` is its message for people, `meaning` that of `code` and `text`.
    """

    def __init__(self, response: HttpResponse, reader: Answers) -> None:
        """Parse *response* with the codes of *reader*."""
        self.response, self.reader = response, reader
        self.problem: DecodeError | None = None
        status, table = response.status, reader.table
        is_blocked = status == _HTTP_FORBIDDEN and _FIREWALL.search(response.body[:16_384]) is not None
        try:
            super().__init__({} if is_blocked else parse_json(response.body), "the answer")
        except DecodeError as error:
            super().__init__({}, "the answer")
            self.problem = error
        self._found.pop("kind", None)  # a task's status only in callbacks
        own = _FIREWALL_CODE if is_blocked else self._own_code(status)
        self.has_code = own is not None
        self.failed = self.says_no or self._says_failed()
        self.code = _http_code(status) if own is None else own
        if is_blocked:
            self.text, self.meaning = _FIREWALL_SAYS, Code()
        elif self.problem is not None:
            self.text = reader.clean(response.body)
            self.meaning = HTTP_CODES[status] if status in NEVER_MADE else table.meaning(status, self.text)
            if status in REDIRECTS and "Location" in response.headers:
                self.text = f"a redirect to {as_data(response.headers['Location'], longest=LONGEST_EXCERPT)}"
        else:
            told = "" if self.is_good else self.says(table.text_keys)  # the message of a good one is only a pleasantry
            self.text = reader.clean(told.encode(), LONGEST_MESSAGE) if told else ""
            # A server that broke or gave up may go on about its fields and limits: there only the first text counts.
            first = next(all_said(self.outer, table.text_keys), self.text)
            judged = first if self.code >= HTTP_SERVER_ERROR_FROM or self.code in _UNSURE_CODES else self.text
            self.meaning = _uncoded(self.text) if self.failed and self.code == OK else table.meaning(self.code, judged)

    @property
    def data(self) -> object:
        """The envelope's `data`, decoded if it is a string of JSON."""
        return opened(self.outer.get("data"))

    @property
    def is_good(self) -> bool:
        """Whether the call succeeded."""
        return self.code == OK and not self.failed

    @property
    def accepts(self) -> bool:
        """Whether it is good as a submit's answer: beside a task's id, a `status` of false says nothing of the call."""
        return self.is_good or (self.code == OK and bool(self._found.get("id")) and not self.says_no_success)

    def is_about_task(self) -> bool:
        """Return whether it has a task's status, which outweighs its code; a failed call has to name the task."""
        try:
            return bool(self.word.name) and (self.task_id is not None or self.code == OK)
        except DecodeError:
            if self.is_good:
                raise
            raise self.error() from None

    def error(self, *, charged: bool | None = None) -> ProviderError:
        """Return this answer as an error."""
        code: str | None = str(self.code)
        if self.failed and self.code == OK:
            word = text(plain_keys(self.outer.get("error")).get("code"))
            code = cut(word) if word else None
        error = self.meaning.error(
            self.text or self.reader.clean(self.response.body),
            provider=self.reader.provider,
            http_status=self.response.status,
            code=code,
            retryable=self.meaning.retryable,
            charged=False if self.code == _FIREWALL_CODE else charged,
        )
        if isinstance(error, RateLimitError):
            error.retry_after = retry_after(self.response)
        return error

    def no_task(self) -> ProviderError:
        """Return the error, which is retryable, of a status answer that succeeded but has no task."""
        says, status = "the answer names no task", self.response.status
        return ProviderError(says, provider=self.reader.provider, http_status=status, code=str(OK), retryable=True)

    def made(self) -> Submitted | None:
        """Return the task in a submit's answer, or `None`; the other fields of the result are MusicGPT's.

        A sibling of vidgo has the id at the top level, clients of MusicGPT read `id`, and `data` may be the id itself.
        """
        keys, data = self.keys, self.data
        data = data[0] if isinstance(data, list) and len(data) == 1 else data
        # Beside a refusal, an `id` outside `data` is the request's or the error's; a resend has to be sure of it.
        bare = identity(keys.get("id")) if self.code == OK or self.meaning.resend else None
        try:
            task_id = self.task_id or bare or id_of_task(data)
        except DecodeError:
            return None
        if task_id is None and isinstance(data, str) and _BARE_ID.fullmatch(data):
            task_id = data
        if task_id is None:
            return None
        ids = (id_of_track(keys.get(f"conversionid{index}")) for index in (1, 2))
        return Submitted(
            task_id=task_id,
            track_ids=tuple(filter(None, ids)),
            eta=number(keys.get("eta")),
            credit_estimate=number(keys.get("creditestimate")),
        )

    def _says_failed(self) -> bool:
        """Say whether it has a failing status or an error text, and no task id: a task's failure is not the call's."""
        try:
            if self.task_ids or self.word.fails:
                return not self.task_ids
        except DecodeError:
            return False
        if self.has_code or "success" in self.outer or self.data or identity(self.keys.get("id")) is not None:
            return False
        return any(all_said({key: self.outer.get(key) for key in _ERROR_KEYS}))

    def _own_code(self, status: int) -> int | None:
        """Return the code in the body; a code outside HTTP's range does not outweigh a *status* that is an error."""
        found = self.first("code", code_of)
        if found is None:
            # Some frameworks put the HTTP status under `status`. An `errorcode` beside a task id may be the task's.
            keys = ("status",) if "taskid" in self.keys else ("status", "errorcode")
            numbers = (code_of(self.outer.get(key)) for key in keys)
            found = next((number for number in numbers if number is not None and number >= HTTP_ERROR_FROM), None)
        is_foreign = found is not None and not _HTTP_CODES_FROM <= found < _HTTP_CODES_BELOW
        return None if is_foreign and status >= HTTP_ERROR_FROM else found


@frozen(kw_only=True)
class Answers:
    """Parses the answers of one account; *provider* is its name in messages, *secret* the key to keep out of them."""

    provider: str
    table: CodeTable
    secret: str | None = field(default=None, repr=False)

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Return whether the task was made, refused, or may have been made. Never raises, whatever the bytes.

        Refused needs a readable refusal without a task id, or one of `http_refusals`. After HTTP 5xx, or a code whose
        meaning is not `no_task`, the task may have been made, whatever the body says.
        """
        if (documented := _documented(response)) is not None:
            return documented
        answer, broken = Answer(response, self), response.status >= HTTP_SERVER_ERROR_FROM
        says, made = answer.text or self.clean(response.body), answer.made()
        if answer.problem is not None:
            refused, reason = response.status in self.table.http_refusals, f"HTTP {response.status} with {says}"
        elif answer.accepts and not broken:
            if made is not None:
                return made
            told = answer.says(self.table.text_keys)
            says = self.clean(told.encode(), LONGEST_MESSAGE) if told else says
            refused, reason = False, f"without a task id: {says}"
        else:
            refused = not broken and made is None and answer.meaning.no_task
            reason = f"{answer.code}{' and yet names a task' if made else ''}: {says}"
        if not refused:
            return Unknown(reason=f"{self.provider} answered {reason}")
        return Refused(error=answer.error(charged=False), resend=answer.meaning.resend)

    def parse_free(self, response: HttpResponse) -> dict[str, object]:
        """Return the values of a free call's answer by `plain` keys, or raise an error."""
        answer = self.parse_any(response, charged=False)
        if not answer.is_good:
            raise answer.error(charged=False)
        return {**answer.keys, "data": answer.data}

    def parse_any(self, response: HttpResponse, *, charged: bool | None = None) -> Answer:
        """Return the answer, even if it is a refusal; if it is unreadable, raise DecodeError (2xx) or ProviderError."""
        answer = Answer(response, self)
        if answer.problem is not None:
            if response.status in range(200, 300):
                raise DecodeError(answer.problem.paths, where=f"the body ({answer.text})")
            raise answer.error(charged=charged)
        return answer

    def error(self, response: HttpResponse) -> ProviderError:
        """Return *response* as an error."""
        return Answer(response, self).error()

    def clean(self, said: bytes, longest: int = LONGEST_EXCERPT) -> str:
        """Return *said* on one line without the API key: some APIs echo a refused request."""
        if self.secret is not None:
            said = said.replace(self.secret.encode(), b"[key]")
        return excerpt(said, longest=longest)


def id_of_track(value: object) -> str | None:
    """Return the track id in *value*, or `None` for a placeholder."""
    return None if (found := identity(value)) == NO_ID else found


def _uncoded(says: str) -> Code:
    """Return the meaning of `"success": false` under a good code: a refusal, unless its text is of a server error."""
    if _BROKEN_WORDS.search(says):
        return MAYBE_MADE
    meanings = ((CREDIT_WORDS, NO_CREDITS), (CONTENT_WORDS, CONTENT), (AUTH_WORDS, AUTH), (RATE_WORDS, _RATE_BY_WORDS))
    return next((meaning for pattern, meaning in meanings if pattern.search(says)), Code())


class _NewTask(msgspec.Struct, forbid_unknown_fields=True):
    task_id: Annotated[str, msgspec.Meta(pattern=rf"\A[!-~]{{1,{MAX_ID_LENGTH}}}\Z")] = msgspec.field(name="taskId")


class _NewTaskAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """The documented answer of kie.ai and sunoapi.org to a submit, without any other key; a fast path."""

    code: Literal[200]
    data: _NewTask
    msg: str = ""


_NEW_TASKS = msgspec.json.Decoder(_NewTaskAnswer)


def _documented(response: HttpResponse) -> Submitted | None:
    try:
        task_id = identity(_NEW_TASKS.decode(response.body).data.task_id)
    except (ValueError, RecursionError):
        return None
    return Submitted(task_id=task_id) if task_id is not None and response.status == OK else None


def code_of(value: object) -> int | None:
    """Return the code in *value*, `OK` for any that means success, or `None`."""
    code = number(value)
    if code is None or not code.is_integer() or abs(code) > _HIGHEST_CODE:
        return None
    return OK if code == 0 else _http_code(int(code))  # 0 means success at some hosts


def _http_code(code: int) -> int:
    return OK if 200 <= code < 300 else code  # noqa: PLR2004 - the range of HTTP success
