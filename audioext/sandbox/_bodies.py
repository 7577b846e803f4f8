"""Reads what clients send, and checks their keys."""

import hmac
from collections.abc import Mapping
from typing import cast

import orjson
from aiohttp import hdrs, web

from .tasks import Refusal, Trouble

__all__ = ["as_object", "check_bearer", "check_header", "json_response", "read_json_object"]

JSON_TYPE = "application/json"


def check_bearer(request: web.Request, key: str) -> None:
    """Check ``Authorization: Bearer KEY``.

    Raises:
        Refusal: It is missing or wrong.
    """
    check_header(request, f"Bearer {key}")


def check_header(request: web.Request, wanted: str) -> None:
    """Check the whole Authorization header.

    Raises:
        Refusal: It is missing or wrong.
    """
    given = request.headers.get(hdrs.AUTHORIZATION, "")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode()):
        raise Refusal(Trouble.KEY, "You do not have access permissions")


async def read_json_object(request: web.Request) -> Mapping[str, object]:
    """Read a JSON object.

    Raises:
        Refusal: The body is something else, or does not say that it is JSON.
    """
    # "JSON bodies need Content-Type: application/json" (sheet 0, common to both; vidgo 1.1).
    if request.content_type != JSON_TYPE:
        raise Refusal(Trouble.BODY, f"Content-Type must be {JSON_TYPE}")
    try:
        found = as_object(orjson.loads(await request.read()))
    except web.HTTPRequestEntityTooLarge as error:
        raise Refusal(Trouble.TOO_BIG, "The body is too large") from error
    except orjson.JSONDecodeError as error:
        raise Refusal(Trouble.BODY, "The body is not valid JSON") from error
    if found is None:
        raise Refusal(Trouble.BODY, "The body must be a JSON object")
    return found


def as_object(value: object) -> Mapping[str, object] | None:
    """Return a JSON object as what it is, and None for anything else."""
    # Decoded JSON has no other keys than texts.
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else None


def json_response(body: object, *, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=orjson.dumps(body), status=status, content_type=JSON_TYPE)
