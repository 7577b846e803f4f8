"""Reading the answers to our calls: one envelope, one table of codes, and the rule for what a submit's answer proves.

Bodies are `{"code": …, "msg": …, "data": …}` at kie.ai, sunoapi.org and vidgo, and plain objects elsewhere. The body's
`code` is the verdict, whatever the HTTP status says; without one the HTTP status is.
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
from audioext.providers._body import Body
from audioext.providers._words import CONTENT_WORDS, CREDIT_WORDS, LONGEST_MESSAGE, said, words

OK = 200
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HTTP_ERROR_FROM = 400
HTTP_SERVER_ERROR_FROM = 500
_HTTP_FORBIDDEN = 403
_FIREWALL = re.compile(rb"\berror( code:)? 1010\b", re.IGNORECASE)
_FIREWALL_CODE = 1010  # Cloudflare turned the client away before the API saw the call
_FIREWALL_SAYS = "the firewall in front of the API refused this client (error code: 1010)"
_HIGHEST_CODE = 10**9
_HTTP_CODES_FROM, _HTTP_CODES_BELOW = 100, 600
_BARE_ID = re.compile(r"(?=.*[0-9])[\w-]{16,64}", re.ASCII)
NO_IDS = frozenset({"", "single_song_generation_request"})
"""What stands in place of a second id where one track was ordered: a live client of MusicGPT, on no page."""


@frozen(kw_only=True)
class Code:
    """What a code means: the error's type, whether the call may succeed later, and whether no task was made.

    `resend` says that the same POST may be sent again by itself, which holds for rates and maintenance.
    """

    error: type[ProviderError] = ProviderError
    retryable: bool = False
    no_task: bool = True
    resend: bool = False


RATE = Code(error=RateLimitError, retryable=True, resend=True)
AUTH = Code(error=errors.AuthError)
NO_CREDITS = Code(error=errors.CreditsError)
CONTENT = Code(error=errors.ContentError)
SOURCE = Code(error=errors.SourceError)
MAINTENANCE = Code(error=ProviderDownError, retryable=True, resend=True)
MAYBE_MADE = Code(error=ProviderDownError, retryable=True, no_task=False)
"""Something broke on the way: a task may have been made."""

HTTP_CODES: Mapping[int, Code] = {
    401: AUTH,
    402: NO_CREDITS,
    403: AUTH,
    429: RATE,
    **dict.fromkeys((404, 405, 409, 422), Code()),
}
"""HTTP's own meanings, for vendors whose pages show no table."""
# A request that was at fault made no task; these may say that the server gave up while it was at work.
_UNSURE_CODES = frozenset({408, 425, 499})

_CONTENT_CODES = frozenset({400, 403, 422})  # with words about the content they are no word about the request
_BROKEN_WORDS = re.compile(r"\b(internal|server|time[sd]?[ -]?out|unavailable|exception)\b", re.IGNORECASE)


@frozen(kw_only=True)
class CodeTable:
    """One vendor's codes, and the texts that outrank them.

    `phrases` are (pattern, the codes that it may speak for, meaning), tried in order on the answer's text.
    `http_refusals` are HTTP statuses that the vendor states to be refusals whatever the body holds. `text_keys` are
    the plain keys under which an answer's text may stand, the likeliest first.
    """

    codes: Mapping[int, Code] = HTTP_CODES
    phrases: tuple[tuple[re.Pattern[str], frozenset[int], Code], ...] = ()
    http_refusals: frozenset[int] = frozenset()
    text_keys: tuple[str, ...] = ("msg", "message", "errormessage", "errormsg", "error", "detail", "reason")

    def meaning(self, code: int, message: str) -> Code:
        """Return what *code* with *message* means; one that no page lists is read as HTTP would be."""
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
    """One answer, opened: `problem` is why it is no JSON object; then it says nothing as a body.

    `code` is the body's own (`has_code`), else the HTTP status with all of 2xx as 200. `failed`: it says no in another
    way, such as `"success": false`. `text` is what it tells people, `meaning` what both stand for together.
    """

    def __init__(self, response: HttpResponse, reader: Answers) -> None:
        """Read *response* as *reader*'s vendor means it."""
        self.response, self.reader = response, reader
        self.problem: DecodeError | None = None
        status, table = response.status, reader.table
        is_blocked = status == _HTTP_FORBIDDEN and _FIREWALL.search(response.body[:16_384]) is not None
        try:
            super().__init__({} if is_blocked else parse_json(response.body), "the answer")
        except DecodeError as error:
            super().__init__({}, "the answer")
            self.problem = error
        self._found.pop("kind", None)  # callbacks alone tell by it what became of a task
        own = _FIREWALL_CODE if is_blocked else self._own_code(status)
        self.has_code = own is not None
        self.failed = self.says_no or self._says_failed()
        self.code = _http_code(status) if own is None else own
        if is_blocked:
            self.text = _FIREWALL_SAYS
        elif self.problem is not None:
            self.text = reader.clean(response.body)
            if status in REDIRECTS and "Location" in response.headers:
                self.text = f"a redirect to {as_data(response.headers['Location'], longest=LONGEST_EXCERPT)}"
        else:
            # What a good answer says besides is a pleasantry.
            told = "" if self.is_good else said(self.outer, table.text_keys) or self.says()
            self.text = reader.clean(told.encode(), LONGEST_MESSAGE) if told else ""
        uncoded = self.failed and self.code == OK
        judged = _uncoded(self.text) if uncoded else table.meaning(self.code, self.text)
        self.meaning = Code() if is_blocked else judged

    @property
    def data(self) -> object:
        """What the envelope holds, read where it is JSON in a text."""
        return opened(self.outer.get("data"))

    @property
    def is_good(self) -> bool:
        """Whether the call succeeded."""
        return self.code == OK and not self.failed

    def error(self, *, charged: bool | None = None) -> ProviderError:
        """Return the error that it stands for."""
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
        """Return the error of a status answer that succeeded without a task in it; asking again may help."""
        says, status = "the answer names no task", self.response.status
        return ProviderError(says, provider=self.reader.provider, http_status=status, code=str(OK), retryable=True)

    def made(self) -> Submitted | None:
        """Return the task that a submit's answer names; what stands beside it is MusicGPT's.

        A sibling of vidgo has it on top, readers of MusicGPT know `id`, and `data` may be the id itself.
        """
        keys, data = self.keys, self.outer.get("data")
        try:
            task_id = self.task_id or identity(keys.get("id"))
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
        """Say whether it is one word of failure, or an error; what names a task is told by that."""
        try:
            if self.task_ids or self.word.fails:
                return not self.task_ids
        except DecodeError:
            return False
        return not self.has_code and "success" not in self.outer and bool(words(self.outer.get("error")))

    def _own_code(self, status: int) -> int | None:
        """Return the code in the body; one that is none of HTTP's says less than *status*, where that is an error."""
        found = self.first("code", _code_of)
        if found is None:
            # A status is a word elsewhere, and HTTP's number in some frameworks; an error's code may be that of a task.
            keys = ("status",) if "taskid" in self.keys else ("status", "errorcode")
            numbers = (_code_of(self.outer.get(key)) for key in keys)
            found = next((number for number in numbers if number is not None and number >= HTTP_ERROR_FROM), None)
        is_foreign = found is not None and not _HTTP_CODES_FROM <= found < _HTTP_CODES_BELOW
        return None if is_foreign and status >= HTTP_ERROR_FROM else found


@frozen(kw_only=True)
class Answers:
    """Reads the answers of one account: its name for messages, its codes, the key to keep out of texts."""

    provider: str
    table: CodeTable
    secret: str | None = field(default=None, repr=False)

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a task was made, refused or unknown. Never raises for any bytes.

        A readable refusal that names no task is one; a server that broke (HTTP 5xx) may have made a task whatever its
        body says, and so may a code that does not exclude it.
        """
        if (documented := _documented(response)) is not None:
            return documented
        answer, broken = Answer(response, self), response.status >= HTTP_SERVER_ERROR_FROM
        says, made = answer.text or self.clean(response.body), answer.made()
        if answer.problem is not None:
            refused = response.status in self.table.http_refusals and not broken
            reason = f"HTTP {response.status} with {says}"
        elif answer.is_good and not broken:
            if made is not None:
                return made
            told = said(answer.outer, self.table.text_keys)
            says = self.clean(told.encode(), LONGEST_MESSAGE) if told else says
            refused, reason = False, f"without a task id: {says}"
        else:
            refused = not broken and made is None and answer.meaning.no_task
            reason = f"{answer.code}{' and yet names a task' if made else ''}: {says}"
        if not refused:
            return Unknown(reason=f"{self.provider} answered {reason}")
        return Refused(error=answer.error(charged=False), resend=answer.meaning.resend)

    def parse_free(self, response: HttpResponse) -> dict[str, object]:
        """Return what the answer to a call that costs nothing holds, by plain keys, or raise an error."""
        answer = self.parse_any(response, charged=False)
        if not answer.is_good:
            raise answer.error(charged=False)
        return {**answer.keys, "data": answer.data}

    def parse_any(self, response: HttpResponse, *, charged: bool | None = None) -> Answer:
        """Return the answer to a call, refused or not, or raise DecodeError, or ProviderError by its HTTP status."""
        answer = Answer(response, self)
        if answer.problem is not None:
            if response.status in range(200, 300):
                raise DecodeError(answer.problem.paths, where=f"the body ({answer.text})")
            raise answer.error(charged=charged)
        return answer

    def error(self, response: HttpResponse) -> ProviderError:
        """Return the error that *response* stands for."""
        return Answer(response, self).error()

    def clean(self, said: bytes, longest: int = LONGEST_EXCERPT) -> str:
        """Return *said* on one line without the key: some APIs echo what they refuse."""
        if self.secret is not None:
            said = said.replace(self.secret.encode(), b"[key]")
        return excerpt(said, longest=longest)


def id_of_track(value: object) -> str | None:
    """Return the id of a track in *value*, but what stands in the place of one."""
    return None if (found := text(value)) in NO_IDS else found


def _uncoded(says: str) -> Code:
    """Return what `"success": false` under a good code means: a refusal, unless it tells of a server that broke."""
    if _BROKEN_WORDS.search(says):
        return MAYBE_MADE
    if CREDIT_WORDS.search(says):
        return NO_CREDITS
    return CONTENT if CONTENT_WORDS.search(says) else Code()


class _NewTask(msgspec.Struct, forbid_unknown_fields=True):
    task_id: Annotated[str, msgspec.Meta(pattern=rf"\A[!-~]{{1,{MAX_ID_LENGTH}}}\Z")] = msgspec.field(name="taskId")


class _NewTaskAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """The documented answer of kie.ai and sunoapi.org to a submit, which says nothing else; read in one pass."""

    code: Literal[200]
    data: _NewTask
    msg: str = ""


_NEW_TASKS = msgspec.json.Decoder(_NewTaskAnswer)


def _documented(response: HttpResponse) -> Submitted | None:
    try:
        return Submitted(task_id=_NEW_TASKS.decode(response.body).data.task_id) if response.status == OK else None
    except (ValueError, RecursionError):
        return None


def _code_of(value: object) -> int | None:
    code = number(value)
    if code is None or not code.is_integer() or abs(code) > _HIGHEST_CODE:
        return None
    return OK if code == 0 else _http_code(int(code))  # some hosts say 0 for success


def _http_code(code: int) -> int:
    return OK if 200 <= code < 300 else code  # noqa: PLR2004 - the range of HTTP success
