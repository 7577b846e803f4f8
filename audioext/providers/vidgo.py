"""vidgo.ai: https://docs.vidgo.ai/api-manual/music-series/extend-music and its siblings, read 2026-11-21.

One path for every operation, its parameters in snake case under `input`; one webhook, at the end, whose body is
the status answer. A task is judged by `data.status` alone: failures come with `code` 200 as well.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import ClassVar

from attrs import field, frozen
from yarl import URL

from audioext.errors import (
    AuthError,
    ConfigError,
    CreditsError,
    DecodeError,
    Problem,
    RateLimitError,
    WebhookError,
)
from audioext.http.decoding import Number, Text, parse_json, structure
from audioext.http.messages import HttpRequest, HttpResponse, Webhook
from audioext.models.events import Event, SubmitOutcome, Submitted, Unknown
from audioext.models.record import Record
from audioext.models.requests import AddInstrumental, Extend, Operation, Request
from audioext.providers import _http
from audioext.providers._account import wire_values
from audioext.providers._engine import EngineRules, TextLimits, engine_problems
from audioext.providers._fields import refuse_problems
from audioext.providers._hosted import Facts, HostedAccount, named_task
from audioext.providers._suno import OK, Code, CodeTable, Envelope, open_envelope
from audioext.providers._vidgo_events import detail_events
from audioext.providers.base import FileRoute, Limits

SUBMIT_PATH = "/api/generate/submit"
STATUS_PATH = "/api/generate/detail/music"  # docs.vidgo.ai/api-manual/music-series/query-music-detail, read 2026-11-21
CREDITS_PATH = "/api/user/balance"  # docs.vidgo.ai/api-manual/account-management/user-balance, read 2026-11-21
MAX_CALLBACK_LENGTH = 2048  # docs.vidgo.ai/api-manual/task-management/webhooks, read 2026-11-21
_HTTP_ERROR_FROM = 400
_HTTP_SERVER_ERROR_FROM = 500

NAMES: Mapping[Operation, str] = {
    Operation.EXTEND: "extend-music",
    Operation.UPLOAD_EXTEND: "upload-and-extend-audio",
    Operation.ADD_INSTRUMENTAL: "add-instrumental",
}
"""The top-level `model` of each operation; the engine's version is a field of `input`."""

# No page shows an error body or lists the codes of these calls: these are HTTP's meanings. What is not here,
# 400 and 5xx among it, may have made a task.
CODES: Mapping[int, Code] = {
    401: Code(error=AuthError),
    402: Code(error=CreditsError),
    403: Code(error=AuthError),
    404: Code(),
    409: Code(),
    422: Code(),
    429: Code(error=RateLimitError, retryable=True, resend=True),
}

_MODELS = frozenset({"V4", "V4_5", "V4_5PLUS", "V4_5ALL", "V5"})

RULES = EngineRules(
    wire_name="vidgo",
    listed={
        # docs.vidgo.ai/api-manual/music-series/extend-music and upload-and-extend-audio, read 2026-11-21
        Operation.EXTEND: _MODELS,
        Operation.UPLOAD_EXTEND: _MODELS,
        # docs.vidgo.ai/api-manual/music-series/add-instrumental, read 2026-11-21
        Operation.ADD_INSTRUMENTAL: frozenset({"V4_5PLUS", "V5"}),
    },
    stated=_MODELS,
    # On no page of vidgo's; a sibling of the API states it, so it is advice.
    instrumental_limits=TextLimits(title=100),
)

FACTS = Facts(
    wire_name="vidgo",
    key_variable="VIDGO_API_KEY",
    base_url=URL("https://api.vidgo.ai"),
    limits=Limits(),  # no page states a limit on submits
    retention=None,  # nor how long the files are kept
    table=CodeTable(codes=CODES),
    # the order in which third-party clients have found the text
    text_keys=("error", "detail", "msg", "message"),
)

MODEL_KEYS = ("model", "mv")
"""The fields that may name the engine's version when adding an instrumental."""

_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")
_IP_LABEL = re.compile("[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


def _to_key(value: str) -> str:
    if value not in MODEL_KEYS:
        message = f"instrumental_model_key must be {' or '.join(MODEL_KEYS)}, not {value!r}"
        raise ConfigError(message)
    return value


@frozen
class Vidgo(HostedAccount):
    """vidgo.ai.

    `instrumental_model_key` is the field that names the engine's version when adding an instrumental: the page's
    text says `model`, its example has none, and the extend pages and a sibling of the API say `mv`.

    Raises:
        ConfigError: a setting cannot work.
    """

    facts: ClassVar[Facts] = FACTS
    file_route: ClassVar[FileRoute] = FileRoute.SERVE
    extends_by_id: ClassVar[bool] = True
    counts_takes: ClassVar[bool] = False

    instrumental_model_key: str = field(default="model", kw_only=True, converter=_to_key)

    def check(self, request: Request) -> tuple[Problem, ...]:
        """Return all that this API would refuse in *request*, and advice; the request may hold a file.

        Raises:
            UnsupportedError: the API has no such operation.
        """
        return engine_problems(request, RULES)

    def check_callback(self, callback: URL) -> str | None:
        """Return why vidgo would never call *callback* back, or `None` if it would.

        docs.vidgo.ai/api-manual/task-management/webhooks, read 2026-11-21: HTTPS only, at most 2,048 characters,
        no private or internal address. A base URL on loopback is a stand-in, which is not so particular.
        """
        if _is_loopback(self.base_url.host or ""):
            return None
        if callback.scheme != "https":
            return "vidgo calls https addresses only"
        if not _is_public(callback.host or ""):
            return f"vidgo does not call private or internal addresses such as {callback.host}"
        length = len(str(callback))
        if length > MAX_CALLBACK_LENGTH:
            return f"vidgo takes callback addresses of at most {MAX_CALLBACK_LENGTH} characters, not {length}"
        return None

    def sent_model(self, request: Request) -> str | None:
        """Return the model as it was given: an instrumental without one leaves the choice to vidgo."""
        return request.model

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; `callback_url` is optional here.

        Raises:
            RequestError: `check` finds a problem.
            UnsupportedError: the API has no such operation.
        """
        found = list(self.check(request))
        if request.file is not None:
            found.append(Problem("file", f"must be served by URL first: {self.name} takes no files"))
        refuse_problems(request, found)
        body: dict[str, object] = {"model": NAMES[request.operation], "input": self._input(request)}
        if callback is not None:
            body["callback_url"] = str(callback)
        return _http.post_json(self._address(SUBMIT_PATH), self._bearer, body)

    def parse_submit(self, response: HttpResponse) -> SubmitOutcome:
        """Say whether a task was made, refused or unknown. Never raises for any bytes."""
        try:
            envelope = open_envelope(response)
        except DecodeError:
            return self.replies.outcome(response)
        task_id = _task_id(envelope.data)
        if task_id is None:
            # A server that broke may have made the task whatever its body says, and a rate would be resent.
            broke = response.status >= _HTTP_SERVER_ERROR_FROM
            return self.replies.outcome(response, code=response.status if broke else envelope.code)
        if envelope.code == OK:
            return Submitted(task_id=task_id)
        reason = f"{self.name} answered {envelope.code} and yet names a task: {self.replies.text(response)}"
        return Unknown(reason=reason)

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET that asks for the state of *record*'s task.

        The page's example shows no query; that the id belongs there is known from a sibling of the API alone.

        Raises:
            RequestError: the record has no task id yet.
        """
        return _http.get(self._address(STATUS_PATH, {"task_id": named_task(record)}), self._bearer)

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a detail answer means.

        Raises:
            ProviderError: the call was refused, or names no task; that says nothing of the task.
            DecodeError: the answer cannot be read.
        """
        envelope = self._open(response)
        data = envelope.data
        if isinstance(data, dict):
            # An HTTP error must name its task: some errors come with a `data` and a `status` of their own.
            judged = "status" in data and (response.status < _HTTP_ERROR_FROM or "task_id" in data)
            if judged or envelope.code == OK:
                return detail_events(data, code=str(envelope.code))
        if envelope.code != OK:
            raise self.replies.error(response, code=envelope.code)
        if data in (None, [], ""):
            raise self.replies.no_task(response)
        raise DecodeError(["expected an object @ $.data"])

    def parse_webhook(self, hook: Webhook) -> tuple[Event, ...]:
        """Decode a delivery; its authenticity rests on the tag in the URL, since nothing is signed.

        Raises:
            WebhookError: its task ids disagree (400).
            DecodeError: it cannot be read (400).
        """
        value = parse_json(hook.body)
        outer = structure(value, _TaskId)
        data = value.get("data") if isinstance(value, dict) else None
        if not isinstance(data, dict) or not data:
            raise DecodeError(["expected an object @ $.data"])
        inner = structure(data, _TaskId, where="data")
        if outer.task_id and inner.task_id and outer.task_id != inner.task_id:
            message = "the delivery names more than one task"
            raise WebhookError(message, http_status=400)
        return detail_events(data, code=_code(value), task_id=outer.task_id or None)

    def build_credits(self) -> HttpRequest:
        """Return the GET that asks for the balance."""
        return _http.get(self._address(CREDITS_PATH), self._bearer)

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance in vidgo's own credits.

        Raises:
            ProviderError: the call was refused.
            DecodeError: the answer names no balance.
        """
        envelope = self._open(response, charged=False)
        if envelope.code != OK:
            raise self.replies.error(response, code=envelope.code, charged=False)
        return structure(envelope.data, Balance, where="data").credits_amount

    @property
    def _bearer(self) -> str | None:
        return _http.bearer(self.api_key)

    def _open(self, response: HttpResponse, *, charged: bool | None = None) -> Envelope:
        try:
            return open_envelope(response)
        except DecodeError:
            if response.status < _HTTP_ERROR_FROM:
                raise
            raise self.replies.error(response, code=response.status, charged=charged) from None

    def _input(self, request: Request) -> dict[str, object]:
        names = {"url": "upload_url", "model": self._model_key(request)}
        values = wire_values(request)
        if request.model is None:
            values.pop("model", None)
        fields = {names.get(name, name): value for name, value in values.items()}
        if isinstance(request, Extend):
            fields["default_param_flag"] = request.is_custom
        if request.operation is Operation.UPLOAD_EXTEND:
            # A switch without a stated default: docs.vidgo.ai/api-manual/music-series/upload-and-extend-audio
            fields.setdefault("instrumental", False)
        return fields

    def _model_key(self, request: Request) -> str:
        # For uploads no page shows the key; every other extend and cover page says `mv`.
        return self.instrumental_model_key if isinstance(request, AddInstrumental) else "mv"


@frozen
class Balance:
    """`data` of a balance answer."""

    credits_amount: Number


@frozen
class _TaskId:
    task_id: Text | None = None


def _code(delivery: object) -> str | None:
    # Nothing is judged by it, so a code of another type must not cost a result.
    code = delivery.get("code") if isinstance(delivery, dict) else None
    return str(code) if type(code) in (int, str) else None


def _task_id(data: object) -> str | None:
    if not isinstance(data, dict):
        return None
    try:
        return structure({"task_id": data.get("task_id")}, _TaskId).task_id or None
    except DecodeError:
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def _is_public(host: str) -> bool:
    """Say whether *host* can be reached from the internet, as far as its name tells."""
    name = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        # Old spellings of addresses, such as 127.1 and 0x7f.1, end in a number; no public name does.
        labels = name.split(".")
        local = any(name == suffix or name.endswith(f".{suffix}") for suffix in _LOCAL_NAMES)
        return len(labels) > 1 and all(labels) and _IP_LABEL.fullmatch(labels[-1]) is None and not local
    inner = getattr(address, "ipv4_mapped", None) or address
    return bool(inner.is_global) and not inner.is_multicast and not inner.is_reserved
