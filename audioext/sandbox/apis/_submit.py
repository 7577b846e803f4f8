"""What every submit goes through at whichever API, and the faults that befall it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aiohttp
import msgspec
from aiohttp import web

from audioext.sandbox.apis._http import JSON_TYPE, Handler, check_key, refused
from audioext.sandbox.faults import Fault, FaultKind, Plan
from audioext.sandbox.models import Cause, Refusal, SourceAudio, Submission, Task, TaskInput
from audioext.sandbox.protocol import Api
from audioext.sandbox.state import State

PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0} sandbox</h1></body></html>"
CLOUDFLARE_PAGE = "error code: 1010"  # what Cloudflare answers to a client that it takes for a bot
HTTP_FORBIDDEN = 403


def submitting(state: State, api: Api, *, operation: str) -> Handler:
    """Make the handler of one operation's submit."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _submit(state, api, request, operation=operation)

    return handle


async def _submit(state: State, api: Api, request: web.Request, *, operation: str) -> web.StreamResponse:
    """Take one submit, from the first byte to the answer."""
    facts = api.facts
    submission = state.note(facts.provider, operation)
    try:
        check_key(request, facts, state.settings)
        given = await api.read(request, submission)
        # Nothing is awaited from here to the start of a task at MusicGPT, so that no two slip through its limit.
        state.admit(facts)
        plan = state.script.draw(given.name)
        if (early := _answer_without_task(api, plan)) is not None:
            return await _send(request, early, submission)
        if _variant(plan, FaultKind.LOSE_RESPONSE) == "unmade":
            return _cut(request)
        if state.balance(facts.provider) < state.settings.price:
            raise Refusal(Cause.CREDITS, "Insufficient credits")
        source = await _find_source(state, api, given)
    except Refusal as refusal:
        return await _send(request, refused(facts, api.error, refusal), submission)
    if source is not None:
        given = given.inherit(source)
    task = state.start(given, api, plan, source)
    submission.task_id = task.id
    try:
        if plan.has(FaultKind.CALLBACK_BEFORE_RESPONSE) and task.life is not None:
            task.answered.set()
            await asyncio.wait([task.life])
        return await _answer(request, api, task, submission)
    finally:
        task.answered.set()


async def _find_source(state: State, api: Api, given: TaskInput) -> SourceAudio | None:
    """Return the source where the API looks for it before it answers; a track by its id is found at once."""
    if given.audio_id is None and not api.facts.fetches_first:
        return None
    try:
        return await state.library.source(given)
    except Refusal as refusal:
        if refusal.cause is Cause.TRACK and api.facts.is_live(state.settings):
            return None  # "an unknown audioId is accepted at submit" (kie.ai, April 2026); the task fails later
        raise


def _variant(plan: Plan, kind: FaultKind) -> str | None:
    fault = plan.get(kind)
    return fault.variant if fault is not None else None


def _answer_without_task(api: Api, plan: Plan) -> web.Response | None:
    coded = plan.get(FaultKind.CODE)
    if coded is not None and coded.code is not None:
        return api.error(coded.code, f"A fault of the sandbox answers {coded.code}")
    page = plan.get(FaultKind.HTTP)
    return _page(page) if page is not None and page.variant != "made" else None


def _page(fault: Fault) -> web.Response:
    status = fault.code or web.HTTPInternalServerError.status_code
    if status == HTTP_FORBIDDEN:
        return web.Response(status=status, text=CLOUDFLARE_PAGE, content_type="text/plain")
    return web.Response(status=status, text=PAGE.format(status), content_type="text/html")


async def _answer(request: web.Request, api: Api, task: Task, submission: Submission) -> web.StreamResponse:
    page = task.plan.get(FaultKind.HTTP)
    response = api.accepted(task) if page is None else _page(page)
    if not task.plan.has(FaultKind.LOSE_RESPONSE):
        return await _send(request, response, submission)
    if _variant(task.plan, FaultKind.LOSE_RESPONSE) == "half":
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
    if response.content_type != JSON_TYPE or not isinstance(response.body, bytes):
        return None
    code = msgspec.json.decode(response.body).get("code")
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
    response = web.StreamResponse(status=whole.status, headers={"Content-Type": JSON_TYPE})
    response.content_length = len(body)
    response.force_close()
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
