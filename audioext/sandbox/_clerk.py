"""What kie.ai's two routes and sunoapi.org share as takers of orders: envelope, key, codes, ids."""

import uuid
from collections.abc import Mapping

from aiohttp import web
from attrs import define, frozen

from ._bodies import check_bearer, json_response, read_json_object
from ._fields import Spec, check, order_of
from ._suno import OPERATION_TYPES, record_info
from .deliver import Manners
from .desk import Limiter
from .studio import Studio
from .tasks import Failure, Ids, Order, Refusal, Submission, Task, Trouble

__all__ = ["Book", "Counter", "Envelope", "EnvelopeClerk", "FlatClerk", "known_fields"]


@frozen(kw_only=True)
class Book:
    """An API's codes."""

    #: The envelope's `code` for each trouble.
    codes: Mapping[Trouble, int]
    #: Where the HTTP status is not 200: by code.
    statuses: Mapping[int, int]
    #: Failed tasks: the callback's code and text for each trouble, and for no trouble in particular.
    failures: Mapping[Trouble, tuple[int, str]]
    usual_failure: tuple[int, str]


@frozen
class Envelope:
    """Answers in the form ``{"code", "msg", "data"}``."""

    book: Book

    def ok(self, data: object) -> web.Response:
        """Answer with data."""
        return json_response({"code": 200, "msg": "success", "data": data})

    def no(self, code: int, message: str) -> web.Response:
        """Answer with an error: mostly HTTP 200 with the code in the body (sheet 8.2)."""
        status = self.book.statuses.get(code, 200)
        return json_response({"code": code, "msg": message, "data": None}, status=status)

    def refused(self, refusal: Refusal) -> web.Response:
        """Answer with the code that this API has for the trouble."""
        return self.no(self.book.codes[refusal.trouble], refusal.message)


@define(eq=False, kw_only=True)
class EnvelopeClerk:
    """Takes orders at an API with the common envelope."""

    provider: str
    studio: Studio
    envelope: Envelope
    manners: Manners
    limiter: Limiter
    fetches_first: bool

    def admit(self, request: web.Request) -> None:
        """Check the key."""
        check_bearer(request, self.studio.settings.api_key)

    def limit(self) -> None:
        """Count this submit."""
        if not self.limiter.passes():
            raise Refusal(Trouble.RATE, "Too many requests, please try again later")

    def new_ids(self, order: Order) -> Ids:
        """Mint 32 hex digits for the task and a UUID for each take, as seen live (sheet 0)."""
        seed = self.studio.fresh_bytes()
        takes = tuple(str(uuid.UUID(bytes=seed[16:31] + bytes([index]), version=4)) for index in range(order.outputs))
        return Ids(task_id=seed[:16].hex(), take_ids=takes)

    def accepted(self, task: Task) -> web.Response:
        """Answer ``{"code":200,"msg":"success","data":{"taskId":"..."}}``."""
        return self.envelope.ok({"taskId": task.id})

    def refused(self, refusal: Refusal) -> web.Response:
        """Answer with the API's code."""
        return self.envelope.refused(refusal)

    def coded(self, code: int, message: str) -> web.Response:
        """Answer with this code."""
        return self.envelope.no(code, message)

    def failure(self, refusal: Refusal) -> Failure:
        """Fail a task whose source turned out bad."""
        book = self.envelope.book
        return Failure(*book.failures.get(refusal.trouble, book.usual_failure))

    def fault_failure(self, code: int | None) -> Failure:
        """Fail a task because a fault says so."""
        usual, message = self.envelope.book.usual_failure
        return Failure(usual if code is None else code, message)


@define(eq=False, kw_only=True)
class FlatClerk(EnvelopeClerk):
    """One operation with a route and a flat body of its own."""

    spec: Spec

    async def read(self, request: web.Request, submission: Submission) -> Order:
        """Read and check a flat body."""
        body = await read_json_object(request)
        submission.fields = body
        callback_url = body.get(self.spec.spell("call_back_url"))
        submission.callback_url = callback_url if isinstance(callback_url, str) else None
        fields = known_fields(body, self.spec, submission)
        check(fields, self.spec)
        self._check_source_model(fields)
        return order_of(fields, self.spec, callback_url=submission.callback_url, sent=body)

    def _check_source_model(self, fields: Mapping[str, object]) -> None:
        """Refuse a model other than the source track's.

        "Model version must match the source audio's model version": seeds 001, 003. A ready track fits all.
        """
        audio_id = fields.get("audio_id")
        if isinstance(audio_id, str):
            source = self.studio.library.track(audio_id)
            if source.model is not None and source.model != self.spec.model(fields):
                name = self.spec.spell("model")
                raise Refusal(Trouble.MODEL, f"{name} must match the source audio's, {source.model}", names=[name])


def known_fields(body: Mapping[str, object], spec: Spec, submission: Submission) -> Mapping[str, object]:
    """Return the fields that an operation knows, in snake case, and note the others as ignored."""
    names = spec.names
    submission.ignored = tuple(name for name in body if name not in names)
    return {names[name]: value for name, value in body.items() if name in names}


@frozen
class Counter:
    """The reading calls that kie.ai's per-operation routes and sunoapi.org have in common."""

    provider: str
    studio: Studio
    envelope: Envelope

    async def record_info(self, request: web.Request) -> web.StreamResponse:
        """Answer ``record-info?taskId=``."""
        check_bearer(request, self.studio.settings.api_key)
        task_id = request.query.get("taskId", "")
        if not task_id:
            raise Refusal(Trouble.MISSING, "taskId is required", names=["taskId"])
        task = self.studio.tasks.get(task_id)
        if task is None or task.provider != self.provider or task.order.operation not in OPERATION_TYPES:
            # The jobs route's words (sheet B); what this route says of an unknown task is on no page (sheet
            # 7).
            raise Refusal(Trouble.TASK, "recordInfo is null")
        return self.envelope.ok(record_info(task))

    async def credit(self, request: web.Request) -> web.StreamResponse:
        """Answer the balance (sheet 10)."""
        check_bearer(request, self.studio.settings.api_key)
        return self.envelope.ok(self.studio.shown_balance(self.provider))
