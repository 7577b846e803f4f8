"""Acceptance of a webhook without any framework: tag, verify, decode, dispatch, and the status to answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import attrs
from attrs import define, field

from audioext.clock import Clock, mint_id
from audioext.errors import DecodeError, StoreError, WebhookError
from audioext.http import urls as routes
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.messages import Webhook
from audioext.http.urls import Route
from audioext.models.events import Event, Progress
from audioext.models.results import Stage
from audioext.providers.base import Provider
from audioext.runtime.journal import Dispatcher
from audioext.stores.base import Delivery, VerdictWord

_log = logging.getLogger("audioext.inbox")

TAG_WARNING_SECONDS = 60.0
Confirm = Literal["never", "always"]
"""Whether a webhook's COMPLETE counts at once, or only makes a status call due."""

# What is needed to verify a body again at its own time. Never a key, a cookie or an authorization.
_KEPT_HEADERS = ("content-type", "user-agent", "x-webhook-timestamp", "x-webhook-signature")


@define(kw_only=True, eq=False, repr=False)
class Inbox:
    """Takes deliveries and says what to answer: the durable record comes before the reply."""

    dispatcher: Dispatcher
    providers: Mapping[str, Provider]
    clock: Clock
    confirm: Confirm = "never"
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    accepting: Callable[[], bool] = field(default=lambda: True)
    _warned_at: float = field(default=-math.inf, init=False)

    def admit(self, path: str) -> Route:
        """Check a callback path before its body is read.

        Raises:
            WebhookError: no such route (404), a tag that is not ours (401), or we are not open (503).
        """
        route = routes.read_callback(path)
        self._check_open()
        if route.provider not in self.providers:
            message = f"no provider named {route.provider}"
            raise WebhookError(message, http_status=404)
        try:
            routes.check_tag(route, self.secrets)
        except WebhookError:
            self._warn_of_tag(route)
            raise
        return route

    async def accept(self, hook: Webhook) -> int:
        """Take one delivery and return the HTTP status to answer it with; it never raises for a bad one.

        200 applied, repeated, already final or orphan; 400 malformed; 401 not authentic; 404 no such route;
        413 too big; 503 the store is down, please retry.
        """
        try:
            route = self.admit(hook.path)
        except WebhookError as error:
            return _refused(error)
        return await self.take(route, hook)

    async def take(self, route: Route, hook: Webhook) -> int:
        """Take one delivery whose path `admit` let through as *route*, so that its tag is not checked twice.

        Returns the status to answer it with, as `accept` does.
        """
        try:
            self._check_open()  # again: the client may have closed while the body was read
            if len(hook.body) > MAX_BODY_BYTES:
                message = f"the body is over {MAX_BODY_BYTES} bytes"
                raise WebhookError(message, http_status=413)
            await self._take(route, hook.at(self.clock.now()))
        except WebhookError as error:
            return _refused(error)
        except DecodeError as error:
            _log.warning("a delivery was refused with 400: %s", error)
            return 400
        except StoreError as error:
            _log.warning("a delivery was put off with 503: %s", error)
            return 503
        return 200

    def _warn_of_tag(self, route: Route) -> None:
        """Say it now and then: a stranger's guess is no news, but two secrets in one service lose all callbacks."""
        now = self.clock.now()
        if not 0 <= now - self._warned_at < TAG_WARNING_SECONDS:
            self._warned_at = now
            _log.warning(
                "a callback of %s for job %s has no tag of ours: it is a stranger's, or it was signed with other "
                "secrets= or in another store",
                route.provider,
                route.ref,
            )

    def _check_open(self) -> None:
        if not self.accepting() or not self.secrets:
            message = "not open: the client is closed or was not opened yet"
            raise WebhookError(message, http_status=503)

    async def _take(self, route: Route, hook: Webhook) -> None:
        delivery = self._delivery(route, hook, "applied")
        at = delivery.received_at
        try:
            events = self.providers[route.provider].parse_webhook(hook)
        except DecodeError as error:
            await self._refuse(delivery, "unreadable", str(error), ask_now=True)
            raise
        except WebhookError as error:
            await self._refuse(delivery, "refused", str(error))
            raise
        believed, doubted = self._believe(events)
        try:
            applied = await self.dispatcher.apply(
                route.ref, believed, seen="webhook", at=at, delivery=delivery, ask_now=doubted
            )
        except WebhookError as error:
            await self._refuse(delivery, "refused", str(error))
            raise
        if applied is None:
            _log.warning("a delivery for %s, which the store does not hold, was kept as an orphan", route.ref)
            await self.dispatcher.store.journal(attrs.evolve(delivery, verdict="orphan"))

    async def _refuse(self, delivery: Delivery, verdict: VerdictWord, note: str, *, ask_now: bool = False) -> None:
        await self.dispatcher.store.journal(attrs.evolve(delivery, verdict=verdict, note=note))
        if ask_now:
            await self.dispatcher.update(delivery.ref, lambda record: record, ask_now=True)

    def _believe(self, events: Sequence[Event]) -> tuple[Sequence[Event], bool]:
        """With `confirm="always"` a COMPLETE is journaled, not joined: kie.ai's signature leaves the body out.

        The task that it names is: it may be the only word of it, and without its id no status call can be made.
        """
        if self.confirm == "never":
            return events, False
        kept: list[Event] = []
        doubted = False
        for event in events:
            if not isinstance(event, Progress) or event.claimed_stage is not Stage.COMPLETE:
                kept.append(event)
                continue
            doubted = True
            if event.task_id is not None:
                kept.append(Progress(task_id=event.task_id, ask_now=True))
        return kept, doubted

    def _delivery(self, route: Route, hook: Webhook, verdict: VerdictWord) -> Delivery:
        at = hook.received_at if hook.received_at is not None else self.clock.now()
        return Delivery(
            id=mint_id(at),
            ref=route.ref,
            provider=route.provider,
            received_at=at,
            verdict=verdict,
            path=routes.mask(hook.path),
            headers={name: hook.headers[name] for name in _KEPT_HEADERS if name in hook.headers},
            body=hook.body,
        )


def _refused(error: WebhookError) -> int:
    _log.info("a delivery was refused with %d: %s", error.http_status, error)
    return error.http_status
