"""Takes orders: what every submit goes through at whichever API, and the faults that befall it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeAlias

import aiohttp
import orjson
from aiohttp import web
from attrs import define

from .faults import Fault, FaultKind, Plan
from .studio import Herald, Studio
from .tasks import Ids, Order, Refusal, Submission, Task, Trouble

__all__ = ["Clerk", "Handler", "Limiter", "submitting"]

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0} {1}</h1></body></html>"
#: What Cloudflare answers to a client that it takes for a bot (sheet 8.2).
CLOUDFLARE_PAGE = "error code: 1010"
HTTP_FORBIDDEN = 403


class Clerk(Herald, Protocol):
    """An API's way of taking orders."""

    @property
    def fetches_first(self) -> bool:
        """Whether the source is fetched before the submit is answered."""
        ...

    def admit(self, request: web.Request) -> None:
        """Check the key.

        Raises:
            Refusal: It is missing or wrong.
        """
        ...

    def limit(self) -> None:
        """Count this submit.

        Raises:
            Refusal: It is one too many.
        """
        ...

    async def read(self, request: web.Request, submission: Submission) -> Order:
        """Read and check the body, and note in the submission what it says.

        Raises:
            Refusal: The API would not accept it.
        """
        ...

    def new_ids(self, order: Order) -> Ids:
        """Mint the task's id, and its takes'."""
        ...

    def accepted(self, task: Task) -> web.Response:
        """Say that the task is made."""
        ...

    def refused(self, refusal: Refusal) -> web.Response:
        """Say no."""
        ...

    def coded(self, code: int, message: str) -> web.Response:
        """Answer with this code in the API's envelope, and no task."""
        ...


@define(eq=False)
class Limiter:
    """So many in a sliding window of real time."""

    most: int | None
    window_seconds: float
    _times: deque[float]

    @classmethod
    def of(cls, most: int | None, window_seconds: float) -> "Limiter":
        """Make a limiter that has let nobody pass yet."""
        return cls(most, window_seconds, deque())

    def passes(self) -> bool:
        """Let one pass, if it may."""
        if self.most is None:
            return True
        now = asyncio.get_running_loop().time()
        while self._times and self._times[0] <= now - self.window_seconds:
            self._times.popleft()
        if len(self._times) >= self.most:
            return False
        self._times.append(now)
        return True


def submitting(studio: Studio, clerk: Clerk, *, operation: str) -> Handler:
    """Make the handler of one operation's submit."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _submit(studio, clerk, request, operation=operation)

    return handle


async def _submit(studio: Studio, clerk: Clerk, request: web.Request, *, operation: str) -> web.StreamResponse:
    """Take one order, from the first byte to the answer."""
    submission = studio.note(clerk.provider, operation)
    try:
        clerk.admit(request)
        order = await clerk.read(request, submission)
        # Nothing is awaited between the parallel limit and the task's begin (MusicGPT), so that no two slip
        # through.
        clerk.limit()
        plan = studio.script.draw(order.name)
        if (early := _answer_without_task(clerk, plan)) is not None:
            return await _send(request, early, submission)
        if plan.has(FaultKind.LOSE_RESPONSE) and _variant(plan, FaultKind.LOSE_RESPONSE) == "unmade":
            return _cut(request)
        _check_balance(studio, clerk.provider)
        source = await studio.library.source(order) if clerk.fetches_first or order.audio_id is not None else None
    except Refusal as refusal:
        return await _send(request, clerk.refused(refusal), submission)
    task = studio.begin(order, clerk, plan, ids=clerk.new_ids(order))
    submission.task_id = task.id
    ticket = studio.start(task, clerk, source)
    try:
        if plan.has(FaultKind.CALLBACK_BEFORE_RESPONSE):
            ticket.answered.set()
            await asyncio.wait([ticket.life])
        return await _answer(request, clerk, task, submission)
    finally:
        ticket.answered.set()


def _check_balance(studio: Studio, provider: str) -> None:
    if studio.balance(provider) < studio.settings.price:
        raise Refusal(Trouble.CREDITS, "Insufficient credits")


def _variant(plan: Plan, kind: FaultKind) -> str | None:
    fault = plan.get(kind)
    return fault.variant if fault is not None else None


def _answer_without_task(clerk: Clerk, plan: Plan) -> web.Response | None:
    coded = plan.get(FaultKind.CODE)
    if coded is not None and coded.code is not None:
        return clerk.coded(coded.code, f"The sandbox was told to answer {coded.code}")
    page = plan.get(FaultKind.HTTP)
    return _page(page) if page is not None and page.variant != "made" else None


def _page(fault: Fault) -> web.Response:
    status = fault.code or web.HTTPInternalServerError.status_code
    if status == HTTP_FORBIDDEN:
        return web.Response(status=status, text=CLOUDFLARE_PAGE, content_type="text/plain")
    return web.Response(status=status, text=PAGE.format(status, "sandbox"), content_type="text/html")


async def _answer(request: web.Request, clerk: Clerk, task: Task, submission: Submission) -> web.StreamResponse:
    response = clerk.accepted(task)
    if (page := task.plan.get(FaultKind.HTTP)) is not None:
        return await _send(request, _page(page), submission)
    lost = task.plan.get(FaultKind.LOSE_RESPONSE)
    if lost is None:
        return await _send(request, response, submission)
    if lost.variant == "half":
        return await _send_half(request, response)
    return _cut(request)


async def _send(request: web.Request, response: web.Response, submission: Submission) -> web.StreamResponse:
    """Write the whole answer now, so that what follows it follows it on the wire."""
    submission.http_status = response.status
    submission.code = _code_in(response)
    with suppress(aiohttp.ClientConnectionResetError):  # a client that hung up has its task all the same
        await response.prepare(request)
        await response.write_eof()
    return response


def _code_in(response: web.Response) -> int | None:
    """Return the code in an API's envelope, if it has one."""
    if response.content_type != "application/json" or not isinstance(response.body, bytes):
        return None
    code = orjson.loads(response.body).get("code")
    return code if isinstance(code, int) else None


def _cut(request: web.Request) -> web.StreamResponse:
    """Break the connection without a word."""
    if request.transport is not None:
        request.transport.abort()
    response = web.Response()
    response.force_close()
    return response


async def _send_half(request: web.Request, whole: web.Response) -> web.StreamResponse:
    """Promise the whole answer, write half of it, and break the connection."""
    body = whole.body if isinstance(whole.body, bytes) else b""
    response = web.StreamResponse(status=whole.status, headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    response.force_close()
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
