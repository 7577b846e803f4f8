"""MusicGPT from the inside: a multipart submit, numbered status keys, and up to five partial webhooks.

https://docs.musicgpt.com/api-documentation/conversions/extend and endpoint/getById (sheet part 2).
"""

import uuid
from collections.abc import Mapping, Sequence

from aiohttp import web
from attrs import define

from ._bodies import check_header, json_response
from ._musicgpt import conversion, hooks
from ._musicgpt_form import read_order
from ._routes import api_application
from .deliver import Manners
from .desk import submitting
from .studio import Studio
from .tasks import Failure, Hook, Ids, Order, Refusal, Submission, Task, Trouble

__all__ = ["build"]

PROVIDER = "musicgpt"
#: "https://api.musicgpt.com/api/public/v1", in newer pages "https://api.musicgpt.com/api/public" with "/v1"
#: paths.
PREFIXES = ("", "/v1", "/api/public/v1")
ETA_SECONDS = 120
#: utilities/error, with 401 by the vendor's packages (sheet 2.2).
CODES = {
    Trouble.KEY: 401,
    Trouble.CREDITS: 402,
    Trouble.RATE: 429,
    Trouble.PATH: 404,
    Trouble.METHOD: 405,
    Trouble.TASK: 404,
    Trouble.TOO_BIG: 413,
}
INVALID_CODE = 422
FAILURES = {
    Trouble.SOURCE: "Could not download the audio from the given URL",
    Trouble.FORMAT: "The audio file could not be processed",
    Trouble.RANGE: "extend_after is beyond the end of the audio",
}
USUAL_FAILURE = "Conversion failed"
#: With num_outputs=1 this text stands where the second id would (sheet 2.2).
SINGLE = "single_song_generation_request"
#: The documented list (sheet 2.4), as far as it concerns songs with two versions; others exist.
CONVERSION_TYPES = frozenset({"EXTEND", "MUSIC_AI", "COVER", "REMIX", "INPAINT", "SING_OVER_INSTRUMENTAL"})

#: The page has no word on timeouts and retries, yet deliveries are seen to be repeated (sheet 2.3): our
#: guess.
MANNERS = Manners(timeout_seconds=15.0, retry_seconds=(10.0, 60.0, 300.0), wants_exactly_200=False)


@define(eq=False)
class Clerk:
    """Takes orders for extensions."""

    studio: Studio
    provider: str = PROVIDER
    manners: Manners = MANNERS
    fetches_first: bool = False

    def admit(self, request: web.Request) -> None:
        """Check the key, which is sent raw, without "Bearer" (index/authentication)."""
        check_header(request, self.studio.settings.api_key)

    def limit(self) -> None:
        """Count the tasks that still run (utilities/ratelimits)."""
        most = self.studio.settings.parallel_limit
        if most is not None and self.studio.open_tasks(PROVIDER) >= most:
            raise Refusal(Trouble.RATE, f"Too many parallel requests: your plan allows {most}")

    async def read(self, request: web.Request, submission: Submission) -> Order:
        """Read and check the form."""
        return await read_order(request, self.studio, submission)

    def new_ids(self, order: Order) -> Ids:
        """Mint UUIDs, as in real traffic."""
        seed = self.studio.fresh_bytes()
        takes = tuple(str(uuid.UUID(bytes=seed[16:31] + bytes([index]), version=4)) for index in range(order.outputs))
        task_id = str(uuid.UUID(bytes=seed[:16], version=4))
        # Which version is ready first varies.
        return Ids(task_id=task_id, take_ids=takes, leader=seed[0] % order.outputs)

    def accepted(self, task: Task) -> web.Response:
        """Answer with the ids."""
        return json_response(
            {
                "success": True,
                "message": "Extend request submitted successfully",
                "task_id": task.id,
                "conversion_id_1": task.take_ids[0],
                "conversion_id_2": task.take_ids[1] if len(task.take_ids) > 1 else SINGLE,
                "eta": ETA_SECONDS,
                "credit_estimate": self.studio.settings.price,
            },
        )

    def refused(self, refusal: Refusal) -> web.Response:
        """Answer in the form of the web framework that the pages show."""
        return refused(refusal)

    def coded(self, code: int, message: str) -> web.Response:
        """Answer with this HTTP status: there is no code in the body."""
        return json_response({"detail": message}, status=code)

    def failure(self, refusal: Refusal) -> Failure:
        """Fail a task whose source turned out bad."""
        return Failure(CODES.get(refusal.trouble, INVALID_CODE), FAILURES.get(refusal.trouble, USUAL_FAILURE))

    def fault_failure(self, code: int | None) -> Failure:
        """Fail a task because a fault says so; 400 is told as a flagged text."""
        return Failure(code or 500, USUAL_FAILURE if code is None else f"{USUAL_FAILURE} ({code})")

    def hooks(self, task: Task) -> Sequence[Hook]:
        """Write the partial webhooks that are due at a task's stage, or the one of its failure."""
        return hooks(task, seed=self.studio.settings.dice)


def build(studio: Studio) -> web.Application:
    """Make MusicGPT's extend and status calls, under each of its prefixes."""
    app = api_application(refused)
    clerk = Clerk(studio)

    async def by_id(request: web.Request) -> web.StreamResponse:
        check_header(request, studio.settings.api_key)
        kind = request.query.get("conversionType")
        # Required by the page; clients that leave it out get answers (sheet 2.4).
        if kind is not None and kind not in CONVERSION_TYPES:
            raise Refusal(Trouble.INVALID, "Input should be a conversion type", names=["conversionType"])
        task_id, conversion_id = request.query.get("task_id"), request.query.get("conversion_id")
        if task_id is None and conversion_id is None:
            raise Refusal(Trouble.MISSING, "Field required", names=["task_id"])
        task = _find(studio, task_id, conversion_id)
        base = str(studio.files.base)
        second = task.take_ids[1] if len(task.take_ids) > 1 else SINGLE
        return json_response({"success": True, "conversion": conversion(task, base=base, second_id=second)})

    for prefix in PREFIXES:
        app.router.add_post(f"{prefix}/extend", submitting(studio, clerk, operation="extend"))
        app.router.add_get(f"{prefix}/byId", by_id)
    return app


def refused(refusal: Refusal) -> web.Response:
    """Answer ``{"detail": ...}``: a list for wrong fields, else a text (no page shows a 422: sheet 2.2)."""
    code = CODES.get(refusal.trouble, INVALID_CODE)
    if code != INVALID_CODE:
        return json_response({"detail": refusal.message}, status=code)
    kind = "missing" if refusal.trouble is Trouble.MISSING else "value_error"
    places: Sequence[str] = refusal.names or ("body",)
    detail: list[Mapping[str, object]] = [
        {"loc": ["body", name], "msg": refusal.message, "type": kind} for name in places
    ]
    return json_response({"detail": detail}, status=code)


def _find(studio: Studio, task_id: str | None, conversion_id: str | None) -> Task:
    task = studio.tasks.get(task_id or "")
    if task is None and conversion_id is not None:
        task = next((task for task in studio.tasks.values() if conversion_id in task.take_ids), None)
    if task is None or task.provider != PROVIDER:
        raise Refusal(Trouble.TASK, "Conversion not found")
    return task
