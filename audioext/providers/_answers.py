"""Reading the answers to our calls: one envelope, one table of codes, and the rule for what a submit's answer proves.

Bodies are `{"code": …, "msg": …, "data": …}` at kie.ai, sunoapi.org and vidgo, and plain objects elsewhere. The body's
`code` is the verdict, whatever the HTTP status says; without one the HTTP status is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from attrs import evolve, field, frozen

from audioext.errors import (
    AuthError,
    ContentError,
    CreditsError,
    DecodeError,
    ProviderDownError,
    ProviderError,
    RateLimitError,
)
from audioext.http.decoding import JsonObject, identity, number, opened, parse_json, text
from audioext.http.messages import HttpResponse, excerpt, retry_after
from audioext.models.events import Refused, SubmitOutcome, Submitted, Unknown

OK = 200
HTTP_ERROR_FROM = 400
HTTP_SERVER_ERROR_FROM = 500
LONGEST_MESSAGE = 500  # characters; a vendor's text ends up in logs and in front of people
_HTTP_FORBIDDEN = 403
_FIREWALL = re.compile(rb"\berror( code:)? 1010\b", re.IGNORECASE)
_SMALL_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_CODE_KEYS = ("code", "statuscode", "status")  # the last is a word elsewhere, and HTTP's number in some frameworks
ID_KEYS = ("taskid", "conversiontaskid", "jobid")
"""Plain keys under which a task's id has been seen."""
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
AUTH = Code(error=AuthError)
NO_CREDITS = Code(error=CreditsError)
CONTENT = Code(error=ContentError)
MAINTENANCE = Code(error=ProviderDownError, retryable=True, resend=True)
MAYBE_MADE = Code(error=ProviderDownError, retryable=True, no_task=False)
"""Something broke on the way: a task may have been made."""

HTTP_CODES: Mapping[int, Code] = {401: AUTH, 402: NO_CREDITS, 403: AUTH, 404: Code(), 409: Code(), 422: Code(), 429: RATE}
"""HTTP's own meanings, for vendors whose pages show no table."""
# A request that was at fault made no task; these may say that the server gave up while it was at work.
_UNSURE_CODES = frozenset({408, 425, 499})

CONTENT_WORDS = re.compile(
    r"\b(copyright\w*|moderat\w+|sensitive|prohibited|inappropriate|artist name|existing work|content policy|flagged)\b",
    re.IGNORECASE,
)
"""Words of refusals that speak of the content: seen at kie.ai (2026-02 to 08) and at a sibling of vidgo."""


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
        known = self.codes.get(code)
        if known is not None:
            return known
        if code >= HTTP_SERVER_ERROR_FROM:
            return MAYBE_MADE
        return Code(no_task=HTTP_ERROR_FROM <= code and code not in _UNSURE_CODES and bool(message))


@frozen(kw_only=True)
class Answer:
    """One answer, opened. `code` is the body's, else the HTTP status with all of 2xx as 200; `says` is its text.

    `has_code` says that the body bears a code of its own, `failed` that it says `"success": false`.
    """

    code: int
    has_code: bool
    says: str
    failed: bool
    body: JsonObject

    @property
    def data(self) -> object:
        """What the envelope holds, read where it is JSON in a text."""
        return opened(self.body.get("data"))


@frozen(kw_only=True)
class Answers:
    """Reads the answers of one account: its name for messages, its codes, the key to keep out of texts."""

    provider: str
    table: CodeTable
    secret: str | None = field(default=None, repr=False)

    def open(self, response: HttpResponse) -> Answer:
        """Return the answer in *response*.

        Raises:
            DecodeError: the body is not a JSON object.
        """
        value = parse_json(response.body)
        if not isinstance(value, dict):
            raise DecodeError(["expected an object @ $"])
        body = JsonObject(value)
        code = next((found for key in _CODE_KEYS if (found := _code_of(body.get(key))) is not None), None)
        says = next((found for key in self.table.text_keys if (found := words(body.get(key)))), "")
        return Answer(
            code=_http_code(response.status) if code is None else code,
            has_code=code is not None,
            says=self._clean(says.encode(), LONGEST_MESSAGE) if says else "",
            failed=body.get("success") is False,
            body=body,
        )

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a task was made, refused or unknown. Never raises for any bytes.

        A readable refusal that names no task is one; a server that broke (HTTP 5xx) may have made a task whatever its
        body says, and so may a code that does not exclude it.
        """
        try:
            answer = self.open(response)
        except DecodeError:
            return self._unreadable(response)
        task_id = named_task(answer.body)
        shown = answer.says or self._clean(response.body)
        broken = response.status >= HTTP_SERVER_ERROR_FROM
        good = answer.code == OK and not answer.failed
        if good and not broken:
            if task_id is not None:
                return _submitted(task_id, answer.body)
            return Unknown(reason=f"{self.provider} answered without a task id: {shown}")
        if broken or task_id is not None:
            also = "" if task_id is None else " and yet names a task"
            return Unknown(reason=f"{self.provider} answered {answer.code}{also}: {shown}")
        meaning = self._meaning(answer)
        if not meaning.no_task:
            return Unknown(reason=f"{self.provider} answered {answer.code}: {shown}")
        return Refused(error=self.error(response, answer, charged=False), resend=meaning.resend)

    def parse_data(self, response: HttpResponse, *, charged: bool | None = None) -> Answer:
        """Return the answer to a call that succeeded; *charged* is what a refusal would have cost.

        Raises:
            ProviderError: the call was refused.
            DecodeError: the answer is not an object.
        """
        answer = self.parse_any(response, charged=charged)
        if answer.code != OK or answer.failed:
            raise self.error(response, answer, charged=charged)
        return answer

    def parse_any(self, response: HttpResponse, *, charged: bool | None = None) -> Answer:
        """Return the answer to a call, refused or not, if it can be read.

        Raises:
            ProviderError: it cannot, and its HTTP status is an error.
            DecodeError: it cannot.
        """
        try:
            return self.open(response)
        except DecodeError:
            if response.status < HTTP_ERROR_FROM:
                raise
        raise self.error(response, None, charged=charged)

    def error(self, response: HttpResponse, answer: Answer | None = None, *, charged: bool | None = None) -> ProviderError:
        """Return the error that *answer* stands for, or *response* itself where nothing in it could be read."""
        if _from_firewall(response):
            # Cloudflare turned the client away before the API saw the call.
            message = "the firewall in front of the API refused this client (error code: 1010)"
            return ProviderError(
                message, provider=self.provider, http_status=response.status, code="1010", charged=False
            )
        code = response.status if answer is None else answer.code
        said = self._clean(response.body) if answer is None or not answer.says else answer.says
        meaning = self.table.meaning(code, said) if answer is None else self._meaning(answer)
        code_text = _own_code(answer) if answer is not None and answer.failed and code == OK else str(code)
        error = meaning.error(
            said,
            provider=self.provider,
            http_status=response.status,
            code=code_text,
            retryable=meaning.retryable,
            charged=charged,
        )
        if isinstance(error, RateLimitError):
            error.retry_after = retry_after(response)
        return error

    def no_task(self, response: HttpResponse) -> ProviderError:
        """Return the error of a status answer that succeeded without a task in it; asking again may help."""
        message = "the answer names no task"
        return ProviderError(
            message, provider=self.provider, http_status=response.status, code=str(OK), retryable=True
        )

    def _meaning(self, answer: Answer) -> Code:
        meaning = self.table.meaning(answer.code, answer.says)
        # "success": false under a good code is a refusal without a code.
        return evolve(meaning, no_task=True) if answer.failed and answer.code == OK else meaning

    def _unreadable(self, response: HttpResponse) -> SubmitOutcome:
        if _from_firewall(response):
            return Refused(error=self.error(response, None))
        if response.status in self.table.http_refusals:
            error = self.error(response, None, charged=False)
            return Refused(error=error, resend=self.table.meaning(response.status, error.message).resend)
        said = self._clean(response.body)
        return Unknown(reason=f"{self.provider} answered HTTP {response.status} with {said}")

    def _clean(self, said: bytes, longest: int = 120) -> str:
        """Return *said* on one line without the key: some APIs echo what they refuse."""
        if self.secret is not None:
            said = said.replace(self.secret.encode(), b"[key]")
        return excerpt(said, longest=longest)


def _submitted(task_id: str, body: JsonObject) -> Submitted:
    """Return the task with what MusicGPT tells beside it: its tracks' ids, how long it will take and cost."""
    ids = (text(body.get(f"conversionid{place}")) for place in (1, 2))
    return Submitted(
        task_id=task_id,
        track_ids=tuple(found for found in ids if found and found not in NO_IDS),
        eta=number(body.get("eta")),
        credit_estimate=number(body.get("creditestimate")),
    )


def named_ids(layer: JsonObject) -> Iterator[str]:
    """Yield the task ids in one object of a body.

    Raises:
        DecodeError: one is no id.
    """
    for key in ID_KEYS:
        for value in layer.every(key) if key in layer else ():
            found = identity(value, layer.path_of(key))
            if found:
                yield found


def named_task(body: JsonObject) -> str | None:
    """Return the id of the task that a submit's answer names: on top or under `data`, in any spelling.

    The pages of kie.ai and sunoapi.org show `data.taskId`, those of vidgo `data.task_id`, MusicGPT's `task_id`; a
    sibling of vidgo has it on top, and readers of MusicGPT know `conversion_task_id`, `job_id` and `id`.
    """
    data = opened(body.get("data"))
    data = data[0] if isinstance(data, list) and len(data) == 1 else data
    layers = (body, JsonObject(data)) if isinstance(data, dict) else (body,)
    for keys in (ID_KEYS, ("id",)):
        for layer in layers:
            for key in keys:
                try:
                    found = identity(layer.get(key), key)
                except DecodeError:
                    continue
                if found is not None:
                    return found
    return None


def words(value: object) -> str:
    """Return the text in *value*, `""` if there is none.

    It may be a text, an object that holds one, or a list of either; a web framework's complaint about a field,
    `{"loc": …, "msg": …}`, comes out as `field: message`.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return "; ".join(filter(None, map(words, value[:10])))
    if not isinstance(value, dict):
        return ""
    said = next((found for key in ("message", "msg", "detail", "error", "reason") if (found := words(value.get(key)))), "")
    place = value.get("loc")
    if not said or not isinstance(place, list):
        return said
    steps = ".".join(str(step) for step in place if isinstance(step, (str, int)) and step != "body")
    return f"{steps}: {said}" if steps else said


def balance(answer: Answer) -> float:
    """Return the credits in *answer*: `data` is the number itself (kie.ai, sunoapi.org) or holds it (vidgo).

    The pages type it as an integer; fractions and texts exist.

    Raises:
        DecodeError: there is none.
    """
    data = answer.data
    keys = JsonObject(data) if isinstance(data, dict) else {"credits": data}
    found = (number(keys.get(key)) for key in ("creditsamount", "credits", "balance"))
    balances = [value for value in found if value is not None]
    if not balances:
        raise DecodeError(["expected a number @ $.data"])
    return balances[0]


def _own_code(answer: Answer) -> str | None:
    error = answer.body.get("error")
    return text(error.get("code")) if isinstance(error, dict) else None


def _from_firewall(response: HttpResponse) -> bool:
    return response.status == _HTTP_FORBIDDEN and _FIREWALL.search(response.body[:16_384]) is not None


def _code_of(value: object) -> int | None:
    if type(value) is str and _SMALL_NUMBER.fullmatch(value):
        value = int(value)
    if type(value) is not int:
        return None
    return OK if value == 0 else _http_code(value)  # some hosts say 0 for success


def _http_code(code: int) -> int:
    return OK if 200 <= code < 300 else code  # noqa: PLR2004 - the range of HTTP success
