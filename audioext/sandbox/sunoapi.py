"""sunoapi.org from the inside: the per-operation routes, status, credits, uploads.

https://docs.sunoapi.org/suno-api/extend-music and its neighbours (sheets C, 5.2, 7, 8).
"""

from collections.abc import Sequence

from aiohttp import web
from attrs import define

from . import uploads
from ._clerk import Book, Counter, Envelope, FlatClerk
from ._fields import LEGACY_MODELS, V6_MODELS, Spec
from ._routes import api_application
from ._suno import callback, camel
from .deliver import Manners
from .desk import Limiter, submitting
from .studio import Studio
from .tasks import Hook, Kind, Stage, Task, Trouble

__all__ = ["build"]

PROVIDER = "sunoapi"

#: Sheet 8.1, its middle column: 429 means credits here, rates are 405 and 430, 413 is a text too long. 400
#: stands for all that no page gives a code: unknown audio, an unknown task.
BOOK = Book(
    codes={
        Trouble.KEY: 401,
        Trouble.CREDITS: 429,
        Trouble.RATE: 430,
        Trouble.PATH: 404,
        Trouble.METHOD: 404,
        Trouble.BODY: 400,
        Trouble.MISSING: 400,
        Trouble.INVALID: 400,
        Trouble.LENGTH: 413,
        Trouble.MODEL: 400,
        Trouble.TRACK: 400,
        Trouble.TASK: 400,
        Trouble.SOURCE: 400,
        Trouble.FORMAT: 400,
        Trouble.RANGE: 400,
        Trouble.TOO_BIG: 413,
    },
    # HTTP 200 with another code was seen, the pages define 200 and 500 only (sheet 8.2); the 404 is our
    # guess.
    statuses={404: 404, 500: 500},
    failures={
        Trouble.SOURCE: (451, "File download failed"),
        Trouble.FORMAT: (400, "The audio format is not supported"),
        Trouble.RANGE: (400, "The audio is too long, or continueAt is not within it"),
    },
    usual_failure=(400, "Music generation failed"),
)

#: 15 s and three retries: https://docs.sunoapi.org/suno-api/extend-music-callbacks. The spacing is our guess.
MANNERS = Manners(timeout_seconds=15.0, retry_seconds=(60.0, 300.0, 900.0), wants_exactly_200=True)

COMMON = frozenset({"negative_tags", "vocal_gender", "style_weight", "weirdness_constraint", "audio_weight"})
PERSONA = frozenset({"persona_id", "persona_model"})
TEXTS = frozenset({"prompt", "style", "title", "continue_at", "instrumental"})
#: V3_5 is in the older page (seed 001); V6 on the extend pages is on none, but sent on the same paths (sheet
#: 0.2).
MODELS = LEGACY_MODELS | V6_MODELS | {"V3_5"}

SPECS = (
    Spec(
        operation="extend",
        kind=Kind.EXTENSION,
        required=frozenset({"default_param_flag", "audio_id", "model", "call_back_url"}),
        optional=COMMON | PERSONA | TEXTS,
        models=MODELS,
        spell=camel,
        custom=frozenset({"style", "title", "continue_at"}),
        sung=frozenset({"prompt"}),
        custom_only=frozenset({"persona_id"}),
    ),
    Spec(
        operation="upload-extend",
        kind=Kind.EXTENSION,
        required=frozenset({"upload_url", "default_param_flag", "model", "call_back_url"}),
        optional=COMMON | PERSONA | TEXTS,
        models=MODELS,
        spell=camel,
        custom=frozenset({"style", "title", "continue_at"}),
        sung=frozenset({"prompt"}),
        custom_only=frozenset({"persona_id"}),
    ),
    Spec(
        operation="add-instrumental",
        kind=Kind.INSTRUMENTAL,
        required=frozenset({"upload_url", "title", "tags", "negative_tags", "call_back_url"}),
        optional=COMMON | {"model", "lyrics", "variety"},
        models=LEGACY_MODELS | V6_MODELS,
        spell=camel,
        # "default V6" (S3b); it was V4_5PLUS (S3a).
        default_model="V6",
    ),
)


@define(eq=False, kw_only=True)
class Clerk(FlatClerk):
    """An operation of sunoapi.org."""

    def hooks(self, task: Task) -> Sequence[Hook]:
        """Write the callback for a task's stage, or for its failure (sheet 5.2)."""
        key = self.studio.settings.sunoapi_task_key
        if task.failure is not None:
            data = {"callbackType": "error", key: task.id, "data": None}
            return [
                Hook(
                    words=("error",),
                    body={"code": task.failure.code, "msg": task.failure.message, "data": data},
                )
            ]
        # The bodies of `text` and `first` are on no page; the status call lists all songs from the text on
        # (sheet 7), so these do as well, with no audio URL yet.
        messages = {
            Stage.TEXT: "Text generated successfully.",
            Stage.FIRST: "First track generated successfully.",
            Stage.COMPLETE: "All generated successfully.",
        }
        songs = range(len(task.takes))
        return [callback(task, key=key, message=messages[task.stage or Stage.TEXT], songs=songs, wide=True)]


def build(studio: Studio) -> web.Application:
    """Make the whole of sunoapi.org."""
    envelope = Envelope(BOOK)
    app = api_application(envelope.refused)
    limiter = Limiter.of(studio.settings.submit_limit, studio.settings.submit_window_seconds)
    for spec in SPECS:
        clerk = Clerk(
            provider=PROVIDER,
            studio=studio,
            envelope=envelope,
            manners=MANNERS,
            limiter=limiter,
            spec=spec,
            fetches_first=False,
        )
        app.router.add_post(f"/api/v1/generate/{spec.operation}", submitting(studio, clerk, operation=spec.operation))
    counter = Counter(PROVIDER, studio, envelope)
    app.router.add_get("/api/v1/generate/record-info", counter.record_info)
    app.router.add_get("/api/v1/generate/credit", counter.credit)
    uploads.add_routes(app, studio, PROVIDER)
    return app
