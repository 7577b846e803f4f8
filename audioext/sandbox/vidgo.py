"""vidgo.ai from the inside: one submit, one status call, one webhook at the end.

https://docs.vidgo.ai/api-manual/music-series/extend-music and its neighbours (sheet part 1).
"""

import string
import uuid
from collections.abc import Mapping, Sequence

from aiohttp import web
from attrs import define

from . import vidgo_uploads
from ._bodies import as_object, check_bearer, json_response, read_json_object
from ._clerk import known_fields
from ._fields import LEGACY_MODELS, Spec, check, is_address, order_of
from ._routes import api_application
from .deliver import Manners
from .desk import submitting
from .studio import Studio
from .tasks import Failure, Hook, Ids, Kind, Order, Refusal, Stage, Submission, Task, Trouble

__all__ = ["build"]

PROVIDER = "vidgo"
LONGEST_CALLBACK_URL = 2048

#: The body's `code` "is described as the HTTP status code" (sheet 1.9). Which trouble has which is on no
#: page.
CODES = {
    Trouble.KEY: 401,
    Trouble.CREDITS: 402,
    Trouble.RATE: 429,
    Trouble.PATH: 404,
    Trouble.METHOD: 405,
    Trouble.TRACK: 404,
    Trouble.TASK: 404,
    Trouble.TOO_BIG: 413,
}
INVALID_CODE = 400
FAILURES = {
    Trouble.SOURCE: "Failed to download the file from upload_url",
    Trouble.FORMAT: "The file at upload_url is not a supported audio file",
    Trouble.RANGE: "The audio is too long, or continue_at is not within it",
}
USUAL_FAILURE = "Music generation failed"

#: https://docs.vidgo.ai/api-manual/task-management/webhooks: 10 s, three retries after 1 s, 2 s, 4 s, any
#: 2xx. Credits: "only deducted when a task completes successfully" (account-management/user-balance).
MANNERS = Manners(
    timeout_seconds=10.0,
    retry_seconds=(1.0, 2.0, 4.0),
    wants_exactly_200=False,
    charges_on_success=True,
)

COMMON = frozenset({"negative_tags", "vocal_gender", "style_weight", "weirdness_constraint", "audio_weight"})
TEXTS = frozenset({"prompt", "style", "title", "continue_at"})
#: V5_5 is documented at a sibling only (sheet 1.4).
MODELS = LEGACY_MODELS - {"V5_5"}

SPECS: Mapping[str, Spec] = {
    spec.operation: spec
    for spec in (
        Spec(
            operation="extend-music",
            kind=Kind.EXTENSION,
            required=frozenset({"audio_id", "mv"}),
            optional=COMMON | TEXTS | {"default_param_flag", "persona_id"},
            models=MODELS,
            custom=TEXTS,
            model_keys=("mv",),
        ),
        Spec(
            operation="upload-and-extend-audio",
            kind=Kind.EXTENSION,
            # The version's key is on no page for this operation, and so it is not insisted on (sheet 1.4).
            required=frozenset({"upload_url"}),
            optional=COMMON | TEXTS | {"default_param_flag", "instrumental", "persona_id", "mv"},
            models=MODELS,
            custom=frozenset({"style", "title"}),
            sung=frozenset({"prompt"}),
            model_keys=("mv",),
        ),
        Spec(
            operation="add-instrumental",
            kind=Kind.INSTRUMENTAL,
            required=frozenset({"upload_url", "title", "tags", "negative_tags"}),
            # `model` by the page's prose, `mv` at the sibling (sheet 1.4).
            optional=(COMMON - {"negative_tags"}) | {"model", "mv"},
            models=frozenset({"V4_5PLUS", "V5"}),
            model_keys=("model", "mv"),
            default_model="V4_5PLUS",
        ),
    )
}


@define(eq=False)
class Clerk:
    """Takes orders for all operations at one route."""

    studio: Studio
    provider: str = PROVIDER
    manners: Manners = MANNERS
    fetches_first: bool = False

    def admit(self, request: web.Request) -> None:
        """Check the key."""
        check_bearer(request, self.studio.settings.api_key)

    def limit(self) -> None:
        """Let all pass: a limit on submits is on no page."""

    async def read(self, request: web.Request, submission: Submission) -> Order:
        """Read the wrapper, then the `input` of its operation."""
        body = await read_json_object(request)
        submission.fields = body
        name = body.get("model")
        if not isinstance(name, str) or name not in SPECS:
            raise Refusal(Trouble.MODEL, f"model {name} is not supported", names=["model"])
        submission.operation = name
        callback_url = body.get("callback_url")
        if callback_url is not None and (not is_address(callback_url) or len(callback_url) > LONGEST_CALLBACK_URL):
            # HTTPS and public addresses only, says the page; a sandbox on loopback cannot insist on that.
            raise Refusal(Trouble.INVALID, "callback_url must be a URL of at most 2048 characters")
        submission.callback_url = callback_url
        given = as_object(body.get("input"))
        if given is None:
            raise Refusal(Trouble.MISSING, "input is required", names=["input"])
        fields = known_fields(given, SPECS[name], submission)
        check(fields, SPECS[name])
        return order_of(fields, SPECS[name], callback_url=callback_url, sent=body)

    def new_ids(self, order: Order) -> Ids:
        """Mint an id of the form ``task-unified-<digits>-<8 characters>``, and a UUID for each take."""
        seed = self.studio.fresh_bytes()
        letters = string.ascii_lowercase + string.digits
        tail = "".join(letters[byte % len(letters)] for byte in seed[:8])
        digits = int.from_bytes(seed[8:12]) % 10**9
        takes = tuple(str(uuid.UUID(bytes=seed[16:31] + bytes([index]), version=4)) for index in range(order.outputs))
        return Ids(task_id=f"task-unified-1{digits:09d}-{tail}", take_ids=takes)

    def accepted(self, task: Task) -> web.Response:
        """Answer with the task's id."""
        data = {"task_id": task.id, "status": "not_started", "created_time": _created(task)}
        return json_response({"code": 200, "data": data})

    def refused(self, refusal: Refusal) -> web.Response:
        """Answer with the trouble's HTTP status."""
        return refused(refusal)

    def coded(self, code: int, message: str) -> web.Response:
        """Answer with this code in body and status."""
        return _error(code, message)

    def failure(self, refusal: Refusal) -> Failure:
        """Fail a task whose source turned out bad."""
        return Failure(CODES.get(refusal.trouble, INVALID_CODE), FAILURES.get(refusal.trouble, USUAL_FAILURE))

    def fault_failure(self, code: int | None) -> Failure:
        """Fail a task because a fault says so; the text is all that shows of the code."""
        return Failure(code or 500, USUAL_FAILURE if code is None else f"{USUAL_FAILURE} ({code})")

    def hooks(self, task: Task) -> Sequence[Hook]:
        """Write the one webhook, at the end: the status answer, `code` 200 also for a failure (sheet 1.8)."""
        if task.is_open:
            return []
        word = "complete" if task.failure is None else "error"
        return [Hook(words=(word,), body={"code": 200, "data": _detail(task)})]


def build(studio: Studio) -> web.Application:
    """Make the whole of vidgo.ai."""
    app = api_application(refused)
    app.router.add_post("/api/generate/submit", submitting(studio, Clerk(studio), operation="submit"))

    async def detail(request: web.Request) -> web.StreamResponse:
        check_bearer(request, studio.settings.api_key)
        task = studio.tasks.get(request.query.get("task_id", ""))
        if task is None or task.provider != PROVIDER:
            raise Refusal(Trouble.TASK, "Task not found")
        return json_response({"code": 200, "data": _detail(task)})

    async def balance(request: web.Request) -> web.StreamResponse:
        check_bearer(request, studio.settings.api_key)
        data = {"email": "sandbox@example.invalid", "credits_amount": studio.shown_balance(PROVIDER)}
        return json_response({"code": 200, "data": data})

    app.router.add_get("/api/generate/detail/music", detail)
    app.router.add_get("/api/user/balance", balance)
    vidgo_uploads.add_routes(app, studio)
    return app


def refused(refusal: Refusal) -> web.Response:
    """Answer with the trouble's HTTP status and the `error.message` that clients read (sheet 1.9)."""
    return _error(CODES.get(refusal.trouble, INVALID_CODE), refusal.message)


def _error(code: int, message: str) -> web.Response:
    return json_response({"code": code, "error": {"message": message}}, status=code)


def _created(task: Task) -> str:
    """Write a time without a zone, as the samples do (sheet 1.2)."""
    return task.created.strftime("%Y-%m-%dT%H:%M:%S")


def _detail(task: Task) -> Mapping[str, object]:
    """Write the status call's `data`: https://docs.vidgo.ai/api-manual/music-series/query-music-detail."""
    done = task.stage is Stage.COMPLETE and task.failure is None
    files = [
        {
            "audio_id": take.id,
            "audio_url": take.url,
            "image_url": take.cover_url,
            "title": task.order.title,
            "tags": task.order.tags,
            "duration": round(take.seconds),
            "prompt": task.order.prompt,
        }
        for take in task.takes
    ]
    return {
        "task_id": task.id,
        "status": _status(task),
        # "files empty until finished" (sheet 1.7).
        "files": files if done else [],
        "created_time": _created(task),
        "error_message": task.failure.message if task.failure is not None else None,
    }


def _status(task: Task) -> str:
    if task.failure is not None:
        return "failed"
    return {None: "not_started", Stage.COMPLETE: "finished"}.get(task.stage, "running")
