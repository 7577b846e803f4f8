"""The common base of the APIs: checks keys, accepts submits and applies their faults, and answers refusals."""

from __future__ import annotations

import asyncio
import hmac
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias, cast

import aiohttp
import msgspec
from aiohttp import BodyPartReader, hdrs, web
from attrs import define

from audioext.sandbox.faults import Fault, FaultKind
from audioext.sandbox.library import Library
from audioext.sandbox.models import ApiFacts, Callback, Cause, Refusal, Submission, Task, TaskInput
from audioext.sandbox.state import State

JSON_TYPE = "application/json"
PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0} sandbox</h1></body></html>"
CLOUDFLARE_PAGE = "error code: 1010"  # Cloudflare's answer to a suspected bot
HTTP_OK = 200
HTTP_FORBIDDEN = 403
MOST_TEXT_BYTES = 64 * 1024
Form: TypeAlias = tuple[Mapping[str, str], tuple[str, str] | None]
"""The text fields of a submit or an upload; the key and name of its file, if any."""

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@define(eq=False)
class Api(ABC):
    """One operation of an API: its submit, status and webhooks; `operation` is its name in the log.

    It answers ``{"code", "msg", "data"}`` unless the API has another form.
    """

    state: State
    facts: ApiFacts
    operation: str

    @abstractmethod
    async def read(self, request: web.Request, submission: Submission) -> TaskInput:
        """Read and check a submit's body, and add its fields to *submission*; raises Refusal."""

    @abstractmethod
    def callbacks(self, task: Task) -> Sequence[Callback]:
        """Return the webhooks that are due at the task's stage, or for its failure."""

    def error(self, code: int, message: str) -> web.Response:
        """Answer with this code, usually with HTTP 200; the names of wrong fields are in the message."""
        status = self.facts.statuses.get(code, HTTP_OK)
        return json_response({"code": code, "msg": message, "data": None}, status=status)

    def ok(self, data: object) -> web.Response:
        """Answer with data."""
        return json_response({"code": 200, "msg": "success", "data": data})

    def accepted(self, task: Task) -> web.Response:
        """Answer that the task is created: ``{"code":200,"msg":"success","data":{"taskId":"..."}}``."""
        return self.ok({"taskId": task.id})

    @property
    def is_live(self) -> bool:
        """Whether to follow recordings of this API where they differ from its pages."""
        return self.facts.is_recorded and self.state.faithful == "live"

    def find(self, task_id: str) -> Task | None:
        """Return one of this API's tasks, if it is kept."""
        task = self.state.find(task_id)
        return task if task is not None and task.provider == self.facts.provider else None

    def check_key(self, request: web.Request) -> None:
        """Check the whole Authorization header; raises Refusal if it is missing or wrong."""
        given, wanted = request.headers.get(hdrs.AUTHORIZATION, ""), self.facts.key_prefix + self.state.api_key
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode()):
            raise Refusal(Cause.KEY, "You do not have access permissions")

    def add_get(self, app: web.Application, path: str, read: Callable[[Mapping[str, str]], web.Response]) -> None:
        """Add a read-only call: a request with the key gets the answer of *read* to its query."""

        async def answer(request: web.Request) -> web.StreamResponse:
            self.check_key(request)
            return read(request.query)

        app.router.add_get(path, answer)

    def refused(self, refusal: Refusal) -> web.Response:
        """Put a refusal into the API's own form."""
        return self.error(self.facts.code(refusal.cause), refusal.message)

    def application(self) -> web.Application:
        """Return an application that answers refusals in the API's form; unknown paths and methods get their status."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except Refusal as refusal:
                return self.refused(refusal)
            except (web.HTTPRequestEntityTooLarge, web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
                cause = Cause(error.status)
                response = self.refused(Refusal(cause, error.reason))
                if cause is not Cause.TOO_BIG:
                    response.set_status(self.facts.code(cause))
                return response

        return web.Application(middlewares=[answer])

    # --- a submit, from the first byte to the answer ---

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Handle one submit."""
        state, facts = self.state, self.facts
        submission = state.log(facts.provider, self.operation)
        try:
            self.check_key(request)
            given = await self.read(request, submission)
            # At MusicGPT nothing is awaited from here to the start of the task, so that its limit cannot be exceeded.
            state.admit(facts)
            plan = state.draw(given.name)
            coded, page, lost = map(plan.get, (FaultKind.CODE, FaultKind.HTTP, FaultKind.LOSE_RESPONSE))
            if coded is not None and coded.code is not None:
                answer = self.error(coded.code, f"A fault of the sandbox answers {coded.code}")
                return await _send(request, answer, submission)
            if page is not None and page.variant != "made":
                return await _send(request, _page(page), submission)
            if lost is not None and lost.variant == "unmade":
                return await _cut(request)
            if state.balance(facts.provider) < state.price:
                raise Refusal(Cause.CREDITS, "Insufficient credits")
            source = await self._find_source(given)
        except Refusal as refusal:
            return await _send(request, self.refused(refusal), submission)
        task = state.begin(given, plan, source, facts=facts, callbacks=self.callbacks)
        submission.task_id = task.id
        try:
            if plan.get(FaultKind.CALLBACK_BEFORE_RESPONSE) and task.runner is not None:
                task.answered.set()
                await asyncio.wait([task.runner])
            answer = self.accepted(task) if page is None else _page(page)
            if lost is not None:
                return await _cut(request, answer if lost.variant == "half" else None)
            return await _send(request, answer, submission)
        finally:
            task.answered.set()

    async def _find_source(self, given: TaskInput) -> str | None:
        """Return the source's key if the API looks it up before it answers, as all do for a track id; else None."""
        if given.audio_id is None and not self.facts.fetches_first:
            return None
        try:
            return await self.state.library.source(given)
        except Refusal as refusal:
            if refusal.cause is Cause.TRACK and self.is_live:
                return None  # "an unknown audioId is accepted at submit" (kie.ai, April 2026); the task fails later
            raise


def _page(fault: Fault) -> web.Response:
    status = fault.code or web.HTTPInternalServerError.status_code
    if status == HTTP_FORBIDDEN:
        return web.Response(status=status, text=CLOUDFLARE_PAGE, content_type="text/plain")
    return web.Response(status=status, text=PAGE.format(status), content_type="text/html")


async def _send(request: web.Request, response: web.Response, submission: Submission) -> web.StreamResponse:
    """Write the whole answer now, so that webhooks are sent only after it."""
    submission.http_status = response.status
    if response.content_type == JSON_TYPE and isinstance(response.body, bytes):
        code = msgspec.json.decode(response.body).get("code")
        submission.code = code if isinstance(code, int) else None
    with suppress(aiohttp.ClientConnectionResetError):  # the task exists even if the client disconnected
        await response.prepare(request)
        await response.write_eof()
    return response


async def _cut(request: web.Request, whole: web.Response | None = None) -> web.StreamResponse:
    """Break the connection without an answer, or in the middle of the *whole* answer."""
    response = web.StreamResponse(headers={"Content-Type": JSON_TYPE})
    response.force_close()
    if whole is not None and isinstance(whole.body, bytes):
        response.set_status(whole.status)
        response.content_length = len(whole.body)
        await response.prepare(request)
        await response.write(whole.body[: len(whole.body) // 2])
    if request.transport is not None:
        end = request.transport.abort if whole is None else request.transport.close  # `close` sends the half first
        end()
    return response


# --- bodies ----------------------------------------------------------------------------------------------------------


async def read_json_object(request: web.Request) -> Mapping[str, object]:
    """Read a JSON object; raises Refusal for any other body or content type."""
    # "JSON bodies need Content-Type: application/json": kie.ai, sunoapi.org, vidgo.ai
    if request.content_type != JSON_TYPE:
        raise Refusal(Cause.INVALID, f"Content-Type must be {JSON_TYPE}")
    try:
        found = msgspec.json.decode(await request.read())
    except web.HTTPRequestEntityTooLarge as error:
        raise Refusal(Cause.TOO_BIG, error.reason) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(Cause.INVALID, "The body is not valid JSON") from error
    if not isinstance(found, dict):
        raise Refusal(Cause.INVALID, "The body must be a JSON object")
    return cast("Mapping[str, object]", found)  # JSON keys are strings


async def read_form(request: web.Request, library: Library, file_name: str) -> Form:
    """Read a multipart form, in constant memory; parts come in any order, the first file of that name is kept.

    Raises Refusal if the body is not a form, or a file is too big.
    """
    if request.content_type != "multipart/form-data":
        raise Refusal(Cause.INVALID, "Content-Type must be multipart/form-data")
    texts: dict[str, str] = {}
    received: tuple[str, str] | None = None
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                continue
            if part.name == file_name and received is None:
                received = await library.receive(part.read_chunk), part.filename or "file"
            else:
                texts[part.name] = (await part.read_chunk(MOST_TEXT_BYTES)).decode("utf-8", "replace")
    except ValueError as error:
        raise Refusal(Cause.INVALID, "The body is not valid multipart/form-data") from error
    return texts, received


def json_text(value: object) -> str:
    """Return *value* as a JSON text, for fields that contain JSON inside JSON."""
    return msgspec.json.encode(value).decode()


def json_response(body: object, *, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type=JSON_TYPE)
