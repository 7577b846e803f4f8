"""What all APIs do with HTTP: check keys, read JSON, answer refusals, unknown paths and wrong methods."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, cast

import msgspec
from aiohttp import hdrs, web

from audioext.sandbox.models import Cause, Refusal
from audioext.sandbox.protocol import ApiFacts
from audioext.sandbox.settings import SandboxSettings

JSON_TYPE = "application/json"

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
ErrorAnswer: TypeAlias = Callable[[int, str, Sequence[str]], web.Response]
"""Answers with a code, a text and the names of fields, in an API's own form."""


def check_key(request: web.Request, facts: ApiFacts, settings: SandboxSettings) -> None:
    """Check the whole Authorization header.

    Raises:
        Refusal: It is missing or wrong.
    """
    given, wanted = request.headers.get(hdrs.AUTHORIZATION, ""), facts.key_prefix + settings.api_key
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode()):
        raise Refusal(Cause.KEY, "You do not have access permissions")


async def read_json_object(request: web.Request) -> Mapping[str, object]:
    """Read a JSON object.

    Raises:
        Refusal: The body is something else, or does not say that it is JSON.
    """
    # "JSON bodies need Content-Type: application/json": kie.ai, sunoapi.org, vidgo.ai
    if request.content_type != JSON_TYPE:
        raise Refusal(Cause.BODY, f"Content-Type must be {JSON_TYPE}")
    try:
        found = as_object(msgspec.json.decode(await request.read()))
    except web.HTTPRequestEntityTooLarge as error:
        raise Refusal(Cause.TOO_BIG, "The body is too large") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(Cause.BODY, "The body is not valid JSON") from error
    if found is None:
        raise Refusal(Cause.BODY, "The body must be a JSON object")
    return found


def as_object(value: object) -> Mapping[str, object] | None:
    """Return a JSON object as what it is, and None for anything else."""
    # Decoded JSON has no other keys than texts.
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else None


def json_text(value: object) -> str:
    """Write JSON as a text, for the fields that hold JSON inside JSON."""
    return msgspec.json.encode(value).decode()


def json_response(body: object, *, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type=JSON_TYPE)


def refused(facts: ApiFacts, error: ErrorAnswer, refusal: Refusal) -> web.Response:
    """Put a refusal into an API's own form."""
    return error(facts.code(refusal.cause), refusal.message, refusal.names)


def api_application(settings: SandboxSettings, facts: ApiFacts, error: ErrorAnswer) -> web.Application:
    """Make an application that answers all refusals as its API does, with a real HTTP status for paths and methods."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refused(facts, error, refusal)
        except web.HTTPRequestEntityTooLarge:
            return refused(facts, error, Refusal(Cause.TOO_BIG, "The body is too large"))
        except web.HTTPNotFound:
            response = refused(facts, error, Refusal(Cause.PATH, "The requested resource does not exist"))
            response.set_status(facts.code(Cause.PATH))
        except web.HTTPMethodNotAllowed:
            response = refused(facts, error, Refusal(Cause.METHOD, "The method is not allowed"))
            response.set_status(facts.code(Cause.METHOD))
        return response

    return web.Application(middlewares=[answer], client_max_size=settings.max_body_bytes)
