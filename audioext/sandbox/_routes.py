"""Makes one API's application: its routes, and its own answer to what it has no route for."""

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .tasks import Refusal, Trouble

__all__ = ["api_application"]


def api_application(refused: Callable[[Refusal], web.Response]) -> web.Application:
    """Make an application that answers refusals, unknown paths and wrong methods as its API does."""
    return web.Application(middlewares=[_answering(refused)])


def _answering(refused: Callable[[Refusal], web.Response]) -> Middleware:
    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refused(refusal)
        except web.HTTPNotFound:
            return refused(Refusal(Trouble.PATH, "The requested resource does not exist"))
        except web.HTTPMethodNotAllowed:
            return refused(Refusal(Trouble.METHOD, "The method is not allowed"))
        except web.HTTPRequestEntityTooLarge:
            return refused(Refusal(Trouble.TOO_BIG, "The body is too large"))

    return answer
