"""The half of a client that registers handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

from audioext.models.results import Stage
from audioext.runtime.handlers import FailureHandler, Handlers, StageHandler
from audioext.runtime.jobs import Failure, StageEvent

_StageHandlerT = TypeVar("_StageHandlerT", bound=StageHandler)
_FailureHandlerT = TypeVar("_FailureHandlerT", bound=FailureHandler)
_MetaT = TypeVar("_MetaT")


class Registering:
    """`on` and `on_failure`; what they decorate stays what it was."""

    _handlers: Handlers

    @overload
    def on(self, stage: Stage) -> Callable[[_StageHandlerT], _StageHandlerT]: ...

    @overload
    def on(
        self, stage: Stage, *, meta: type[_MetaT]
    ) -> Callable[
        [Callable[[StageEvent, _MetaT], Awaitable[None]]], Callable[[StageEvent, _MetaT], Awaitable[None]]
    ]: ...

    def on(self, stage: Stage, *, meta: type[object] | None = None) -> Callable[..., object]:
        """Decorate an async function that is called with each job's `StageEvent` of *stage*.

        It is called at least once for each (job, stage), after a restart too; the stages of one job come in order. An
        error is logged and tried again, up to five times, then shown in `job.record`. One that says `retry_after`, as
        those of chat libraries do, and `RetryLater`, are no failure: it is called again after so many seconds, up to
        100 times; meanwhile later stages of the job wait. `GiveUp` ends the tries.

        With *meta*, a dataclass, an attrs class, a TypedDict or a msgspec.Struct, it is called with the submit's meta
        as such an object too: `async def tell(event, chat)`. A job whose meta is none is given up with a clear error.

        Raises:
            ConfigError: handlers are not told of that stage, *meta* cannot be read from JSON, or what is decorated is
                no async function.
        """
        self._handlers.check(stage)

        def register(handler: Callable[..., Awaitable[None]]) -> object:
            self._handlers.on(stage, handler, meta)
            return handler

        return register

    @overload
    def on_failure(self, handler: _FailureHandlerT) -> _FailureHandlerT: ...

    @overload
    def on_failure(
        self, *, meta: type[_MetaT]
    ) -> Callable[[Callable[[Failure, _MetaT], Awaitable[None]]], Callable[[Failure, _MetaT], Awaitable[None]]]: ...

    def on_failure(
        self, handler: Callable[..., Awaitable[None]] | None = None, *, meta: type[object] | None = None
    ) -> object:
        """Decorate an async function that is called with each job's `Failure`, at least once; see `on`.

        It is `@client.on_failure`, or `@client.on_failure(meta=Chat)`.

        Raises:
            ConfigError: as `on` does.
        """

        def register(handler: Callable[..., Awaitable[None]]) -> object:
            self._handlers.on_failure(handler, meta)
            return handler

        return register if handler is None else register(handler)
