"""kie.ai from the inside: the per-operation routes, status, credits, download URLs.

https://docs.kie.ai/old-model/suno-api/extend-music and its neighbours (sheet A, 5.1, 6, 7, 8).
"""

from collections.abc import Sequence

from aiohttp import web
from attrs import define

from . import kie_jobs, uploads
from ._bodies import check_bearer, read_json_object
from ._clerk import Book, Counter, Envelope, FlatClerk
from ._fields import LEGACY_MODELS, Spec, is_address
from ._routes import api_application
from ._suno import callback, camel, is_upload
from .deliver import Manners
from .desk import Handler, Limiter, submitting
from .studio import Studio
from .tasks import Hook, Kind, Refusal, Stage, Task, Trouble

__all__ = ["BOOK", "MANNERS", "PROVIDER", "build"]

PROVIDER = "kie"

#: Sheet 8.1. Unknown audio and a file that cannot be fetched have their own codes; the rest is validation.
BOOK = Book(
    codes={
        Trouble.KEY: 401,
        Trouble.CREDITS: 402,
        Trouble.RATE: 429,
        Trouble.PATH: 404,
        Trouble.METHOD: 404,
        Trouble.BODY: 422,
        Trouble.MISSING: 422,
        Trouble.INVALID: 422,
        Trouble.LENGTH: 422,
        Trouble.MODEL: 422,
        Trouble.TRACK: 404,
        Trouble.TASK: 422,
        Trouble.SOURCE: 451,
        Trouble.FORMAT: 451,
        Trouble.RANGE: 422,
        Trouble.TOO_BIG: 451,
    },
    # An unauthenticated call was seen to get HTTP 200 (sheet 8.2); over-limit "rejected with HTTP 429" (K9).
    # That an unknown path is a real 404 is our guess.
    statuses={404: 404, 429: 429},
    failures={
        Trouble.SOURCE: (451, "Failed to fetch the file."),
        Trouble.FORMAT: (451, "The file could not be read as audio."),
        Trouble.RANGE: (422, "The audio is too long, or continue_at is not within it."),
        Trouble.TRACK: (422, "The audio does not exist."),
    },
    usual_failure=(501, "Audio generation failed."),
)

#: 15 s and three retries: https://docs.kie.ai/suno-api/extend-music-callbacks. The spacing is on no page: our
#: guess.
MANNERS = Manners(
    timeout_seconds=15.0,
    retry_seconds=(60.0, 300.0, 900.0),
    wants_exactly_200=True,
    signs=True,
    # 531: "failed, credits refunded" (sheet 5.1).
    refunded_codes=frozenset({531}),
)

COMMON = frozenset({"negative_tags", "vocal_gender", "style_weight", "weirdness_constraint", "audio_weight"})
PERSONA = frozenset({"persona_id", "persona_model"})
#: V3_5 is in the older pages (seed 003), V6 is sent by clients that run (sheet A1, a conflict).
MODELS = LEGACY_MODELS | {"V3_5", "V6"}

SPECS = (
    Spec(
        operation="extend",
        kind=Kind.EXTENSION,
        # The page's schema also lists `prompt` as required, its prose only with the flag (sheet A1, a
        # conflict).
        required=frozenset({"default_param_flag", "audio_id", "model", "call_back_url"}),
        optional=COMMON | PERSONA | {"prompt", "style", "title", "continue_at", "instrumental"},
        models=MODELS,
        spell=camel,
        custom=frozenset({"style", "title", "continue_at"}),
        sung=frozenset({"prompt"}),
        not_instrumental=frozenset({"prompt", "vocal_gender"}),
        custom_only=frozenset({"persona_id"}),
    ),
    Spec(
        operation="upload-extend",
        kind=Kind.EXTENSION,
        required=frozenset(
            {"upload_url", "default_param_flag", "instrumental", "continue_at", "model", "call_back_url"},
        ),
        optional=COMMON | PERSONA | {"prompt", "style", "title"},
        models=MODELS,
        spell=camel,
        custom=frozenset({"style", "title"}),
        sung=frozenset({"prompt"}),
        custom_only=frozenset({"persona_id"}),
    ),
    Spec(
        operation="add-instrumental",
        kind=Kind.INSTRUMENTAL,
        required=frozenset({"upload_url", "title", "tags", "negative_tags", "call_back_url"}),
        optional=COMMON | {"model"},
        models=frozenset({"V4_5PLUS", "V5", "V5_5", "V6"}),
        spell=camel,
        default_model="V4_5PLUS",
    ),
)


@define(eq=False)
class LegacyClerk(FlatClerk):
    """An operation of the per-operation routes."""

    def hooks(self, task: Task) -> Sequence[Hook]:
        """Write the callback for a task's stage, or for its failure."""
        instrumental = task.order.kind is Kind.INSTRUMENTAL
        if task.failure is not None:
            # `[]` at both extends, null at add-instrumental, whose text has no dot either (sheet 5.1).
            message = task.failure.message
            nothing: list[object] | None = None if instrumental else []
            data = {"callbackType": "error", "task_id": task.id, "data": nothing}
            text = message.removesuffix(".") if instrumental else message
            return [Hook(words=("error",), body={"code": task.failure.code, "msg": text, "data": data})]
        return [stage_callback(task)]


def stage_callback(task: Task) -> Hook:
    """Write the callback for a stage that is reached."""
    instrumental = task.order.kind is Kind.INSTRUMENTAL
    messages = {
        Stage.TEXT: "Text generation completed successfully." if instrumental else "Text generation completed.",
        Stage.FIRST: "First track generated successfully.",
        Stage.COMPLETE: "All generated successfully.",
    }
    stage = task.stage or Stage.TEXT
    songs = {Stage.TEXT: (), Stage.FIRST: (task.leader,), Stage.COMPLETE: tuple(range(len(task.takes)))}[stage]
    return callback(task, key="task_id", message=messages[stage], songs=songs, wide=is_upload(task))


def build(studio: Studio) -> web.Application:
    """Make the whole of kie.ai: the per-operation routes, status, credits, download URLs and uploads."""
    envelope = Envelope(BOOK)
    app = api_application(envelope.refused)
    # One account, one limit: https://docs.kie.ai/1973359m0 (sheet 8.3).
    limiter = Limiter.of(studio.settings.submit_limit, studio.settings.submit_window_seconds)
    for spec in SPECS:
        clerk = LegacyClerk(
            provider=PROVIDER,
            studio=studio,
            envelope=envelope,
            manners=MANNERS,
            limiter=limiter,
            spec=spec,
            fetches_first=True,
        )
        app.router.add_post(f"/api/v1/generate/{spec.operation}", submitting(studio, clerk, operation=spec.operation))
    counter = Counter(PROVIDER, studio, envelope)
    app.router.add_get("/api/v1/generate/record-info", counter.record_info)
    app.router.add_get("/api/v1/chat/credit", counter.credit)
    app.router.add_post("/api/v1/common/download-url", _download_url(studio, envelope))
    uploads.add_routes(app, studio, PROVIDER)
    kie_jobs.add_routes(app, studio, envelope, manners=MANNERS, limiter=limiter)
    return app


def _download_url(studio: Studio, envelope: Envelope) -> Handler:
    """Make the handler of https://docs.kie.ai/common-api/download-url (sheet 9)."""

    async def handle(request: web.Request) -> web.StreamResponse:
        check_bearer(request, studio.settings.api_key)
        url = (await read_json_object(request)).get("url")
        key = studio.files.key_of(url) if is_address(url) else None
        if key is None or not key.startswith(f"{PROVIDER}/") or key not in studio.files:
            raise Refusal(Trouble.INVALID, "The url is not one of our generated files", names=["url"])
        return envelope.ok(studio.files.url(key))

    return handle
