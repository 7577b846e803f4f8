"""Accepting a webhook without any framework: check its tag and signature, decode it, store it, return a status."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import sys
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal
from urllib.parse import unquote

import attrs
from attrs import define, field
from yarl import URL

from audioext.errors import ConfigError, DecodeError, StoreError, WebhookError, cut, shown
from audioext.http import signing, urls
from audioext.http.decoding import MAX_BODY_BYTES
from audioext.http.messages import Webhook, as_data
from audioext.http.urls import Route
from audioext.models import checks
from audioext.models.entries import REFUSED, UNCONFIRMED, UNREADABLE, Entry, make_entry
from audioext.models.stats import WebhookEnd
from audioext.outage import Outage
from audioext.runtime import telemetry
from audioext.runtime.journal import Journal
from audioext.state.reading import Reading, masked, read_webhook
from audioext.webhooks.probe import is_fresh, status_of_probe

_log = logging.getLogger("audioext.inbox")

TAG_WARNING_SECONDS = 60.0
NO_LOOP = (
    "the event loop that the client was opened on does not run: keep it running in a thread, as by "
    "`threading.Thread(target=loop.run_forever).start()`, and open the client on it"
)
LONGEST_NOTE = 1_000
KEPT_BYTES = 4_096
"""Kept of a body whose signature was refused. Sixteen times as much is kept of an unreadable body, so that a later
release may read it."""
Confirm = Literal["never", "unsigned", "always"]
"""Which webhooks are only trusted for their task id, and confirmed by a status call: none, those whose signature is not
checked, or all."""

_ENDS: Mapping[int, WebhookEnd] = {400: "unreadable", 503: "put_off"}
"""How a refused webhook is counted, by status. All others count as "refused": a stranger's, or another task's."""
_UNPACKED = frozenset({"gzip", "x-gzip", "deflate"})
_ANY_HEADER = 47  # 32 + 15: zlib detects a gzip or zlib header by itself
_PACKED = (b"\x1f", b"x")
"""The first byte of a gzip or zlib body; no JSON begins with it."""
_SLASHES = re.compile("/{2,}")
# Besides those that verify a body again at the time it came. Never a key, a cookie or an authorization.
_KEPT_HEADERS = ("content-type", "user-agent")


@define(kw_only=True, eq=False, repr=False)
class Inbox:
    """Takes webhooks and returns the status to answer; a webhook is stored before it is answered with 200.

    Each client makes its own, `client.inbox`, of which you call `accept`; the receiver calls the rest.
    """

    journal: Journal
    confirm: Confirm = "never"
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    is_open: bool = field(default=False, init=False)
    """Whether webhooks are taken; the client sets it while it is open."""
    loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    """The client's event loop. Webhooks that arrive on another loop or thread are handed over to it."""
    outage: Outage = field(factory=lambda: Outage(_log, "deliveries are put off with 503"), init=False)
    """Whether the latest webhook could be stored."""
    _warned_at: float = field(default=-math.inf, init=False)

    def admit(self, path: str) -> Route:
        """Check a callback path before its body is read.

        Raises:
            WebhookError: no such route (404), the tag is not ours (401), or the client is not open (503).
            ConfigError: *path* is not str, bytes or a URL.
        """
        path = path if type(path) is str else _as_path(path)
        if "%" in path:  # a proxy may encode any letter, also of the tag
            path = unquote(path.partition("?")[0])
        try:
            route = urls.read_callback(path)
        except WebhookError:
            route = urls.read_callback(_SLASHES.sub("/", path))  # a proxy may double slashes
        if not self.is_open:
            raise _not_open()
        is_ours = signing.tag_matches(self.secrets, route.provider, route.ref, route.tag)
        with suppress(KeyError):  # the decoder of a named account may be made only now
            if is_ours and self.journal.providers[route.provider].info.name == route.provider:
                return route
        if route.provider == urls.CHECK_SEGMENT:
            if is_ours and is_fresh(route.ref, self.journal.clock.now()):
                return route  # only a holder of our secret can make a fresh ref with its tag
            raise WebhookError("not a check of ours, or an expired one", http_status=401)
        if route.provider not in self.journal.providers:
            raise WebhookError(f"no provider named {route.provider}", http_status=404)
        self.journal.counts.webhooks[route.provider, "refused"] += 1
        self._warn_of_tag(route)
        raise WebhookError(f"the callback path of {route.ref} does not carry our tag", http_status=401)

    async def accept(self, hook: Webhook) -> int:
        """Take one webhook and return the HTTP status to answer; a bad webhook never raises.

        200 applied, repeated, already final or orphan; 400 malformed; 401 not authentic; 404 no such route;
        413 too big; 415 unsupported compression; 503 the store is down or the client is not open, please retry.

        Raises:
            ConfigError: *hook* is not a `Webhook`, or its path, body or time has an unusable type. Text is encoded.
                Or the event loop that the client was opened on does not run.
        """
        hook = _whole(hook)
        try:
            route = self.admit(hook.path)
            # Some frameworks decompress the body, but leave the header.
            if hook.body.startswith(_PACKED) and "Content-Encoding" in hook.headers:
                hook = attrs.evolve(hook, body=unpack(hook.body, hook.headers["Content-Encoding"]))
        except WebhookError as error:
            return _refused(error)
        return await self.take(route, hook)

    async def take(self, route: Route, hook: Webhook, *, verify: bool = True) -> int:
        """Take one webhook whose tag `admit` has checked, and return the status to answer, as `accept` does.

        `replay` passes *verify* as False for a stored webhook, unless it was refused for its signature.
        """
        began = self.journal.clock.now()
        try:
            if not self.is_open:  # the client may have closed while the body was read
                raise _not_open()
            if len(hook.body) > MAX_BODY_BYTES:
                raise too_big()
            if route.provider == urls.CHECK_SEGMENT:
                return status_of_probe(self.secrets, route.ref, hook.body)
            if self.loop is not None and self.loop is not asyncio.get_running_loop():
                if not self.loop.is_running():  # it would never answer
                    raise ConfigError(NO_LOOP)
                elsewhere = asyncio.run_coroutine_threadsafe(self.take(route, hook, verify=verify), self.loop)
                return await asyncio.wrap_future(elsewhere)
            stamped = hook.at(began) if hook.received_at is None else hook
            self._note(route, began, await self._take(route, stamped, verify=verify))
        except WebhookError as error:
            self._note(route, began, _ENDS.get(error.http_status, "refused"))
            return _refused(error, route)
        except StoreError as error:
            self.outage.note(error)
            self._note(route, began, "put_off")
            return 503
        if self.outage.why:
            self.outage.over()
        return 200

    def _note(self, route: Route, began: float, end: WebhookEnd) -> None:
        """Count a webhook, and add it to the trace of its job."""
        self.journal.counts.webhooks[route.provider, end] += 1
        _log.debug("a webhook of %s for job %s was %s", route.provider, route.ref, end)
        if telemetry.API in sys.modules and (held := self.journal.held.get(route.ref)) is not None:
            telemetry.webhook(held.record, verdict=end, began=began, ended=self.journal.clock.now())

    def _warn_of_tag(self, route: Route) -> None:
        """Warn now and then: a stranger's guess is harmless, but differing secrets in a service lose all callbacks."""
        now = self.journal.clock.now()
        if not 0 <= now - self._warned_at < TAG_WARNING_SECONDS:
            self._warned_at = now
            _log.warning(
                "a callback of %s for job %s has no valid tag: it comes from a stranger, or from a client with other "
                "secrets= or another store",
                route.provider,
                route.ref,
            )

    async def _take(self, route: Route, hook: Webhook, *, verify: bool) -> WebhookEnd:
        provider = self.journal.providers[route.provider]
        body = masked(hook.body, provider, route.tag)
        headers: dict[str, str] = {}
        for name in (*_KEPT_HEADERS, *map(str.lower, provider.info.signature_headers)):
            if (value := hook.headers.get(name)) is not None:
                headers[name] = value
        entry = make_entry("webhook", hook.received_at or 0.0, headers=headers, body=body)
        try:
            if verify:
                provider.verify_webhook(hook)
            reading = read_webhook(entry, provider)
        except WebhookError as error:
            note = as_data(f"{REFUSED}: {error}")
            kept = _noted(entry, note, most=KEPT_BYTES)
            await self.journal.receive(route.ref, route.provider, Reading(kept, problem=note))
            raise
        except DecodeError as error:
            reading = Reading(entry, problem=as_data(str(error)))
        if reading.problem:
            unreadable = _noted(entry, f"{UNREADABLE}: {reading.problem}", most=16 * KEPT_BYTES)
            await self.journal.receive(route.ref, route.provider, Reading(unreadable, problem=reading.problem))
            raise WebhookError(reading.problem, http_status=400)
        if self.confirm == "always" or (self.confirm == "unsigned" and not provider.info.is_signed):
            reading = read_webhook(_noted(entry, UNCONFIRMED), provider)
            _log.debug("a webhook for job %s awaits a status call, since confirm=%r", route.ref, self.confirm)
        return await self.journal.receive(route.ref, route.provider, reading)


def _whole(hook: Webhook) -> Webhook:
    """Return *hook* with a str path and a bytes body, or raise ConfigError if a framework gave something else."""
    body, given = getattr(hook, "body", None), ""
    if not isinstance(hook, Webhook):
        given = f"an object of type {cut(type(hook).__name__)}"
    elif not isinstance(body, (str, bytes, bytearray, memoryview)):
        given = f"a body of type {cut(type(body).__name__)}"
    elif hook.received_at is not None and not checks.is_number(hook.received_at, above=-1):
        given = f"received_at={shown(hook.received_at)}, which is not a Unix time"
    if given:
        wanted = "with the path as str and the body as bytes, as received"
        raise ConfigError(f"accept takes a Webhook(path=..., headers=..., body=...) {wanted}, not {given}")
    if type(hook.path) is str and type(body) is bytes:
        return hook
    body = body.encode(errors="replace") if isinstance(body, str) else bytes(body or b"")
    return attrs.evolve(hook, path=_as_path(hook.path), body=body)


def _as_path(path: object) -> str:
    if isinstance(path, (str, bytes, URL)):
        return path.decode("latin-1") if isinstance(path, bytes) else str(path)
    raise ConfigError(
        f"a callback's path must be str, not {cut(type(path).__name__)}"
    )  # never shown: it holds a secret


def too_big() -> WebhookError:
    """Return the error (413) for a body over the limit."""
    return WebhookError(f"the body is over {MAX_BODY_BYTES} bytes", http_status=413)


def _not_open() -> WebhookError:
    return WebhookError("the client is closed or was not opened yet", http_status=503)


def _noted(entry: Entry, note: str, *, most: int = MAX_BODY_BYTES) -> Entry:
    return make_entry(entry.kind, entry.at, headers=entry.headers, body=entry.body[:most], note=note[:LONGEST_NOTE])


def _refused(error: WebhookError, route: Route | None = None) -> int:
    named = {} if route is None else {"audioext_ref": route.ref, "provider": route.provider}
    _log.info("a webhook was refused with %d: %s", error.http_status, error, extra=named)
    return error.http_status


def unpack(body: bytes, encoding: str) -> bytes:
    """Return *body* decompressed.

    Raises:
        WebhookError: its encoding is unsupported (415), it is damaged (400), or too big (413).
    """
    if encoding.strip().lower() == "identity":
        return body
    if encoding.strip().lower() not in _UNPACKED:
        raise WebhookError("a body may only be compressed with gzip or deflate", http_status=415)
    packed = zlib.decompressobj(wbits=_ANY_HEADER)
    try:
        found = packed.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise WebhookError(f"the compressed body is damaged: {error}", http_status=400) from error
    if len(found) > MAX_BODY_BYTES:
        raise too_big()
    if not packed.eof or packed.unused_data:
        raise WebhookError("the compressed body is damaged: it is incomplete, or has trailing data", http_status=400)
    return found
