"""kie.ai's jobs route: https://docs.kie.ai/market/common/get-task-detail, read 2026-11-21.

One path for every operation, the parameters in snake case under `input`, status by recordInfo with the
result as JSON inside a string. The pages of the single operations could not be read: their parameters are
as several third parties read them in 2026-09 and 2026-10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen

from audioext.errors import DecodeError
from audioext.http.decoding import Link, Number, Text, parse_json, structure
from audioext.models.events import Event, Failed, Progress
from audioext.models.requests import Operation, Request
from audioext.models.results import FailureReason, Stage, Track
from audioext.providers import _kie
from audioext.providers._account import DAY_SECONDS, SunoAccount, Vendor, task_query, wire_values
from audioext.providers._engine import CLASSIC_MODELS, V6_MODELS, EngineRules
from audioext.providers._suno_events import Delivery, callback_events, failure, tracks_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from yarl import URL

    from audioext.http.messages import HttpRequest, HttpResponse, Webhook
    from audioext.models.record import Record

CREATE_PATH = "/api/v1/jobs/createTask"
STATUS_PATH = "/api/v1/jobs/recordInfo"  # docs.kie.ai/market/common/get-task-detail, read 2026-11-21

SLUGS: Mapping[Operation, str] = {
    Operation.EXTEND: "ai-music-api/extend",
    Operation.UPLOAD_EXTEND: "ai-music-api/upload-and-extend-audio",
    Operation.ADD_INSTRUMENTAL: "ai-music-api/add-instrumental",
}

# docs.kie.ai/market/common/get-task-detail, read 2026-11-21
RUNNING_STATES = frozenset({"waiting", "queuing", "generating"})
SUCCESS_STATE = "success"
FAILED_STATE = "fail"

# As for callbacks, but a task that failed upstream was seen with 400, so here that is no word on its content.
STATE_REASONS: Mapping[str, FailureReason] = {code: reason for code, reason in _kie.REASONS.items() if code != "400"}

RULES = EngineRules(
    wire_name="kie-jobs",
    listed={
        Operation.EXTEND: CLASSIC_MODELS | V6_MODELS,
        Operation.UPLOAD_EXTEND: CLASSIC_MODELS | V6_MODELS,
        Operation.ADD_INSTRUMENTAL: frozenset({"V4_5PLUS", "V5", "V5_5"}) | V6_MODELS,
    },
    has_custom_mode=False,
    instrumental_limits=_kie.INSTRUMENTAL_LIMITS,
)

VENDOR = Vendor(
    wire_name="kie-jobs",
    key_variable=_kie.KEY_VARIABLE,
    base_url=_kie.BASE_URL,
    hosts=_kie.HOSTS,
    upload_url=_kie.UPLOAD_URL,
    credits_path=_kie.CREDITS_PATH,
    retention=DAY_SECONDS,  # result URLs usually die after 24 h: docs.kie.ai/market/common/get-task-detail
    table=_kie.TABLE,
    rules=RULES,
)

_RESULT_KEYS = ("data", "sunoData", "response", "resultObject")


@frozen
class TaskDetail:
    """`data` of a recordInfo answer, but for its result; `failCode` is text, a number, `""` or null."""

    taskId: Text | None = None  # noqa: N815 - the wire's spelling
    state: Text | None = None
    failCode: Text | None = None  # noqa: N815 - the wire's spelling
    failMsg: Text | None = None  # noqa: N815 - the wire's spelling
    creditsConsumed: Number | None = None  # noqa: N815 - the wire's spelling


@frozen
class KieJobs(SunoAccount):
    """kie.ai by its newer jobs route; it shares the account's key and limits with `Kie`.

    `webhook_key` is the key that signs callbacks, or several during a rotation; without one signatures are
    not looked at. `webhook_tolerance` is how far, in seconds, a signature's time may be from ours.

    Raises:
        ConfigError: a setting cannot work.
    """

    vendor: ClassVar[Vendor] = VENDOR

    webhook_key: tuple[str, ...] = field(default=None, kw_only=True, converter=_kie.to_webhook_keys, repr=False)
    webhook_tolerance: float = field(default=_kie.WEBHOOK_TOLERANCE_SECONDS, kw_only=True)

    def build_submit(self, request: Request, callback: URL | None) -> HttpRequest:
        """Return the POST that makes the task; `callBackUrl` is optional on this route.

        Raises:
            RequestError: `check` finds a problem.
            UnsupportedError: the API has no such operation.
        """
        self._refuse_problems(request)
        values = wire_values(request)
        names = {"url": "upload_url"}
        body: dict[str, object] = {
            "model": SLUGS[request.operation],
            "input": {names.get(name, name): value for name, value in values.items()},
        }
        if callback is not None:
            body["callBackUrl"] = str(callback)
        return self._post(CREATE_PATH, body)

    def build_status(self, record: Record) -> HttpRequest:
        """Return the GET that asks for the state of *record*'s task.

        Raises:
            RequestError: the record has no task id yet.
        """
        return self._get(STATUS_PATH, task_query(record))

    def parse_status(self, response: HttpResponse) -> tuple[Event, ...]:
        """Return what a recordInfo answer means.

        Raises:
            ProviderError: the call was refused; that says nothing of the task.
            DecodeError: the answer cannot be read.
        """
        envelope = self.answers.parse_data(response)
        if envelope.data is None:
            raise self.answers.no_task(envelope)
        if not isinstance(envelope.data, dict):
            raise DecodeError(["expected an object @ $.data"])
        return task_events(envelope.data)

    def parse_webhook(self, hook: Webhook) -> tuple[Event, ...]:
        """Verify, then decode a delivery, in the shape of the older routes or of a status answer.

        Raises:
            WebhookError: it is not authentic (401) or not a delivery at all (400).
            DecodeError: it cannot be read (400).
        """
        delivery = _kie.open_verified(hook, self.webhook_key, tolerance=self.webhook_tolerance)
        if "state" in delivery.data:
            return task_events(delivery.data, delivery=delivery)
        return callback_events(delivery, _kie.REASONS)


def task_events(data: Mapping[str, object], *, delivery: Delivery | None = None) -> tuple[Event, ...]:
    """Return what a task's detail means, from a status answer or in a *delivery*.

    What the detail leaves out, the delivery's envelope says; in a delivery an unknown state makes a status
    call due.

    Raises:
        DecodeError: it is not of that shape.
    """
    detail = structure(data, TaskDetail, where="data")
    task_id: str | None = detail.taskId or (delivery.task_id if delivery is not None else None)
    tracks = result_tracks(data)
    known = detail.state in RUNNING_STATES or detail.state in {SUCCESS_STATE, FAILED_STATE, None, ""}
    seen = Progress(
        task_id=task_id,
        claimed_stage=Stage.COMPLETE if detail.state == SUCCESS_STATE else None,
        tracks=tracks,
        credits=detail.creditsConsumed,
        word=None if known else detail.state,
        ask_now=delivery is not None and not known,
    )
    if detail.state != FAILED_STATE:
        return (seen,)
    failed = _task_failure(task_id, detail, delivery)
    return (seen, failed) if tracks or detail.creditsConsumed is not None else (failed,)


def _task_failure(task_id: str | None, detail: TaskDetail, delivery: Delivery | None) -> Failed:
    code: str | None = detail.failCode or None
    message: str = detail.failMsg or ""
    if delivery is not None and delivery.code != "200":
        code = code or delivery.code
        message = message or delivery.message
    return failure(task_id, STATE_REASONS.get(code or "", FailureReason.UNKNOWN), code, message)


def result_tracks(data: Mapping[str, object]) -> tuple[Track, ...]:
    """Return the tracks of a task's result, whichever of the reported shapes it has.

    `resultJson` is a JSON text with songs under `data`, `response.data` or `resultObject`, or addresses
    under `resultUrls`; the songs have been seen beside it, under `response`, as well.

    Raises:
        DecodeError: what is there cannot be read.
    """
    raw = data.get("resultJson")
    result = parse_json(raw.encode(), where="data.resultJson") if isinstance(raw, str) and raw else raw
    for value, where in ((result, "data.resultJson"), (data.get("response"), "data.response")):
        for songs, path in _songs(value, where):
            tracks = tracks_in(songs, where=path)
            if tracks:
                return tracks
    urls = result.get("resultUrls") if isinstance(result, dict) else None
    links = structure(urls, list[Link | None], where="data.resultJson.resultUrls") if urls else []
    return tuple(Track(audio_url=link) for link in links if link is not None)


def _songs(value: object, where: str) -> Iterator[tuple[object, str]]:
    """Yield the lists in *value* that may hold songs, with their paths."""
    if isinstance(value, list):
        yield value, where
    elif isinstance(value, dict):
        if "audio_url" in value or "audioUrl" in value:
            yield [value], where
        for key in _RESULT_KEYS:
            yield from _songs(value.get(key), f"{where}.{key}")
