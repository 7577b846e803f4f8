"""vidgo.ai: https://docs.vidgo.ai/api-manual/music-series/extend-music and its siblings, read 2026-11-21.

One path for every operation, its parameters in snake case under `input`; one webhook, at the end, whose body is
the status answer. A task is judged by its status word alone: failures come with `code` 200 as well. A sibling of the API
sends the same without the envelope.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from attrs import field, frozen
from yarl import URL

from audioext.errors import ConfigError, Problem
from audioext.http.messages import HttpRequest, HttpResponse
from audioext.models.events import Event
from audioext.models.record import Record
from audioext.models.requests import AddInstrumental, Extend, Operation, Request
from audioext.providers._account import HostedAccount, Vendor, task_of
from audioext.providers._answers import CONTENT, CONTENT_WORDS, CodeTable, balance
from audioext.providers._fields import FieldRules, field_problems, operations_of, wire_values
from audioext.providers._tasks import Dialect, delivered_events, status_events

SUBMIT_PATH = "/api/generate/submit"
STATUS_PATH = "/api/generate/detail/music"  # docs.vidgo.ai/api-manual/music-series/query-music-detail, read 2026-11-21
CREDITS_PATH = "/api/user/balance"  # docs.vidgo.ai/api-manual/account-management/user-balance, read 2026-11-21
MAX_CALLBACK_LENGTH = 2048  # docs.vidgo.ai/api-manual/task-management/webhooks, read 2026-11-21

NAMES: Mapping[Operation, str] = {
    Operation.EXTEND: "extend-music",
    Operation.UPLOAD_EXTEND: "upload-and-extend-audio",
    Operation.ADD_INSTRUMENTAL: "add-instrumental",
}
"""The top-level `model` of each operation; the engine's version is a field of `input`."""

_MODELS = frozenset({"V4", "V4_5", "V4_5PLUS", "V4_5ALL", "V5"})

RULES = FieldRules(
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
    lengths={Operation.ADD_INSTRUMENTAL: {"title": 100}},
)

# Credits are taken for finished tasks alone: docs.vidgo.ai/api-manual/account-management/user-balance, read 2026-11-21
DIALECT = Dialect(judges_code=False, charged=False)

MODEL_KEYS = ("model", "mv")
"""The fields that may name the engine's version when adding an instrumental."""

_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")
_IP_LABEL = re.compile("[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


def _to_key(value: str) -> str:
    if value not in MODEL_KEYS:
        message = f"instrumental_model_key must be {' or '.join(MODEL_KEYS)}, not {value!r:.80}"
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

    vendor: ClassVar[Vendor] = Vendor(
        wire_name="vidgo",
        key_variable="VIDGO_API_KEY",
        base_url=URL("https://api.vidgo.ai"),
        operations=operations_of("vidgo"),
        # No page shows an error body or lists codes: HTTP's meanings, and the keys under which third-party clients have
        # found the text, in their order. Copyright refusals come with 400 at a sibling.
        table=CodeTable(
            phrases=((CONTENT_WORDS, frozenset({400, 422}), CONTENT),),
            text_keys=("error", "detail", "msg", "message", "errormessage"),
        ),
    )

    instrumental_model_key: str = field(default="model", kw_only=True, converter=_to_key)

    def check(self, request: Request) -> Sequence[Problem]:
        """Return all that this API would refuse in *request*, and advice; the request may hold a file.

        Raises:
            UnsupportedError: the API has no such operation.
        """
        return field_problems(request, RULES)

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

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; `callback_url` is optional here."""
        values = wire_values(request, self.info.sent_model(request))
        # For uploads no page shows the key of the version; every other extend and cover page says `mv`.
        model_key = self.instrumental_model_key if isinstance(request, AddInstrumental) else "mv"
        names = {"url": "upload_url", "model": model_key}
        fields: dict[str, object] = {names.get(name, name): value for name, value in values.items()}
        if isinstance(request, Extend):
            fields["default_param_flag"] = request.is_custom
        if request.operation is Operation.UPLOAD_EXTEND:
            # A switch without a stated default: docs.vidgo.ai/api-manual/music-series/upload-and-extend-audio
            fields.setdefault("instrumental", False)
        body: dict[str, object] = {"model": NAMES[request.operation], "input": fields}
        if callback is not None:
            body["callback_url"] = str(callback)
        return self.post(SUBMIT_PATH, body)

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET that asks for the state of *record*'s task.

        The page's example shows no query; that the id belongs there is known from a sibling of the API alone.

        Raises:
            RequestError: the record has no task id yet.
        """
        return self.get(STATUS_PATH, {"task_id": task_of(record)})

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a detail answer means.

        Raises:
            ProviderError: the call was refused, or names no task; that says nothing of the task.
            DecodeError: the answer cannot be read.
        """
        return status_events(self.answers, response, DIALECT)

    def parse_webhook(self, body: bytes) -> tuple[Event, ...]:
        """Return what the body of a delivery means; its authenticity rests on the tag in the URL.

        Raises:
            WebhookError: its task ids disagree (400).
            DecodeError: it cannot be read (400).
        """
        return delivered_events(body, DIALECT)

    def build_credits(self) -> HttpRequest:
        """Return the GET that asks for the balance."""
        return self.get(CREDITS_PATH)

    def parse_credits(self, response: HttpResponse) -> float:
        """Return the balance in vidgo's own credits.

        Raises:
            ProviderError: the call was refused.
            DecodeError: the answer names no balance.
        """
        return balance(self.answers.parse_data(response, charged=False).data, "creditsamount", "credits", "balance")


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
